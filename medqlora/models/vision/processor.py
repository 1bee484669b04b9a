"""A base's image processor: from image files to the tensors that the model takes."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor

from medqlora.data.images import in_memory, read_pixels
from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.vision.families import VisionFamily, family_of
from medqlora.records import ImageFile, ImageSlot
from medqlora.utils.types import Tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: bytes of prepared images that are kept, so that an epoch after the first decodes nothing where the set is small
_KEPT_BYTES = 1 << 30
#: images that are read at a time
_THREADS = 8


class _ImageProcessor(Protocol):
    """The part of transformers' image processors that is used."""

    def __call__(self, *, images: Sequence[object], return_tensors: str) -> Mapping[str, Tensor]: ...

    def to_json_string(self) -> str: ...

    def save_pretrained(self, save_directory: str) -> object: ...


class ImageProcessor:
    """Counts the tokens of images, and makes the model's tensors of them. It is an `ImageReader` for encoding.

    Args:
        base: the base's name or folder, for messages.
        config: its configuration.
        processor: transformers' image processor.
        tokenizer: its tokenizer, which knows the image token.

    Raises:
        InputError: the family is not known, or the tokenizer lacks the image token.
    """

    def __init__(
        self, base: str, config: "PretrainedConfig", processor: _ImageProcessor, tokenizer: Tokenizer
    ) -> None:
        self._config, self._processor = config, processor
        self.family: VisionFamily = family_of(config, base)
        self.token_id = _image_token(config)
        token = tokenizer.convert_ids_to_tokens(self.token_id) if self.token_id < len(tokenizer) else None
        if token is None:
            raise InputError(
                f"--model.backend.base: the tokenizer of '{base}' lacks the image token {self.token_id}: copy the "
                "base's own tokenizer files"
            )
        self.placeholder = self.family.placeholder.format(image=token)
        self._counts: dict[str, int] = {}
        self._kept: OrderedDict[str, Mapping[str, Tensor]] = OrderedDict()
        self._bytes = 0

    @cached_property
    def identity(self) -> str:
        """What decides the number of tokens of an image: processor and configuration, as a digest."""
        plain = json.dumps(
            [self._processor.to_json_string(), self._config.to_json_string(), self.placeholder]
        )
        return hashlib.sha256(plain.encode()).hexdigest()

    def count(self, image: ImageFile) -> int:
        """The number of image tokens; the file is opened only where it depends on the image's size.

        Raises:
            InputError: the file is no image that can be read.
        """
        key = image.sha256 if self.family.size else ""
        if key not in self._counts:
            self._counts[key] = self.family.count(self._config, self._tensors(image))
        return self._counts[key]

    def inputs(self, slots: Sequence[ImageSlot], input_ids: Tensor) -> dict[str, Tensor]:
        """The model's further arguments for rows with images.

        Args:
            slots: the images, in the order of the rows.
            input_ids: [B, T].

        Raises:
            InputError: an image is gone or was changed.
        """
        images = [slot.image for slot in slots]
        self._prepare(images)
        prepared = [self._tensors(image) for image in images]
        device = input_ids.device
        tensors = {
            name: torch.cat([one[name] for one in prepared]).to(device, non_blocking=True)
            for name in self.family.inputs
        }
        if self.family.marks is not None:
            tensors[self.family.marks] = (input_ids == self.token_id).to(torch.int32)
        return tensors

    def size(self, image: ImageFile) -> tuple[int, int]:
        """(width, height) in pixels at which the tower sees an image.

        Raises:
            InputError: the file is no image that can be read.
        """
        tensors = self._tensors(image)
        if "image_grid_thw" in tensors:  # in patches
            _, height, width = tensors["image_grid_thw"][0].tolist()
            patch = int(self._config.vision_config.patch_size)
            return int(width) * patch, int(height) * patch
        height, width = tensors["pixel_values"].shape[-2:]
        return int(width), int(height)

    def save(self, folder: str) -> None:
        """Writes `preprocessor_config.json` into a folder."""
        self._processor.save_pretrained(folder)

    def _prepare(self, images: Sequence[ImageFile]) -> None:
        """Reads the images of a batch that are not kept, several at a time: a GPU waits for them."""
        files = {image.sha256: image for image in images if not in_memory(image)}
        missing = [image for digest, image in files.items() if digest not in self._kept]
        if len(missing) > 1:
            with ThreadPoolExecutor(min(len(missing), _THREADS)) as pool:
                for image, tensors in zip(missing, pool.map(self._read, missing), strict=True):
                    self._keep(image, tensors)

    def _tensors(self, image: ImageFile) -> Mapping[str, Tensor]:
        kept = self._kept.get(image.sha256)
        if kept is not None:
            self._kept.move_to_end(image.sha256)
            return kept
        tensors = self._read(image)
        if not in_memory(image):  # of a service's client: kept no longer than the question
            self._keep(image, tensors)
        return tensors

    def _read(self, image: ImageFile) -> Mapping[str, Tensor]:
        made = self._processor(images=[read_pixels(image)], return_tensors="pt")
        return {name: made[name] for name in self.family.inputs}

    def _keep(self, image: ImageFile, tensors: Mapping[str, Tensor]) -> None:
        self._kept[image.sha256] = tensors
        self._bytes += _size(tensors)
        while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _size(dropped)


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _image_token(config: "PretrainedConfig") -> int:
    # LLaVA's older configurations call it image_token_index
    value = getattr(config, "image_token_id", None)
    return int(config.image_token_index if value is None else value)


def load_processor(
    base: str, revision: str | None, config: "PretrainedConfig", tokenizer: Tokenizer
) -> ImageProcessor:
    """The base's image processor on Pillow, whatever else is installed: results don't depend on it.

    Raises:
        InputError: the base has none, or it needs another package.
    """
    from transformers import AutoImageProcessor

    family_of(config, base)
    try:
        processor = AutoImageProcessor.from_pretrained(
            hub.resolve(base), revision=revision, backend="pil", trust_remote_code=False
        )
    except (OSError, ValueError, ImportError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(":. ")
        raise InputError(
            f"--model.backend.base: the image processor of '{base}' can't be loaded ({reason}): copy the base's "
            "preprocessor_config.json into it"
        ) from error
    return ImageProcessor(base, config, cast(_ImageProcessor, processor), tokenizer)
