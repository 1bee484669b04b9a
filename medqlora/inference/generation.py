"""Greedy text from the model, in batches and with a key-value cache."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def writing_groups(lengths: Sequence[int], rows: int, tokens: int) -> list[list[int]]:
    """Indices of `lengths`, longest first, in groups that are written at once.

    Args:
        lengths: tokens of each prompt.
        rows: prompts in a group, at most.
        tokens: prompt tokens of a group at most, padding counted: writing keeps keys and values of all of
            them. A longer prompt is a group of its own.
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
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_token_ids: Sequence[int],
    pad_token_id: int,
    device: torch.device,
    left_padding: bool = True,
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, without its end token.

    Prompts are filled up on the left, so that all continue at the same position; the prefill computes
    the logits of the last position alone.

    Args:
        model: has transformers' `generate`; the caller has put it into its generating state.
        prompts: token ids; best of similar length.
        max_new_tokens: where a text that doesn't end is cut.
        end_token_ids: each of them ends a text.
        pad_token_id: fills up; never read.
        device: where the model is.
        left_padding: whether the model takes it; else prompts of one length are continued at a time.
    """
    if not left_padding and len({len(prompt) for prompt in prompts}) > 1:

        def one_length(group: Sequence[Sequence[int]]) -> list[list[int]]:
            return generate(
                model,
                group,
                max_new_tokens=max_new_tokens,
                end_token_ids=end_token_ids,
                pad_token_id=pad_token_id,
                device=device,
            )

        return _by_length(prompts, one_length)
    from transformers import GenerationConfig

    longest = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), longest), pad_token_id)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(end_token_ids),
        pad_token_id=pad_token_id,
        use_cache=True,
    )
    # transformers fills what `settings` leaves open from the base's own: Qwen's penalty on repeated tokens
    # (1.05 to 1.1) would make it another text than the most likely one
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        output = model.generate(
            input_ids=input_ids.to(device), attention_mask=mask.to(device), generation_config=settings
        )
    finally:
        base.generation_config = own
    ends = {*end_token_ids}
    texts: list[list[int]] = []
    for row in output[:, longest:].tolist():
        end = next((place for place, token in enumerate(row) if token in ends), len(row))
        texts.append(row[:end])
    return texts


def _by_length(
    prompts: Sequence[Sequence[int]], generate: Callable[[Sequence[Sequence[int]]], list[list[int]]]
) -> list[list[int]]:
    """The texts in the order of `prompts`, generated for those of one length at a time."""
    found: list[list[int]] = [[] for _ in prompts]
    for length in sorted({len(prompt) for prompt in prompts}):
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
        for row, text in zip(rows, generate([prompts[row] for row in rows]), strict=True):
            found[row] = text
    return found
