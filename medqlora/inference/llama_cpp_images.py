"""Label log-likelihoods of questions with images, from a GGUF file and its projector's, computed by llama.cpp."""

import base64
import hashlib
import urllib.error
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import cast

from medqlora.data.images import read_pixels
from medqlora.errors import InputError
from medqlora.inference.llama_cpp import LlamaCpp
from medqlora.models.vision.processor import ImageProcessor
from medqlora.records import Encoded, ImageFile, ImageSlot, Record
from medqlora.utils.types import Tokenizer


def at_tower_size(record: Record, images: ImageProcessor) -> Record:
    """The record with its images scaled to the size at which the tower sees them, as PNG in memory.

    llama.cpp scales images by its own method, with other pixels; at this size neither side scales any more.

    Raises:
        InputError: an image can't be read.
    """
    return replace(record, images=tuple(_scaled(image, images.size(image)) for image in record.images))


def _scaled(image: ImageFile, size: tuple[int, int]) -> ImageFile:
    from PIL import Image

    buffer = BytesIO()
    read_pixels(image).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    content = buffer.getvalue()
    return ImageFile(
        f"data:image/png;base64,{base64.b64encode(content).decode()}", hashlib.sha256(content).hexdigest()
    )


class LlamaCppWithImages(LlamaCpp):
    """A GGUF file and its projector's, loaded by llama.cpp.

    A prompt with images goes to llama.cpp as text with a mark for each image. Its number of tokens is compared with
    ours for each request.

    Args:
        path, projector: the GGUF files.
        context_tokens: longest prompt with its label, in tokens.
        images: the base's image processor.
        tokenizer: the base's.

    Raises:
        InputError: the package is missing, or llama.cpp can't read a file.
    """

    def __init__(
        self,
        path: Path,
        projector: Path,
        context_tokens: int,
        images: ImageProcessor,
        tokenizer: Tokenizer,
    ) -> None:
        super().__init__(path, context_tokens, projector=projector)
        self._images, self._tokenizer = images, tokenizer
        self._slots: tuple[ImageSlot, ...] = ()
        self._first = self.tokens("")  # BOS, or nothing
        self._mark = str(self.asked("props")["media_marker"])

    def label_log_probabilities(self, example: Encoded) -> tuple[float, ...]:
        """log p(label | prompt) of each label, the sum over its tokens; images in memory alone."""
        self._slots = example.images
        try:
            return super().label_log_probabilities(example)
        finally:
            self._slots = ()

    def _top(self, prompt: Sequence[int], count: int) -> dict[int, float]:
        if not self._slots:
            return super()._top(prompt, count)
        body: dict[str, object] = {
            "prompt": {
                "prompt_string": self._text(prompt),
                "multimodal_data": [slot.image.path.partition(",")[2] for slot in self._slots],
            },
            "n_predict": 1,
            "n_probs": count,
            "temperature": 0.0,
            "samplers": ["top_k"],
            "cache_prompt": False,
            "logit_bias": [[self._letter, 1e6]],  # as in `LlamaCpp._top`
        }
        try:
            reply = self.asked("completion", body)
        except urllib.error.HTTPError as error:
            reason = " ".join(error.read().decode(errors="replace").split())[:200]
            raise InputError(f"llama.cpp does not take a question with an image ({reason})") from error
        if reply["tokens_evaluated"] != len(prompt):
            raise InputError(
                f"llama.cpp makes {reply['tokens_evaluated']} tokens of a question with an image, and the live model "
                f"{len(prompt)}: its tokenizer or its vision tower is another one"
            )
        (step,) = cast("list[dict[str, list[dict[str, float]]]]", reply["completion_probabilities"])
        return {int(token["id"]): float(token["logprob"]) for token in step["top_logprobs"]}

    def _text(self, prompt: Sequence[int]) -> str:
        """The prompt with a mark in place of each image, without the first token that llama.cpp adds by itself."""
        before, after = self._images.family.around
        pieces, start = [], int(len(self._first) and list(prompt[:1]) == self._first)
        for slot in self._slots:
            pieces.append(self._decoded(prompt[start : slot.begin]))
            start = slot.end
        pieces.append(self._decoded(prompt[start:]))
        text = pieces[0]
        for piece in pieces[1:]:
            text = f"{text.removesuffix(before)}{self._mark}{piece.removeprefix(after)}"
        return text

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))
