"""The backend on transformers, PEFT and bitsandbytes alone: runs on a CPU as on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from medqlora.config.backends import TransformersOptions
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.adapter_fit import check_fit, put_on
from medqlora.models.adapters import check_adapter_base
from medqlora.models.architecture import check_architecture, put_adapters_on, unquantized_modules
from medqlora.models.backend import Backend
from medqlora.models.decoder import Decoder
from medqlora.models.experts import quantize_experts, quantize_falcon
from medqlora.models.layers import experts
from medqlora.models.loading import load_bare
from medqlora.models.lora import LoRA
from medqlora.models.quantization import (
    bitsandbytes_config,
    check_quantization,
    import_bitsandbytes,
    settle,
)


class Transformers(Backend):
    """A causal language model of transformers, its weights held in 4 bits by bitsandbytes.

    Args:
        values, options: those of `medqlora.config.TransformersOptions`; `base` is needed.
    """

    sharable = True
    options_type = TransformersOptions

    def __init__(self, *values: Any, **options: Any) -> None:
        settings = TransformersOptions(*values, **options)
        self.settings = settings
        self.base = settings.base
        self.quantization = settings.quantization
        self.double_quantization = settings.double_quantization
        self.compute_dtype = settings.compute_dtype
        self.gradient_checkpointing = settings.gradient_checkpointing
        self.attention = settings.attention
        self.revision = settings.revision
        self.allow_unquantized = settings.allow_unquantized

    def check(self, lora: LoRA, *, device: torch.device, precision: str) -> None:
        import_bitsandbytes()
        lora.check()
        config = self.config()
        check_quantization(self.base, config, self.quantization)
        if self.attention == "sdpa" and getattr(config.get_text_config(), "attn_logit_softcapping", None):
            raise InputError(
                f"--model.backend.attention sdpa: it would leave out the attention cap of '{self.base}': use auto"
            )
        if lora.use_dora and self.quantization == "int8":
            raise InputError(
                "--model.lora.use_dora: PEFT has no DoRA on int8: use --model.backend.quantization nf4"
            )
        if self.attention == "flash_attention_2" and device.type != "cuda":
            raise InputError("--model.backend.attention flash_attention_2 needs a CUDA GPU: use sdpa")
        check_architecture(
            config,
            skeleton(config, self.base),
            self.base,
            lora,
            quantization=self.quantization,
            gradient_checkpointing=self.gradient_checkpointing,
            allow_unquantized=self.allow_unquantized,
        )

    def check_files(self) -> None:
        hub.check_files(self.base)

    def check_adapter(self, folder: str, option: str = "--model.adapter") -> None:
        check_fit(folder, skeleton(self.config(), self.base), self.base, option)

    def remarks(self) -> tuple[str, ...]:
        return hub.remarks(self.base, self.revision)

    def tokenizer(self) -> Any:
        return hub.load_tokenizer(self.base, self.revision)

    def config(self) -> Any:
        return hub.load_config(self.base, self.revision)

    def identity(self) -> str:
        return hub.identity(self.base, self.revision)

    def load(
        self, *, lora: LoRA | None, adapter: str | None, device: torch.device, dtype: torch.dtype, seed: int
    ) -> nn.Module:
        import_bitsandbytes()
        config = self.config()
        # files that are quantized already bring their settings; an explicit None would hide them
        multiplied_in = dtype if self.compute_dtype == "auto" else getattr(torch, self.compute_dtype)
        stored = getattr(config, "quantization_config", None) is not None
        modules = skeleton(config, self.base)
        quantization = bitsandbytes_config(
            self.quantization, self.double_quantization, multiplied_in, skip=unquantized_modules(modules)
        )
        # experts are quantized once they are loaded: in 16 bits they are for the host, which has more memory
        by_parts = self.quantization in ("nf4", "fp4") and bool(experts(modules))
        place = torch.device("cpu") if by_parts else device
        attention = None if self.attention == "auto" else self.attention
        if attention is None and getattr(config.get_text_config(), "attn_logit_softcapping", None):
            # the sdpa of transformers 5.20, the newest for Python 3.10, silently leaves Gemma 2's cap out
            attention = "eager"
        model: Any = load_bare(
            self.base,
            self.revision,
            dtype=dtype,
            **({} if stored or quantization is None else {"quantization_config": quantization}),
            device_map={"": place},
            attn_implementation=attention,
        )
        quantize_falcon(model, self.quantization, self.double_quantization, device, multiplied_in)
        settle(model, device, multiplied_in)
        model.requires_grad_(False)
        model.config.use_cache = False
        if adapter is not None:
            check_adapter_base(adapter, self.base, self.identity())
            return self._finish(put_on(model, adapter, self.base), by_parts, device)
        if lora is None:
            return self._finish(model, by_parts, device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            model = put_adapters_on(model, lora)
        model = self._finish(model, by_parts, device)
        if self.gradient_checkpointing:
            # transformers 5.23 renamed it; re-entrant checkpointing would mark a parameter ready twice under DDP
            enable = (
                getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            )
            enable({"use_reentrant": False})
            model.enable_input_require_grads()
        # transformers loads in eval mode, in which checkpointing is silently off
        return model.train()

    def _finish(self, model: nn.Module, by_parts: bool, device: torch.device) -> nn.Module:
        """The model with its experts in 4 bits, on `device`."""
        if by_parts:
            # after the adapters are on: PEFT reads the experts' shape from the parameter
            quantize_experts(model, self.quantization, self.double_quantization, device)
            nn.Module.to(model, device)  # transformers' own refuses some quantized models
        return model

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


def skeleton(config: Any, base: str) -> nn.Module:
    """The model's modules without weights (on the meta device), for what can be asked of their names.

    Raises:
        InputError: transformers has no causal language model for this configuration.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        try:
            return AutoModelForCausalLM.from_config(config)
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
