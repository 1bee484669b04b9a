"""The backend of the demo: the embedded base, held and trained as any other."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medqlora.models.backend import Backend
from medqlora.models.decoder import Decoder
from medqlora.models.lora import LoRA
from medqlora.models.quantization import Quantization
from medqlora.models.tiny_base import build_tiny_llama
from medqlora.models.transformers import Transformers


class TinyLlama(Backend):
    """A Llama of a few million parameters, made on this machine when first used; no download.

    It is pretrained for under a minute on unlabelled texts of invented trials, so it can read and write
    them but knows no answer, and is kept in the cache folder.

    Args:
        quantization: nf4 (QLoRA's), fp4, int8, or none.
        double_quantization: also quantize the scales of nf4 and fp4.
        gradient_checkpointing: keep only each layer's input and compute the rest again in the backward.
        seed: of the pretraining.
    """

    sharable = True

    def __init__(
        self,
        quantization: Quantization = "nf4",
        double_quantization: bool = True,
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        self._options: dict[str, Any] = {
            "quantization": quantization,
            "double_quantization": double_quantization,
            "gradient_checkpointing": gradient_checkpointing,
        }
        self._inner: Transformers | None = None

    def options(self) -> dict[str, Any]:
        return {**self._options, "seed": self.seed}

    @property
    def base(self) -> str:  # type: ignore[override]
        """The folder of the built base; builds it when it isn't there."""
        return self._built().base

    def _built(self) -> Transformers:
        if self._inner is None:
            folder: Path = build_tiny_llama(seed=self.seed)
            self._inner = Transformers(str(folder), **self._options)
        return self._inner

    def check(self, lora: LoRA, *, device: torch.device, precision: str) -> None:
        lora.check()
        self._built().check(lora, device=device, precision=precision)

    def check_adapter(self, folder: str, option: str = "--model.adapter") -> None:
        self._built().check_adapter(folder, option)

    def tokenizer(self) -> Any:
        return self._built().tokenizer()

    def config(self) -> Any:
        return self._built().config()

    def identity(self) -> str:
        return self._built().identity()

    def load(
        self, *, lora: LoRA | None, adapter: str | None, device: torch.device, dtype: torch.dtype, seed: int
    ) -> nn.Module:
        return self._built().load(lora=lora, adapter=adapter, device=device, dtype=dtype, seed=seed)

    def decoder(self, model: nn.Module) -> Decoder:
        return self._built().decoder(model)

    def generating(self, model: nn.Module) -> AbstractContextManager[None]:
        return self._built().generating(model)
