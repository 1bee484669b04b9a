"""Encoded examples to the micro-batches of one optimizer step, packed or padded."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medqlora.data.batching.loss_terms import LossTerms, loss_terms, loss_weight
from medqlora.records import Encoded, ImageSlot


class MicroBatch(NamedTuple):
    """Examples of one forward pass.

    Packed: one row of T tokens, examples concatenated, no padding. Padded: one row per example, padded on the right.
    In both, `rows` and `targets` are the positions with loss, as indices into the concatenated tokens of all rows.

    Attributes:
        input_ids: [1, T] packed or [n, L] padded, int64.
        position_ids: same shape, int64; restart at 0 with every example.
        attention_mask: None packed (the positions give the boundaries), [n, L] bool padded, [1, 1, T, T] bool where
            completions share a prompt (True: the row attends to the column).
        lengths: [n] int32, on the host: tokens of each example, in the order of the rows.
        rows: [R] int64: the positions whose hidden state predicts a completion token.
        targets: [R] int64: that token.
        host_ids: `input_ids` on the host, for embeddings that stay there.
        images: the examples' images, in the order of the rows; their pixels are read by the decoder.
        terms: weighted terms of the loss; None where it is the plain sum over `targets`.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    lengths: Tensor
    rows: Tensor
    targets: Tensor
    host_ids: Tensor | None = None
    images: tuple[ImageSlot, ...] = ()
    terms: LossTerms | None = None

    def to(self, device: torch.device) -> "MicroBatch":
        """Copies to `device`; `lengths` and `host_ids` stay on the host, which reads them without a device sync."""
        return MicroBatch(
            self.input_ids.to(device, non_blocking=True),
            self.position_ids.to(device, non_blocking=True),
            None if self.attention_mask is None else self.attention_mask.to(device, non_blocking=True),
            self.lengths,
            self.rows.to(device, non_blocking=True),
            self.targets.to(device, non_blocking=True),
            self.input_ids if self.input_ids.device.type == "cpu" else self.host_ids,
            self.images,
            None if self.terms is None else self.terms.to(device),
        )


class StepBatch(NamedTuple):
    """Exactly one optimizer step.

    Attributes:
        micro_batches: this process's share of the step; empty where it has no example.
        completion_tokens: tokens with loss in the complete step, over all micro-batches and processes.
        tokens: tokens in this process's share, without padding.
        ids: the records of the complete step, in the epoch's order.
        all_tokens: `tokens` over all processes.
        imbalance: tokens of the largest share over the mean; 1 where all shares are equal.
        loss_weight: sum of the weights of these tokens; None where each is 1.
        largest_share: tokens of the process that has the most; 0 where it isn't known.
    """

    micro_batches: tuple[MicroBatch, ...]
    completion_tokens: int
    tokens: int
    ids: tuple[str, ...]
    all_tokens: int = 0
    imbalance: float = 1.0
    loss_weight: float | None = None
    largest_share: int = 0

    @property
    def divisor(self) -> float:
        """Divides the step's summed loss: Σ w over its completion tokens, which is their number without weights."""
        return self.completion_tokens if self.loss_weight is None else self.loss_weight


def deal(lengths: Sequence[int], world_size: int) -> list[list[int]]:
    """Indices of `lengths` for each process, with similar sums: no process waits long for another.

    Longest first, each to the process with the fewest tokens so far; then the fullest process gives an example to the
    emptiest, or exchanges one with it, as long as that brings the two closer. With fewer examples than processes, some
    shares are empty.
    """
    shares: list[list[int]] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        process = loads.index(min(loads))
        loads[process] += lengths[index]
        shares[process].append(index)
    while True:
        fullest, emptiest = loads.index(max(loads)), loads.index(min(loads))
        gap = loads[fullest] - loads[emptiest]
        exchange = _closest_exchange(lengths, shares[fullest], shares[emptiest], gap)
        if exchange is None:
            return [sorted(share) for share in shares]
        given, taken = exchange
        shares[fullest].remove(given)
        shares[emptiest].append(given)
        moved = lengths[given]
        if taken is not None:
            shares[emptiest].remove(taken)
            shares[fullest].append(taken)
            moved -= lengths[taken]
        loads[fullest] -= moved
        loads[emptiest] += moved


