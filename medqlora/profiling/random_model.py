"""A model of a given shape with random 4-bit weights, made on the device one matrix at a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from medqlora.errors import InputError
from medqlora.models.lora import LoRA, lora_targets, peft_config
from medqlora.models.quantization import bitsandbytes_config, import_bitsandbytes, settle
from medqlora.profiling.case import ModelShape

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

#: standard deviation of Llama's initial weights
_DEVIATION = 0.02


class _Normal(Protocol):
    """Makes a tensor of random normal weights."""

    def __call__(self, *size: int) -> Tensor: ...


def build_base(
    shape: ModelShape,
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    quantized: Callable[[nn.Module], object] | None = None,
) -> "PreTrainedModel":
    """A causal language model of transformers; the linear layers of its blocks are in NF4, doubly quantized.

    Each matrix is filled and quantized separately, so at most one exists in 16 bits at a time. Embedding and head
    stay in `dtype`, as in QLoRA.

    Args:
        shape: the fields of transformers' configuration, with its `model_type`.
        device: of the weights.
        dtype: of the weights without quantization, and of the 4-bit layers' products.
        seed: of the weights.
        quantized: called with each decoder layer after its matrices are made, before those of the next.

    Raises:
        InputError: transformers has no causal language model of this shape, or its layers have no standard form.
    """
    from accelerate import init_empty_weights

    config = _configuration(shape)
    with init_empty_weights(include_buffers=False):  # buffers, such as rotary frequencies, are real
        model = _skeleton(config, dtype)
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.empty(size, device=device, dtype=dtype).normal_(std=_DEVIATION, generator=generator)

    for layer in getattr(model, model.base_model_prefix).layers:
        for parent in list(layer.modules()):
            for name, module in list(parent.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(parent, name, _quantized(module, normal, dtype))
        if quantized is not None:
            quantized(layer)
    _fill(model, normal, device)
    model.tie_weights()
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT and TRL read it before the layers
    model.config.use_cache = False
    settle(model, device, dtype)
    return model.requires_grad_(False)


def _fill(model: nn.Module, normal: _Normal, device: torch.device) -> None:
    """Gives every parameter on the meta device a value, and moves the buffers to `device`."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                value = normal(*parameter.shape)
                # norms scale by about 1; Gemma's, which add 1 themselves, by about 2: both run the same kernels
                value = value + 1 if parameter.dim() == 1 and name == "weight" else value
                setattr(module, name, nn.Parameter(value, requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))


def _configuration(shape: ModelShape) -> "PretrainedConfig":
    from transformers import AutoConfig

    values = {key: value for key, value in shape.items() if key != "model_type"}
    try:
        return AutoConfig.for_model(str(shape["model_type"]), **values)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"model_type '{shape['model_type']}': transformers builds no configuration ({reason}): take another base"
        ) from error


def _skeleton(config: "PretrainedConfig", dtype: torch.dtype) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    # the sdpa of transformers 5.20 silently leaves Gemma 2's cap out, as in `models.Transformers`
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="eager" if capped else "sdpa"
        )
    except ValueError as error:
        raise InputError(f"{type(config).__name__} is no causal language model: take another base") from error
    if not hasattr(getattr(model, model.base_model_prefix), "layers"):
        raise InputError(f"{type(model).__name__} has no `layers`: take a Llama-like base")
    return model


def _quantized(module: nn.Linear, normal: _Normal, dtype: torch.dtype) -> nn.Module:
    """A random `Linear4bit` of the same size; `_fill` sets its bias."""
    bitsandbytes = import_bitsandbytes()
    has_bias = module.bias is not None
    linear = bitsandbytes.nn.Linear4bit(
        module.in_features, module.out_features, bias=has_bias, compute_dtype=dtype, quant_type="nf4",
        device="meta",
    )  # fmt: skip
    packed, state = bitsandbytes.functional.quantize_4bit(
        normal(module.out_features, module.in_features),
        blocksize=64,
        quant_type="nf4",
        compress_statistics=True,
    )
    linear.weight = bitsandbytes.nn.Params4bit(
        packed, requires_grad=False, quant_state=state, quant_type="nf4", bnb_quantized=True
    )
    return linear


def add_adapters(base: "PreTrainedModel", *, lora: LoRA = LoRA(), seed: int = 0) -> "PeftModel":  # noqa: B008  # frozen
    """`base` as a PEFT model in training mode with new float32 adapters, as from `models.Transformers`.

    B is not zero, as after a first step.
    """
    from peft import PeftModel, get_peft_model

    with torch.random.fork_rng(devices=[base.device] if base.device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = get_peft_model(base, peft_config(lora, lora_targets(lora, base).modules))
        assert isinstance(model, PeftModel)  # the other class is of mixed adapters
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.01)
    return model.train()


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """A tokenizer of four words, for trainers that need one although they receive token ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def write_checkpoint(
    shape: ModelShape, folder: Path, *, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> None:
    """Writes the model of `build_base` as a checkpoint in bitsandbytes' format, for trainers that load a folder."""
    from safetensors.torch import save_file

    model = build_base(shape, device=device, dtype=dtype, seed=seed)
    config = model.config
    quantization = bitsandbytes_config("nf4", True, dtype)
    assert quantization is not None
    config.quantization_config = quantization.to_dict()
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    groups: dict[str, dict[str, Tensor]] = {}
    tied = config.get_text_config().tie_word_embeddings
    for key, value in model.state_dict().items():
        if tied and key == "lm_head.weight":
            continue
        layer = next((part for part in key.split(".") if part.isdigit()), "ends")
        groups.setdefault(layer, {})[key] = value
    index: dict[str, str] = {}
    for number, tensors in enumerate(groups.values(), 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        save_file(
            {key: value.cpu().contiguous() for key, value in tensors.items()}, folder / name, {"format": "pt"}
        )
        index.update(dict.fromkeys(tensors, name))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8"
    )
    build_tokenizer().save_pretrained(folder)
