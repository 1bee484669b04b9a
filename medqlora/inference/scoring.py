"""Log-likelihoods of labels and completions, in packed forward passes and without a decoding step."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from medqlora.data.batching.packing import MicroBatch, micro_batch, share_prompts, split_rows
from medqlora.models.decoder import HEAD_ROWS
from medqlora.records import Encoded


class Decodes(Protocol):
    """The part of a model that scoring uses (`medqlora.models.Decoder` has it)."""

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        """[len(rows), D] last hidden states at `rows`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, V] float32."""

    @property
    def takes_any_mask(self) -> bool:
        """Whether attention follows any [1, 1, T, T] mask."""


class Scored(NamedTuple):
    """The scores of one example.

    Attributes:
        label_logprobs: log p(label | prompt) in nats for each label, summed over the label's tokens.
        completion_nll: sum of -log p over the completion's tokens, in nats; 0 without a completion.
        completion_tokens: number of tokens in that sum.
    """

    label_logprobs: tuple[float, ...]
    completion_nll: float
    completion_tokens: int


class ScoredSequence(NamedTuple):
    """A prompt with one continuation.

    Attributes:
        encoded: the continuation stands in its `completion`.
        example: the index of its example.
        label: the index of the label that is the continuation; None for the example's own completion.
        singles: (index, token) of the one-token labels that are scored at the last prompt position.
    """

    encoded: Encoded
    example: int
    label: int | None
    singles: list[tuple[int, int]]


#: the sequences of a pass in the order of its rows → the decoder that runs it
Passes = Callable[[Sequence[ScoredSequence]], Decodes]


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
    watch: Callable[[float], None] = lambda count: None,
    passes: Passes | None = None,
) -> list[Scored]:
    """Scores each example's labels and completion.

    A label of one token is scored at the last prompt position, in the pass that scores the completion. Labels of
    several tokens follow their prompt side by side, so that the prompt goes through the model once; where the
    attention can't follow such a mask, each label has a prompt of its own.

    Args:
        decoder: the model, in eval mode and within its precision context.
        examples: in any order; the results have the same.
        micro_batch_tokens: tokens that go through the model at once.
        packed, pad_token_id, device: as in training.
        completions: whether to score the completions too, which then go through the model.
        watch: called after each pass with the number of examples that are scored.
        passes: called with each pass's sequences, just before it; returns its decoder. None for `decoder`.
    """
    examples = examples if completions else [example._replace(completion=()) for example in examples]
    sequences = _sequences(examples)
    shared = decoder.takes_any_mask and len(sequences) > len({sequence.example for sequence in sequences})
    units = _units(sequences, shared)
    lengths = [
        len(unit[0].encoded.prompt) + sum(len(each.encoded.completion) for each in unit) for unit in units
    ]
    label_logprobs = [[0.0] * len(example.labels) for example in examples]
    nll, done = [0.0] * len(examples), 0
    for group in split_rows(lengths, micro_batch_tokens, packed=packed or shared):
        members = [[sequence.encoded for sequence in units[index]] for index in group]
        if shared:
            batch = share_prompts(members)
        else:
            batch = micro_batch([encoded for (encoded,) in members], packed=packed, pad_token_id=pad_token_id)
        scored = [sequence for index in group for sequence in units[index]]
        runs = decoder if passes is None else passes(scored)
        for sequence, (total, single_logprobs) in zip(
            scored, _score_batch(runs, batch, scored, device), strict=True
        ):
            if sequence.label is not None:
                label_logprobs[sequence.example][sequence.label] = total
                continue
            if examples[sequence.example].completion:
                nll[sequence.example] = -total
            for (label, _), logprob in zip(sequence.singles, single_logprobs, strict=True):
                label_logprobs[sequence.example][label] = logprob
        done += len(group)
        watch(done / len(units) * len(examples))
    return [
        Scored(tuple(logprobs), example_nll, len(example.completion))
        for logprobs, example_nll, example in zip(label_logprobs, nll, examples, strict=True)
    ]


def _sequences(examples: Sequence[Encoded]) -> list[ScoredSequence]:
    """What goes through the model for `examples`: the completion, and each label of several tokens."""
    sequences: list[ScoredSequence] = []
    for number, example in enumerate(examples):
        singles = [(index, label[0]) for index, label in enumerate(example.labels) if len(label) == 1]
        if example.completion or singles:
            # without a completion a label's token keeps the last prompt position among the rows
            completion = example.completion or [singles[0][1]]
            sequences.append(ScoredSequence(example._replace(completion=completion), number, None, singles))
        for index, label in enumerate(example.labels):
            if len(label) > 1:
                sequences.append(ScoredSequence(example._replace(completion=label), number, index, []))
    return sequences


def _units(sequences: Sequence[ScoredSequence], shared: bool) -> list[list[ScoredSequence]]:
    """The sequences that stay together: an example's where prompts are shared, else each alone."""
    units: list[list[ScoredSequence]] = []
    for sequence in sequences:
        if shared and units and units[-1][0].example == sequence.example:
            units[-1].append(sequence)
        else:
            units.append([sequence])
    return units


def _score_batch(
    decoder: Decodes, batch: MicroBatch, sequences: Sequence[ScoredSequence], device: torch.device
) -> list[tuple[float, list[float]]]:
    """The log-likelihood of each sequence's continuation, and of each of its `singles`.

    Args:
        sequences: in the order of the batch's rows.
    """
    counts = [len(sequence.encoded.completion) for sequence in sequences]
    # pairs (row, token) to score: the completions' tokens, then the singles
    tokens = batch.targets.tolist()
    rows = list(range(len(tokens)))
    first = 0
    for count, sequence in zip(counts, sequences, strict=True):
        rows += [first] * len(sequence.singles)
        tokens += [token for _, token in sequence.singles]
        first += count
    batch = batch.to(device)
    hidden = decoder.hidden(batch, batch.rows)
    row_index = torch.tensor(rows, device=device)
    token_index = torch.tensor(tokens, device=device)
    logprobs = torch.empty(len(rows), dtype=torch.float32, device=device)
    for start in range(0, len(hidden), HEAD_ROWS):
        piece = torch.log_softmax(decoder.logits(hidden[start : start + HEAD_ROWS]), dim=-1)
        inside = torch.nonzero((row_index >= start) & (row_index < start + len(piece)))[:, 0]
        logprobs[inside] = piece[row_index[inside] - start, token_index[inside]]
    values = iter(logprobs.tolist())
    totals = [sum(itertools.islice(values, count)) for count in counts]
    return [
        (total, list(itertools.islice(values, len(sequence.singles))))
        for total, sequence in zip(totals, sequences, strict=True)
    ]
