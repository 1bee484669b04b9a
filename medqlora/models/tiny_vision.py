"""The embedded base of the demo with images; loaded and trained as any other vision-language model of transformers."""

from functools import cached_property

from medqlora.config.backends import TinyVisionOptions
from medqlora.models.tiny_vision_base import build_tiny_vision
from medqlora.models.vision_language import VisionLanguage


class TinyVision(TinyVisionOptions, VisionLanguage):
    __doc__ = TinyVisionOptions.__doc__

    @cached_property
    def base(self) -> str:  # type: ignore[override]  # no option here
        """The folder of the base, which is built where the cache lacks it."""
        return str(build_tiny_vision(seed=self.seed))
