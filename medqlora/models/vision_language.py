"""The backend of vision-language models: questions with images, on transformers, PEFT and bitsandbytes."""

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from medqlora.config.backends import VisionLanguageOptions
from medqlora.models import hub
from medqlora.models.lora import LoRA
from medqlora.models.transformers import Transformers, checkpoint_activations
from medqlora.models.vision.decoder import VisionDecoder
from medqlora.models.vision.families import family_of
from medqlora.models.vision.parts import (
    cast_unquantized,
    check_quantized,
    count_visual,
    outside_linear,
    projector_layers,
    vision_layers,
)
from medqlora.models.vision.processor import ImageProcessor, load_processor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class VisionLanguage(VisionLanguageOptions, Transformers):
    __doc__ = VisionLanguageOptions.__doc__

    #: a sharded base runs in the fused engine, which takes no images
    sharable = False
    auto_class = "AutoModelForImageTextToText"

    def check(self, lora: LoRA, *, device: torch.device, precision: str) -> None:
        family_of(self.config(), self.base)
        super().check(lora, device=device, precision=precision)
        self.images()

    def images(self) -> ImageProcessor:
        return self._images

    def vision_parameters(self) -> int:
        return count_visual(self._skeleton())

    @cached_property
    def _images(self) -> ImageProcessor:
        return load_processor(
            self.base, self.revision, self.config(), hub.load_tokenizer(self.base, self.revision)
        )

    def decoder(self, model: nn.Module) -> VisionDecoder:
        return VisionDecoder(model, self.images())

    def _unquantized(self, modules: "PreTrainedModel") -> list[str]:
        raw = super()._unquantized(modules) or []
        return [*raw, *(name for name in outside_linear(modules) if name not in raw)]

    def _finish_loading(self, model: "PreTrainedModel", dtype: torch.dtype) -> None:
        check_quantized(model, self.quantization)
        cast_unquantized(model, dtype)

    def _further_targets(self, model: nn.Module) -> list[str]:
        further = projector_layers(model) if self.adapt_projector else []
        return [*further, *vision_layers(model)] if self.adapt_vision else further

    def _checkpoint_activations(self, model: nn.Module) -> None:
        checkpoint_activations(model, text_alone=not self.adapt_vision)
