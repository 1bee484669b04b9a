"""The backend of the demo: its embedded base model, loaded and trained as any other."""

from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from medqlora.config.backends import TinyLlamaOptions
from medqlora.models.backend import Backend
from medqlora.models.decoder import Decoder
from medqlora.models.lora import LoRA
from medqlora.models.tiny_base import build_tiny_llama
from medqlora.models.transformers import Transformers
from medqlora.utils.types import Tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class TinyLlama(TinyLlamaOptions, Backend):
    __doc__ = TinyLlamaOptions.__doc__

    sharable = True

    @property
    def base(self) -> str:  # type: ignore[override]  # known once it is built
        """The folder of the base, which is built where the cache lacks it."""
        return self._inner.base

    @cached_property
    def _inner(self) -> Transformers:
        return Transformers(
            str(build_tiny_llama(seed=self.seed)),
            quantization=self.quantization,
            double_quantization=self.double_quantization,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    def check(self, lora: LoRA, *, device: torch.device, precision: str) -> None:
        lora.check()
        self._inner.check(lora, device=device, precision=precision)

    def check_adapter(self, folder: str, option: str = "--model.adapter") -> None:
        self._inner.check_adapter(folder, option)

    def tokenizer(self) -> Tokenizer:
        return self._inner.tokenizer()

    def config(self) -> "PretrainedConfig":
        return self._inner.config()

    def identity(self) -> str:
        return self._inner.identity()

    def load(
        self, *, lora: LoRA | None, adapter: str | None, device: torch.device, dtype: torch.dtype, seed: int
    ) -> nn.Module:
        return self._inner.load(lora=lora, adapter=adapter, device=device, dtype=dtype, seed=seed)

    def decoder(self, model: nn.Module) -> Decoder:
        return self._inner.decoder(model)

    def generating(self, model: nn.Module) -> AbstractContextManager[None]:
        return self._inner.generating(model)
