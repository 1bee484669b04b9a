"""The backend on transformers, PEFT and bitsandbytes alone: runs on a CPU and on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from medqlora.config.backends import TransformersOptions
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.adapters import check_adapter_base, read_merged
from medqlora.models.adapters.fit import check_fit, load_adapter
from medqlora.models.adapters.folder import adapter_config
from medqlora.models.architecture import check_architecture, put_adapters_on, unquantized_modules
from medqlora.models.backend import Backend
from medqlora.models.decoder import Decoder
from medqlora.models.experts import quantize_experts, quantize_falcon
from medqlora.models.layers import base_model, experts
from medqlora.models.loading import load_bare
from medqlora.models.lora import LoRA
from medqlora.models.lora_init import check_loftq, init_loftq
from medqlora.models.quantization import (
    INT4,
    bitsandbytes_config,
    check_quantization,
    import_bitsandbytes,
    settle,
    stored_config,
)
from medqlora.utils.types import Tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


#: the class of transformers that makes a text model
CAUSAL = "AutoModelForCausalLM"


class Transformers(TransformersOptions, Backend):
    __doc__ = TransformersOptions.__doc__

    sharable = True
    #: the class of transformers that makes the model
    auto_class = CAUSAL

    def check(self, lora: LoRA, *, device: torch.device, precision: str) -> None:
        import_bitsandbytes()
        lora.check()
        config = self.config()
        check_quantization(self.base, config, self.quantization)
        if self.attention == "sdpa" and _caps_attention(config):
            raise InputError(
                f"--model.backend.attention sdpa: it would leave out the attention cap of '{self.base}': use auto"
            )
        if lora.init == "loftq":
            stored = getattr(config, "quantization_config", None) is not None
            check_loftq(self.base, self.quantization, stored_quantized=stored)
        if lora.use_dora and self.quantization in ("int8", *INT4):
            raise InputError(
                f"--model.lora.use_dora: PEFT has no DoRA on {self.quantization}: use --model.backend.quantization nf4"
            )
        if self.attention == "flash_attention_2" and device.type != "cuda":
            raise InputError("--model.backend.attention flash_attention_2 needs a CUDA GPU: use sdpa")
        check_architecture(
            config,
            self._skeleton(),
            self.base,
            lora,
            quantization=self.quantization,
            gradient_checkpointing=self.gradient_checkpointing,
            allow_unquantized=self.allow_unquantized,
        )

    def _skeleton(self) -> "PreTrainedModel":
        return skeleton(self.config(), self.base, self.auto_class)

    def check_files(self) -> None:
        hub.check_files(self.base)

    def check_adapter(self, folder: str, option: str = "--model.adapter") -> None:
        check_fit(folder, self._skeleton(), self.base, option)

    def remarks(self) -> tuple[str, ...]:
        lines = hub.remarks(self.base, self.revision)
        if self.quantization == "none" or not read_merged(self.base):
            return lines
        note = (
            f"Note: '{self.base}' holds a merged adapter, and is quantized to {self.quantization} again, which changes "
            "its answers: pass --model.backend.quantization none to leave it as it was merged"
        )
        return (*lines, note)

    def tokenizer(self) -> Tokenizer:
        return hub.load_tokenizer(self.base, self.revision)

    def config(self) -> "PretrainedConfig":
        return hub.load_config(self.base, self.revision)

    def identity(self) -> str:
        return hub.identity(self.base, self.revision)

    def load(
        self, *, lora: LoRA | None, adapter: str | None, device: torch.device, dtype: torch.dtype, seed: int
    ) -> nn.Module:
        import_bitsandbytes()
        product_dtype = dtype if self.compute_dtype == "auto" else getattr(torch, self.compute_dtype)
        modules = self._skeleton()
        # experts are quantized after loading: they are loaded in 16 bits into the host's memory, which is larger
        experts_apart = self.quantization in ("nf4", "fp4") and bool(experts(modules))
        base = load_bare(
            self.base,
            self.revision,
            dtype=dtype,
            device_map={"": torch.device("cpu") if experts_apart else device},
            attn_implementation=self._attention(),
            auto_class=self.auto_class,
            **self._quantization_config(modules, product_dtype),
        )
        if self.quantization in INT4:
            from medqlora.models.int4.reading import forget_reader

            forget_reader(base)
        self._finish_loading(base, dtype)
        quantize_falcon(base, self.quantization, self.double_quantization, device, product_dtype)
        settle(base, device, product_dtype)
        base.requires_grad_(False)
        base.config.use_cache = False
        model: nn.Module = base
        if adapter is not None:
            check_adapter_base(adapter, self.base, self.identity())
            model = load_adapter(base, adapter, self.base)
        elif lora is not None:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                model = put_adapters_on(base, lora, self._further_targets(base))
            if lora.init == "loftq":
                init_loftq(model, self.base)
        if experts_apart:
            # after the adapters: PEFT reads the experts' shape from the parameter
            quantize_experts(model, self.quantization, self.double_quantization, device)
            nn.Module.to(model, device)  # transformers' own `to` refuses some quantized models
        if adapter is not None or lora is None:
            return model
        if self.gradient_checkpointing:
            self._checkpoint_activations(model)
        # transformers loads in eval mode, where checkpointing is silently off
        return model.train()

    def _unquantized(self, modules: "PreTrainedModel") -> list[str] | None:
        """Full names of the linear layers that stay in 16 bits; None for the head alone."""
        return unquantized_modules(modules)

    def _further_targets(self, model: nn.Module) -> list[str]:
        """Full names of layers outside the decoder that get adapters too."""
        return []

    def _finish_loading(self, model: "PreTrainedModel", dtype: torch.dtype) -> None:
        """Checks and completes the model as transformers has loaded it."""

    def _checkpoint_activations(self, model: nn.Module) -> None:
        checkpoint_activations(model)

    def reads_weights_once(self, *, lora: LoRA | None, adapter: str | None) -> bool:
        config = {} if adapter is None else adapter_config(adapter)
        # PiSSA and the like change the base, LoftQ compares it with the files, and DoRA's magnitudes are its norms
        pissa = config.get("init_lora_weights", True) not in (True, False, "gaussian")
        loftq = lora is not None and lora.init == "loftq"
        dora = config.get("use_dora") or (lora is not None and lora.use_dora)
        if self.quantization in INT4:  # its layers are made after all files are read
            return False
        return not (pissa or loftq or dora or experts(skeleton(self.config(), self.base)))

    def _quantization_config(self, modules: "PreTrainedModel", dtype: torch.dtype) -> dict[str, object]:
        """Arguments of `from_pretrained` for the quantization; none where bitsandbytes' own files bring them."""
        stored = stored_config(self.config())
        if stored is not None and self.quantization in INT4:
            from medqlora.models.int4.reading import packed_config  # imports transformers' quantizers

            return {"config": packed_config(self.config(), stored, self.base)}
        config = bitsandbytes_config(
            self.quantization, self.double_quantization, dtype, skip=self._unquantized(modules)
        )
        return {} if stored is not None or config is None else {"quantization_config": config}

    def _attention(self) -> str | None:
        if self.attention != "auto":
            return self.attention
        # sdpa in transformers 5.20, the newest for Python 3.10, silently leaves Gemma 2's cap out
        return "eager" if _caps_attention(self.config()) else None

    def decoder(self, model: nn.Module) -> Decoder:
        return Decoder(model)

    @contextmanager
    def generating(self, model: nn.Module) -> Iterator[None]:
        training = model.training
        model.eval()
        try:
            yield
        finally:
            model.train(training)