def _closest_exchange(
    lengths: Sequence[int], fuller: Sequence[int], emptier: Sequence[int], gap: int
) -> tuple[int, int | None] | None:
    """The exchange that leaves the least of `gap` between two shares' sums, as (given, taken); None if none is smaller.

    `taken` is None where the fuller share only gives.
    """
    offers: list[tuple[int, int | None]] = [(0, None)]
    offers += sorted((lengths[index], index) for index in emptier)
    sizes = [size for size, _ in offers]
    best, left = None, gap
    for given in fuller:
        # 2 (given - taken) as near to the gap as possible
        place = bisect_left(sizes, lengths[given] - gap // 2)
        for size, taken in offers[max(0, place - 1) : place + 1]:
            after = abs(gap - 2 * (lengths[given] - size))
            if after < left:
                best, left = (given, taken), after
    return best


def split_by_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in groups of at most `budget` tokens: first-fit decreasing, ties by index.

    An item above the budget gets a group of its own: the budget never drops data. Groups, and the indices in each, are
    in ascending order, so the result depends on the arguments alone.

    Args:
        lengths: tokens of each example, each at least 1.
        budget: tokens of a micro-batch, at least 1.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    groups: list[list[int]] = []
    used: list[int] = []
    for index in order:
        for group, total in enumerate(used):
            if total + lengths[index] <= budget:
                groups[group].append(index)
                used[group] += lengths[index]
                break
        else:
            groups.append([index])
            used.append(lengths[index])
    return sorted(sorted(group) for group in groups)


def pack(examples: Sequence[Encoded]) -> MicroBatch:
    """One row of concatenated examples; T is the sum of their lengths."""
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    for example in examples:
        start = len(ids)
        ids += [*example.prompt, *example.completion]
        positions += range(len(ids) - start)
        lengths.append(len(ids) - start)
        rows += _rows(example, start)
        targets += example.completion
    return MicroBatch(
        _long(ids)[None],
        _long(positions)[None],
        None,
        torch.tensor(lengths, dtype=torch.int32),
        _long(rows),
        _long(targets),
        images=_images(examples),
        terms=loss_terms(examples),
    )


def pad(examples: Sequence[Encoded], pad_token_id: int) -> MicroBatch:
    """One row per example, padded on the right to the longest; for models that do not support packed rows."""
    lengths = [len(example.prompt) + len(example.completion) for example in examples]
    longest = max(lengths)
    input_ids = torch.full((len(examples), longest), pad_token_id)
    mask = torch.zeros(len(examples), longest, dtype=torch.bool)
    rows: list[int] = []
    targets: list[int] = []
    for row, example in enumerate(examples):
        input_ids[row, : lengths[row]] = _long([*example.prompt, *example.completion])
        mask[row, : lengths[row]] = True
        rows += _rows(example, row * longest)
        targets += example.completion
    positions = torch.arange(longest).expand(len(examples), -1)
    return MicroBatch(
        input_ids,
        positions,
        mask,
        torch.tensor(lengths, dtype=torch.int32),
        _long(rows),
        _long(targets),
        images=_images(examples),
        terms=loss_terms(examples),
    )


def share_prompts(examples: Sequence[Sequence[Encoded]]) -> MicroBatch:
    """One row in which several completions follow each prompt, which stands once.

    A completion attends to its prompt and itself, with the positions that it has alone. Its last token is only
    predicted, so it is no input. `rows` and `targets` are in the order of the completions.

    Args:
        examples: groups of examples with the same prompt.
    """
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    spans: list[tuple[int, int, int, int]] = []  # prompt begin, prompt end, completion begin, completion end
    for group in examples:
        begin, prompt = len(ids), group[0].prompt
        end = begin + len(prompt)
        ids += prompt
        positions += range(len(prompt))
        spans.append((begin, end, begin, end))
        for example in group:
            start = len(ids)
            ids += example.completion[:-1]
            positions += range(len(prompt), len(prompt) + len(ids) - start)
            spans.append((begin, end, start, len(ids)))
            rows += [end - 1, *range(start, len(ids))]
            targets += example.completion
        lengths.append(len(ids) - begin)
    mask = torch.zeros(len(ids), len(ids), dtype=torch.bool)
    for begin, end, start, stop in spans:
        mask[start:stop, begin:end] = True
        mask[start:stop, start:stop] = True
    return MicroBatch(
        _long(ids)[None],
        _long(positions)[None],
        mask.tril_()[None, None],
        torch.tensor(lengths, dtype=torch.int32),
        _long(rows),
        _long(targets),
    )


def split_rows(lengths: Sequence[int], budget: int, *, packed: bool) -> list[list[int]]:
    """Indices of `lengths`, grouped into micro-batches.

    `split_by_budget` fills packed rows. Padded rows are grouped by similar length, and the longest length times the
    number of rows stays within the budget.
    """
    if packed:
        return split_by_budget(lengths, budget)
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        # in ascending order, so the last item is the longest of its group
        if groups and lengths[index] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def micro_batch(examples: Sequence[Encoded], *, packed: bool, pad_token_id: int) -> MicroBatch:
    """`examples` as one packed or padded micro-batch, in their order."""
    return pack(examples) if packed else pad(examples, pad_token_id)


def step_batch(
    examples: Sequence[Encoded],
    micro_batch_tokens: int,
    *,
    packed: bool = True,
    pad_token_id: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> StepBatch:
    """The share of process `rank` of the step over `examples`.

    Every process gets the examples of the complete step, so the number of completion tokens needs no communication.
    Shares have similar numbers of tokens, so the processes finish together.
    """
    lengths = [len(example.prompt) + len(example.completion) for example in examples]
    shares = deal(lengths, world_size)
    mine = shares[rank]
    loads = [sum(lengths[index] for index in share) for share in shares]
    return StepBatch(
        tuple(
            micro_batch([examples[mine[index]] for index in group], packed=packed, pad_token_id=pad_token_id)
            for group in split_rows([lengths[index] for index in mine], micro_batch_tokens, packed=packed)
        ),
        sum(len(example.completion) for example in examples),
        loads[rank],
        tuple(example.id for example in examples),
        sum(loads),
        max(loads) * world_size / max(1, sum(loads)),
        loss_weight(examples),
        max(loads),
    )


def _images(examples: Sequence[Encoded]) -> tuple[ImageSlot, ...]:
    return tuple(slot for example in examples for slot in example.images)


def _rows(example: Encoded, start: int) -> range:
    """The positions that predict the completion: each token from the position before it."""
    first = start + len(example.prompt) - 1
    return range(first, first + len(example.completion))


def _long(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long)
