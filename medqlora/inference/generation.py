"""Greedy generation in batches, with a key-value cache."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn

from medqlora.records import ImageSlot

if TYPE_CHECKING:
    from transformers import GenerationConfig


class Generates(Protocol):
    """The part of transformers' `GenerationMixin` that is used; a PEFT model passes it on."""

    generation_config: "GenerationConfig"

    def generate(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor,
        generation_config: "GenerationConfig",
        streamer: "Streamer | None" = None,
        **inputs: Tensor,
    ) -> Tensor: ...


#: the images of some rows, in their order, and the rows' token ids → further arguments of the model
ImageInputs = Callable[[Sequence[ImageSlot], Tensor], Mapping[str, Tensor]]
#: is called with each new token id of a single prompt, as soon as it is chosen
OnToken = Callable[[int], None]


class Streamer:
    """Passes each new token of a single prompt on, in the form of transformers' `BaseStreamer`.

    Args:
        on_token: is called with each token id but the end tokens.
        end_token_ids: each of them ends the text.
    """

    def __init__(self, on_token: OnToken, end_token_ids: Sequence[int]) -> None:
        self._on_token = on_token
        self._ends = frozenset(end_token_ids)
        self._in_prompt = True

    def put(self, value: Tensor) -> None:
        """Takes the prompt's token ids first, then each new token."""
        if self._in_prompt:
            self._in_prompt = False
            return
        for token in value.flatten().tolist():
            if token not in self._ends:
                self._on_token(token)

    def end(self) -> None:
        """The text has ended."""


def generation_groups(lengths: Sequence[int], rows: int, tokens: int) -> list[list[int]]:
    """Batches of prompts, as indices of `lengths`, longest prompt first.

    Args:
        lengths: tokens of each prompt.
        rows: most prompts in a batch.
        tokens: most prompt tokens in a batch, padding included, since the cache holds keys and values of all of
            them. A longer prompt is a batch of its own.
    """
    groups: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        # descending, so the first of a group is its longest
        if groups and len(groups[-1]) < rows and longest * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
            longest = lengths[index]
    return groups


@torch.no_grad()
def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_token_ids: Sequence[int],
    pad_token_id: int,
    device: torch.device,
    left_padding: bool = True,
    on_token: OnToken | None = None,
    images: tuple[Sequence[Sequence[ImageSlot]], ImageInputs] | None = None,
) -> list[list[int]]:
    """The greedy continuation of each prompt, without its end token.

    Prompts are padded on the left, so that all continue at the same position; the prefill computes only the logits
    of the last position.

    Args:
        model: has transformers' `generate`; the caller has put it into its generating state.
        prompts: token ids, best of similar length.
        max_new_tokens: length limit.
        end_token_ids: each of them ends a text.
        pad_token_id: fills the padding, which is masked.
        device: the model's.
        left_padding: whether the model supports it; if not, each batch holds prompts of one length.
        on_token: is called with each new token of a single prompt; an error that it raises ends the generation.
        images: of each prompt, and what makes the model's arguments of them.

    Raises:
        ValueError: `on_token` with several prompts.
    """
    from transformers import GenerationConfig

    if on_token is not None and len(prompts) != 1:
        raise ValueError(f"on_token follows one prompt, and there are {len(prompts)}")

    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(end_token_ids),
        pad_token_id=pad_token_id,
        use_cache=True,
    )
    texts: list[list[int]] = [[] for _ in prompts]
    for batch in [range(len(prompts))] if left_padding else _by_length(prompts):
        input_ids, mask = _left_padded([prompts[index] for index in batch], pad_token_id)
        input_ids = input_ids.to(device)
        with _no_defaults(model) as generator:
            output = generator.generate(
                input_ids=input_ids,
                attention_mask=mask.to(device),
                generation_config=settings,
                streamer=None if on_token is None else Streamer(on_token, end_token_ids),
                **_image_inputs(images, batch, input_ids),
            )
        for index, row in zip(batch, output[:, input_ids.shape[1] :].tolist(), strict=True):
            end = next((place for place, token in enumerate(row) if token in end_token_ids), len(row))
            texts[index] = row[:end]
    return texts


def _image_inputs(
    images: tuple[Sequence[Sequence[ImageSlot]], ImageInputs] | None, batch: Sequence[int], input_ids: Tensor
) -> Mapping[str, Tensor]:
    """The model's arguments for the images of these prompts; none for text alone."""
    if images is None:
        return {}
    slots = [slot for index in batch for slot in images[0][index]]
    return images[1](slots, input_ids) if slots else {}


def _left_padded(prompts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, [B, T] each, for prompts of T tokens at most."""
    longest = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), longest), pad_token_id)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return input_ids, mask


@contextmanager
def _no_defaults(model: nn.Module) -> Iterator[Generates]:
    """The model without the generation defaults of its base.

    transformers fills what a configuration leaves open from them: Qwen's repetition penalty (1.05 to 1.1) would make
    the text another than the greedy one.
    """
    from transformers import GenerationConfig

    get_base_model = getattr(model, "get_base_model", None)  # a PEFT model has it
    base = cast(Generates, model if get_base_model is None else get_base_model())
    own = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        yield cast(Generates, model)
    finally:
        base.generation_config = own


def _by_length(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The indices of the prompts of each length, shortest first."""
    lengths = sorted({len(prompt) for prompt in prompts})
    return [[row for row, prompt in enumerate(prompts) if len(prompt) == length] for length in lengths]