def checkpoint_activations(model: nn.Module, *, text_alone: bool = False) -> None:
    """Switches activation checkpointing on in a transformers or PEFT model.

    Re-entrant checkpointing would mark a parameter ready twice under DDP.

    Args:
        model: the model.
        text_alone: whether only the text's embeddings require gradients. transformers makes the input of a vision tower
            require them too, and a frozen tower would keep its graph.
    """
    # transformers 5.23 renamed the method
    base = base_model(model)
    enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    if not text_alone:
        base.enable_input_require_grads()
        return
    base.disable_input_require_grads()  # transformers 5.24 has enabled it once already
    base.get_input_embeddings().register_forward_hook(_require_gradient)


def _require_gradient(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
    output.requires_grad_(True)


def _caps_attention(config: "PretrainedConfig") -> bool:
    """Whether the attention's logits are capped, as Gemma 2's."""
    return bool(getattr(config.get_text_config(), "attn_logit_softcapping", None))


def skeleton(config: "PretrainedConfig", base: str, auto_class: str = CAUSAL) -> "PreTrainedModel":
    """The model's modules without weights, on the meta device: their names and shapes can be checked.

    Args:
        config: the base's configuration.
        base: its name, for messages.
        auto_class: the class of transformers that makes the model.

    Raises:
        InputError: transformers has no causal language model for this configuration.
    """
    import transformers

    with torch.device("meta"):
        try:
            return getattr(transformers, auto_class).from_config(config)
        except ValueError as error:
            raise InputError(
                f"--model.backend.base: '{base}' ({type(config).__name__}) is no causal language model"
            ) from error
        except ImportError as error:
            needs = " ".join(str(error).split())
            raise InputError(
                f"--model.backend.base: '{base}' ({type(config).__name__}) needs a package: {needs}"
            ) from error
        except (KeyError, TypeError, AttributeError, AssertionError, ArithmeticError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200].rstrip(":. ")
            raise InputError(
                f"--model.backend.base: no {type(config).__name__} model can be built from the config.json of '{base}' "
                f"({type(error).__name__}: {reason}): copy the base's own config.json again"
            ) from error
