"""Initial values of LoRA that need more than a random generator: LoftQ from the base's files, EVA from examples."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn

from medqlora.data.batching.packing import pad
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.layers import quant_state
from medqlora.models.quantization import import_bitsandbytes
from medqlora.records import Encoded

if TYPE_CHECKING:
    from peft import PeftModel

#: training questions whose activations EVA sees, and how many go through the model at once
_EXAMPLES, _ROWS = 128, 8


class AdaptedLayer(Protocol):
    """The part of PEFT's LoRA layers that an initialisation reads and sets; the keys are adapters' names."""

    base_layer: nn.Linear
    lora_A: Mapping[str, nn.Linear]  # noqa: N815  # PEFT's name
    lora_B: Mapping[str, nn.Linear]  # noqa: N815
    r: Mapping[str, int]
    scaling: Mapping[str, float]


def check_loftq(base: str, quantization: str, *, stored_quantized: bool) -> None:
    """Raises InputError for a base whose quantization error can't be known."""
    if quantization not in ("nf4", "fp4"):
        raise InputError(
            f"--model.lora.init loftq: it makes up for 4-bit quantization, and --model.backend.quantization is "
            f"{quantization}: use init default"
        )
    if stored_quantized:
        raise InputError(
            f"--model.lora.init loftq: the files of '{base}' are quantized already, so their error is not known: give "
            "a base in 16 bits, or use init default"
        )
    if not hub.is_local(base) or not any(file.suffix == ".safetensors" for file in hub.check_files(base)):
        raise InputError(
            f"--model.lora.init loftq: it reads the 16-bit weights of '{base}', and needs a local folder with "
            "safetensors files: download the base and give its folder, or use init default"
        )


@torch.no_grad()
def init_loftq(model: nn.Module, base: str) -> None:
    """Sets scale · B A of each adapter to the best approximation of its layer's quantization error at rank r.

    One step of Li et al., 2023, https://arxiv.org/abs/2310.08659: with W the weight of the files and Q the 4-bit one,
    the truncated decomposition U S Vᵀ of W − Q, B = U √S / scale and A = √S Vᵀ. The base stays as it is. PEFT's
    `replace_lora_weights_loftq` needs a GPU, and leaves the scale alpha / r out.

    Raises:
        InputError: the files lack a layer's weight.
    """
    functional = import_bitsandbytes().functional
    files: dict[str, Path] = {}
    with ExitStack() as stack:
        opened = {}
        for file in hub.check_files(base):
            if file.suffix == ".safetensors":
                opened[file] = stack.enter_context(safe_open(file, framework="pt"))
                files.update(dict.fromkeys(opened[file].keys(), file))
        for name, layer in _adapted(model):
            key = f"{name.removeprefix('base_model.model.')}.weight"
            state = quant_state(layer.base_layer.weight)
            if key not in files or state is None:
                raise InputError(
                    f"--model.lora.init loftq: the files of '{base}' have no '{key}' that is quantized on loading: use "
                    "init default"
                )
            weight = layer.base_layer.weight
            full = opened[files[key]].get_tensor(key).to(weight.device, torch.float32)
            error = full - functional.dequantize_4bit(weight.data, state).float()
            rank, scale = layer.r["default"], layer.scaling["default"]
            u, values, vt = torch.linalg.svd(error, full_matrices=False)
            root = values[:rank].sqrt()
            layer.lora_A["default"].weight.data.copy_(root[:, None] * vt[:rank])
            layer.lora_B["default"].weight.data.copy_(u[:, :rank] * root / scale)


def init_eva(model: nn.Module, examples: Sequence[Encoded], pad_token_id: int, seed: int) -> None:
    """Sets A of each adapter to the main directions of the layer's inputs; B stays 0, and ranks stay equal.

    Paischer et al., 2024, https://arxiv.org/abs/2410.07170, with rho = 1, by PEFT.

    Args:
        model: with fresh adapters.
        examples: training examples; the first `_EXAMPLES` are used.
        pad_token_id: of padded rows.
        seed: of the randomised decomposition.
    """
    from peft import initialize_lora_eva_weights
    from peft.tuners.lora.config import EvaConfig

    peft_model = cast("PeftModel", model)
    config: Any = peft_model.peft_config["default"]
    before = config.init_lora_weights, config.eva_config
    device = next(layer.lora_A["default"].weight.device for _, layer in _adapted(model))
    batches = [
        _inputs(examples[start : start + _ROWS], pad_token_id, device)
        for start in range(0, min(len(examples), _EXAMPLES), _ROWS)
    ]
    config.init_lora_weights = "eva"
    config.eva_config = EvaConfig(rho=1.0, use_label_mask=False)
    training = model.training
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            initialize_lora_eva_weights(
                peft_model, batches, gather_distributed_inputs=False, show_progress_bar=False
            )
    finally:
        # the adapter is an ordinary one: what reads it needs no examples
        config.init_lora_weights, config.eva_config = before
        model.train(training)
    for _, layer in _adapted(model):
        layer.lora_A["default"].weight.data = layer.lora_A["default"].weight.data.float()


def _inputs(examples: Sequence[Encoded], pad_token_id: int, device: torch.device) -> dict[str, Tensor]:
    batch = pad(examples, pad_token_id)
    assert batch.attention_mask is not None
    return {
        "input_ids": batch.input_ids.to(device),
        "attention_mask": batch.attention_mask.long().to(device),
    }


def _adapted(model: nn.Module) -> list[tuple[str, AdaptedLayer]]:
    """Name and layer of each adapter's place."""
    from peft.tuners.lora import LoraLayer

    return [
        (name, cast(AdaptedLayer, module))
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and "default" in module.lora_A
    ]
