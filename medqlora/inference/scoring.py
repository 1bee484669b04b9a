"""Log-likelihoods of labels and completions, in packed forward passes and without a decode step."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from medqlora.data.batching.packing import (
    MicroBatch,
    micro_batch,
    share_prompts,
    split_rows,
)
from medqlora.records import Encoded


class Decodes(Protocol):
    """What scoring needs of a model (`medqlora.models.Decoder` is one)."""

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        """[len(rows), D] last hidden states at `rows`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, V] float32."""

    @property
    def takes_any_mask(self) -> bool:
        """Whether it obeys any [1, 1, T, T] mask."""


class Scored(NamedTuple):
    """What one example scored.

    Attributes:
        label_logprobs: log p(label | prompt) in nats, one a label, summed over the label's tokens.
        completion_nll: the sum of -log p over the completion's tokens, in nats; 0 without a completion.
        completion_tokens: how many those are.
    """

    label_logprobs: tuple[float, ...]
    completion_nll: float
    completion_tokens: int


#: logits rows that exist at one time
_HEAD_ROWS = 256


@torch.no_grad()
def score(
    decoder: Decodes,
    examples: Sequence[Encoded],
    *,
    micro_batch_tokens: int,
    packed: bool,
    pad_token_id: int,
    device: torch.device,
    completions: bool = True,
) -> list[Scored]:
    """Scores each example's labels and completion.

    A label of one token is read off the last prompt position, in the pass that scores the completion
    too. Labels of several tokens follow their prompt side by side, so that it goes through the model once;
    where the model's attention can't do that, each goes through with a prompt of its own.

    Args:
        decoder: the model; the caller has put it into eval mode and entered its precision.
        examples: in any order; results come in the same.
        micro_batch_tokens: tokens that go through the model at once.
        packed, pad_token_id: as in training.
        device: where the model is.
        completions: whether the completions are wanted; without them only the prompts (and labels of several
            tokens) go through the model.
    """
    if not completions:
        examples = [example._replace(completion=()) for example in examples]
    sequences: list[Encoded] = []
    owners: list[tuple[int, int]] = []  # (example, label), label -1 for the example itself
    singles: list[
        list[int]
    ] = []  # the one-token labels that are read off the sequence's last prompt position
    for index, example in enumerate(examples):
        one_token = [label[0] for label in example.labels if len(label) == 1]
        if example.completion or one_token:
            # without a completion a label's token keeps the last prompt position among the rows
            sequences.append(example._replace(completion=example.completion or one_token[:1]))
            owners.append((index, -1))
            singles.append(one_token)
        for number, label in enumerate(example.labels):
            if len(label) > 1:
                sequences.append(example._replace(completion=label))
                owners.append((index, number))
                singles.append([])

    label_logprobs = [[0.0] * len(example.labels) for example in examples]
    nll = [0.0] * len(examples)
    shared = decoder.takes_any_mask and len(sequences) > len({index for index, _ in owners})
    units = _units([index for index, _ in owners], shared)
    lengths = [
        len(sequences[unit[0]].prompt) + sum(len(sequences[item].completion) for item in unit)
        for unit in units
    ]
    for group in split_rows(lengths, micro_batch_tokens, packed=packed or shared):
        members = [[sequences[item] for item in units[place]] for place in group]
        if shared:
            batch = share_prompts(members)
        else:
            batch = micro_batch([one for (one,) in members], packed=packed, pad_token_id=pad_token_id)
        items = [item for place in group for item in units[place]]
        counts = [len(sequences[item].completion) for item in items]
        results = _score_batch(decoder, batch, counts, [singles[item] for item in items], device)
        for item, (total, single_logprobs) in zip(items, results, strict=True):
            index, number = owners[item]
            if number >= 0:
                label_logprobs[index][number] = total
                continue
            nll[index] = -total
            ones = (place for place, label in enumerate(examples[index].labels) if len(label) == 1)
            for place, value in zip(ones, single_logprobs, strict=True):
                label_logprobs[index][place] = value
    return [
        Scored(
            tuple(label_logprobs[index]), nll[index] if example.completion else 0.0, len(example.completion)
        )
        for index, example in enumerate(examples)
    ]


def _units(owners: Sequence[int], shared: bool) -> list[list[int]]:
    """Places of `owners` that go together: those of the same example where prompts are shared, else each alone."""
    units: list[list[int]] = []
    for place, owner in enumerate(owners):
        if shared and place and owners[place - 1] == owner:
            units[-1].append(place)
        else:
            units.append([place])
    return units


def _score_batch(
    decoder: Decodes,
    batch: MicroBatch,
    counts: Sequence[int],
    singles: Sequence[Sequence[int]],
    device: torch.device,
) -> list[tuple[float, list[float]]]:
    """For each sequence of the batch, the log-likelihood of its completion and of each of its `singles`.

    Args:
        counts: completion tokens of each sequence, in the order of the batch's rows.
        singles: for each sequence, tokens to score at its last prompt position.
    """
    wanted_tokens = batch.targets.tolist()
    batch = batch.to(device)
    hidden = decoder.hidden(batch, batch.rows)
    # pairs (row, token) whose log-likelihood is wanted: the completions' tokens, then the singles
    rows, tokens = list(range(len(wanted_tokens))), wanted_tokens
    first = 0
    for count, wanted in zip(counts, singles, strict=True):
        rows += [first] * len(wanted)
        tokens += wanted
        first += count
    row_index = torch.tensor(rows, device=device)
    token_index = torch.tensor(tokens, device=device)
    logprobs = torch.empty(len(rows), dtype=torch.float32, device=device)
    for start in range(0, len(hidden), _HEAD_ROWS):
        piece = torch.log_softmax(decoder.logits(hidden[start : start + _HEAD_ROWS]), dim=-1)
        inside = torch.nonzero((row_index >= start) & (row_index < start + len(piece)))[:, 0]
        logprobs[inside] = piece[row_index[inside] - start, token_index[inside]]
    values = logprobs.tolist()
    results: list[tuple[float, list[float]]] = []
    completion_at, single_at = 0, len(batch.targets)
    for count, wanted in zip(counts, singles, strict=True):
        results.append(
            (sum(values[completion_at : completion_at + count]), values[single_at : single_at + len(wanted)])
        )
        completion_at += count
        single_at += len(wanted)
    return results
