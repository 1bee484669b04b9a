"""The backend of the demo: the embedded base, held and trained as any other."""

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medqlora.config.backends import TinyLlamaOptions
from medqlora.models.backend import Backend
from medqlora.models.decoder import Decoder
from medqlora.models.lora import LoRA
from medqlora.models.tiny_base import build_tiny_llama
from medqlora.models.transformers import Transformers


class TinyLlama(Backend):
    """A Llama of a few million parameters, made on this machine when first used; no download.

    It is pretrained for under a minute on unlabelled texts of invented trials, so it can read and write
    them but knows no answer, and is kept in the cache folder.

    Args:
        values, options: those of `medqlora.config.TinyLlamaOptions`.
    """

    sharable = True
    options_type = TinyLlamaOptions

    def __init__(self, *values: Any, **options: Any) -> None:
        self.settings = TinyLlamaOptions(*values, **options)
        self.seed = self.settings.seed
        self._options: dict[str, Any] = {
            name: value for name, value in asdict(self.settings).items() if name != "seed"
        }
        self._inner: Transformers | None = None

    @property
    def base(self) -> str:  # type: ignore[override]
        """The folder of the built base; builds it when it isn't there."""
        return self._built().base

    def _built(self) -> Transformers:
        if self._inner is None:
            folder: Path = build_tiny_llama(seed=self.seed)
            self._inner = Transformers(base=str(folder), **self._options)
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
