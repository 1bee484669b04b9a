"""The backend on Unsloth's `FastVisionModel`: questions with images, on one GPU.

Images, prompts and the mask are those of `VisionLanguage`; Unsloth replaces the model's layers.
https://github.com/unslothai/unsloth
"""

from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import nn

from medqlora.config.backends import UnslothVisionOptions
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.architecture import check_adapted
from medqlora.models.layers import ends_with, linear_layers, raw_weights
from medqlora.models.lora import LoRA, lora_targets
from medqlora.models.quantization import bitsandbytes_config, stored_config
from medqlora.models.transformers import skeleton
from medqlora.models.unsloth import Unsloth
from medqlora.models.vision.decoder import VisionDecoder
from medqlora.models.vision.families import family_of
from medqlora.models.vision.parts import (
    check_quantized,
    count_visual,
    outside_linear,
    projector_layers,
    vision_layers,
)
from medqlora.models.vision.processor import ImageProcessor, load_processor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: `model_type` of families that Unsloth 2026.10 loads in bfloat16 where float16 is asked for
_NOT_IN_FLOAT16 = ("gemma3",)
_AUTO_CLASS = "AutoModelForImageTextToText"


class UnslothVision(UnslothVisionOptions, Unsloth):
    __doc__ = UnslothVisionOptions.__doc__

    loader = "FastVisionModel"

    def check(self, lora: LoRA, *, device: torch.device, precision: str) -> None:
        super().check(lora, device=device, precision=precision)
        if find_spec("torchvision") is None:
            raise InputError(
                "--model.backend medqlora.models.UnslothVision: Unsloth's processors need torchvision: `pip install "
                "torchvision`, or use medqlora.models.VisionLanguage"
            )
        kind = self.config().model_type
        if precision.startswith("16") and kind in _NOT_IN_FLOAT16:
            raise InputError(
                f"--trainer.precision {precision}: Unsloth runs {kind} in bfloat16: use bf16-mixed, or "
                "medqlora.models.VisionLanguage"
            )
        self.images()

    def images(self) -> ImageProcessor:
        return self._images

    def vision_parameters(self) -> int:
        return count_visual(self._skeleton())

    def decoder(self, model: nn.Module) -> VisionDecoder:
        return VisionDecoder(model, self.images())

    def loading(
        self, folder: str, *, device: torch.device, dtype: torch.dtype, seed: int
    ) -> dict[str, object]:
        arguments = super().loading(folder, device=device, dtype=dtype, seed=seed)
        if self.quantization == "nf4" and stored_config(self.config()) is None:
            # by full names: Unsloth's own list of parts ("visual", "vision_tower") need not match
            modules = self._skeleton()
            skip = [*raw_weights(modules), *outside_linear(modules)]
            arguments["quantization_config"] = bitsandbytes_config("nf4", True, dtype, skip=skip)
        return arguments

    @cached_property
    def _images(self) -> ImageProcessor:
        tokenizer = hub.load_tokenizer(self.base, self.revision)
        return load_processor(self.base, self.revision, self.config(), tokenizer)

    def _skeleton(self) -> "PreTrainedModel":
        return skeleton(self.config(), self.base, _AUTO_CLASS)

    def _check_targets(self, lora: LoRA) -> None:
        family_of(self.config(), self.base)
        lora_targets(lora, self._skeleton())

    def _targets(self, lora: LoRA) -> list[str]:
        """Full names: the vision tower has layers of the same names.

        Unsloth leaves full names as they are. Its `finetune_vision_layers` and the like only choose names, and stay at
        their default.
        """
        modules = self._skeleton()
        chosen = lora_targets(lora, modules).modules
        names = sorted(name for name in linear_layers(modules) if ends_with(name, *chosen))
        names += projector_layers(modules) if self.adapt_projector else []
        return [*names, *vision_layers(modules)] if self.adapt_vision else names

    def _check_loaded(self, model: "PreTrainedModel") -> None:
        check_quantized(model, self.quantization)

    def _check_adapted(self, model: nn.Module, lora: LoRA) -> None:
        check_adapted(model, {*self._targets(lora)})

    def _patched(self, model: nn.Module) -> nn.Module:
        return self._loader().post_patch_model(model, use_gradient_checkpointing=False)
