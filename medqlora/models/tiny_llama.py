"""The backend of the demo: its embedded base model, loaded and trained as any other of transformers."""

from functools import cached_property

from medqlora.config.backends import TinyLlamaOptions
from medqlora.models.tiny_base import build_tiny_llama
from medqlora.models.transformers import Transformers


class TinyLlama(TinyLlamaOptions, Transformers):
    __doc__ = TinyLlamaOptions.__doc__

    @cached_property
    def base(self) -> str:  # type: ignore[override]  # no option here
        """The folder of the base, which is built where the cache lacks it."""
        return str(build_tiny_llama(seed=self.seed))
