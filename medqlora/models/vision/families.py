"""What a vision-language family wants beside token ids, by the `model_type` of its configuration.

transformers' own processors know it too, but those of Qwen need torchvision for videos, which nothing here uses; the
image processors alone run on Pillow. Tests compare the tokens with the processors' where these can be made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from medqlora.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: the tensors of an image processor for one image → its number of image tokens
Count = Callable[["PretrainedConfig", Mapping[str, Tensor]], int]


@dataclass(frozen=True)
class VisionFamily:
    """How a family takes images.

    Attributes:
        placeholder: template text for an image, with `{image}` for the image token.
        count: the number of tokens of an image.
        inputs: the tensors of the image processor that the model takes.
        marks: the name of the argument that marks image tokens with 1, [B, T]; None where the model takes none.
        size: whether an image's number of tokens depends on its size.
        around: the tokens of the placeholder directly around the image token; llama.cpp adds them by itself.
    """

    placeholder: str
    count: Count
    inputs: tuple[str, ...] = ("pixel_values",)
    marks: str | None = None
    size: bool = False
    around: tuple[str, str] = ("", "")


def _llava_tokens(config: "PretrainedConfig", tensors: Mapping[str, Tensor]) -> int:
    """One token a patch; the class token is left out by the "default" strategy."""
    height, width = tensors["pixel_values"].shape[-2:]
    patch = int(config.vision_config.patch_size)
    kept = config.vision_feature_select_strategy == "full" and "clip" in config.vision_config.model_type
    return int(height // patch) * int(width // patch) + int(kept)


def _qwen_tokens(config: "PretrainedConfig", tensors: Mapping[str, Tensor]) -> int:
    """One token for each square of patches that are merged."""
    return int(tensors["image_grid_thw"].prod()) // int(config.vision_config.spatial_merge_size) ** 2


def _gemma_tokens(config: "PretrainedConfig", tensors: Mapping[str, Tensor]) -> int:
    return int(config.mm_tokens_per_image)


_QWEN = VisionFamily(
    "<|vision_start|>{image}<|vision_end|>",
    _qwen_tokens,
    ("pixel_values", "image_grid_thw"),
    "mm_token_type_ids",
    size=True,
    around=("<|vision_start|>", "<|vision_end|>"),
)
FAMILIES: dict[str, VisionFamily] = {
    "llava": VisionFamily("{image}\n", _llava_tokens),
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    # images attend to themselves in both directions, which the marks tell
    "gemma3": VisionFamily(
        "\n\n<start_of_image>{image}<end_of_image>\n\n",
        _gemma_tokens,
        marks="token_type_ids",
        around=("<start_of_image>", "<end_of_image>"),
    ),
}


def family_of(config: "PretrainedConfig", base: str) -> VisionFamily:
    """The family of a configuration.

    Raises:
        InputError: the base reads text alone, or its family's images are not known here.
    """
    kind = config.model_type
    if kind in FAMILIES:
        return FAMILIES[kind]
    known = ", ".join(FAMILIES)
    if getattr(config, "vision_config", None) is None:
        raise InputError(
            f"--model.backend.base: '{base}' ({kind}) reads text alone: use medqlora.models.Transformers, or a "
            f"vision-language base of {known}"
        )
    raise InputError(
        f"--model.backend.base: how '{base}' ({kind}) takes images is not known here: use a base of {known}"
    )
