"""Images in a prompt: each takes a run of image tokens, whose embeddings the vision tower computes."""

from collections.abc import Sequence
from typing import Protocol

from medqlora.data.checks import at_with_id
from medqlora.errors import InputError
from medqlora.records import ImageFile, ImageSlot, Record


class ImageReader(Protocol):
    """What encoding needs of a vision-language base: the text of an image's place, and its number of tokens."""

    @property
    def placeholder(self) -> str:
        """Template text that stands for one image; it holds the image token once."""

    @property
    def token_id(self) -> int:
        """The image token."""

    @property
    def identity(self) -> str:
        """What decides the number of tokens, for caches."""

    def count(self, image: ImageFile) -> int:
        """The number of image tokens of an image. Raises InputError for a file that is no image."""


def extra_tokens(record: Record, images: ImageReader | None) -> int:
    """How many tokens longer the prompt gets when its images are expanded."""
    return 0 if images is None else sum(images.count(image) - 1 for image in record.images)


def expanded(
    ids: Sequence[int], record: Record, images: ImageReader | None
) -> tuple[list[int], tuple[ImageSlot, ...]]:
    """The prompt with a run of image tokens in place of each placeholder's single one, and where the runs are.

    Raises:
        InputError: the prompt has another number of image tokens than the record has images.
    """
    if images is None or not record.images:
        return list(ids), ()
    places = [place for place, token in enumerate(ids) if token == images.token_id]
    if len(places) != len(record.images):
        raise InputError(
            f"{at_with_id(record)}: its prompt has {len(places)} image tokens for {len(record.images)} images: the "
            "tokenizer is another model's; copy the base's own tokenizer files"
        )
    result: list[int] = []
    slots: list[ImageSlot] = []
    copied = 0
    for place, image in zip(places, record.images, strict=True):
        result += ids[copied:place]
        begin = len(result)
        result += [images.token_id] * images.count(image)
        slots.append(ImageSlot(image, begin, len(result)))
        copied = place + 1
    return [*result, *ids[copied:]], tuple(slots)
