"""From encoded examples to what goes through the model: packed or padded micro-batches of one optimizer step."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medqlora.records import Encoded


class MicroBatch(NamedTuple):
    """Examples that go through the model in one forward pass.

    Packed: one row, examples one after another, T tokens in all, no padding. Padded: one row an example,
    filled up on the right. In both, `rows` and `targets` say where loss is taken, as indices into the
    tokens of all rows one after another.

    Attributes:
        input_ids: [1, T] packed or [n, L] padded, int64.
        position_ids: same shape, int64; restart at 0 with every example.
        attention_mask: None packed (the restarting positions say it), [n, L] bool padded, [1, 1, T, T] bool
            where prompts are shared (True: the row may look at the column).
        lengths: [n] int32, on the host: tokens of each example, the order of the rows.
        rows: [R] int64: where the hidden state predicts a completion token.
        targets: [R] int64: that token.
        host_ids: `input_ids` on the host, where they are on a device; for embeddings that are kept there.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor | None
    lengths: Tensor
    rows: Tensor
    targets: Tensor
    host_ids: Tensor | None = None

    def to(self, device: torch.device) -> "MicroBatch":
        """On `device`, but for `lengths` and `host_ids`, which the host needs without asking the device."""
        return MicroBatch(
            self.input_ids.to(device, non_blocking=True),
            self.position_ids.to(device, non_blocking=True),
            None if self.attention_mask is None else self.attention_mask.to(device, non_blocking=True),
            self.lengths,
            self.rows.to(device, non_blocking=True),
            self.targets.to(device, non_blocking=True),
            self.input_ids if self.input_ids.device.type == "cpu" else self.host_ids,
        )


class StepBatch(NamedTuple):
    """Exactly one optimizer step.

    Attributes:
        micro_batches: this process's share of the step; none where it has no example.
        completion_tokens: tokens that carry loss in the whole step, over all micro-batches and processes:
            what the step's loss is divided by.
        tokens: tokens that are not padding in this process's share.
        ids: the records of the whole step, in the order they were drawn.
        all_tokens: of all processes' shares.
        imbalance: tokens of the largest share over the mean; 1 where all have the same.
    """

    micro_batches: tuple[MicroBatch, ...]
    completion_tokens: int
    tokens: int
    ids: tuple[str, ...]
    all_tokens: int = 0
    imbalance: float = 1.0


def deal(lengths: Sequence[int], world_size: int) -> list[list[int]]:
    """Indices of `lengths` for each process: longest first, each to the process with the fewest tokens so far.

    With fewer examples than processes some have none.
    """
    shares: list[list[int]] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        process = loads.index(min(loads))
        loads[process] += lengths[index]
        shares[process].append(index)
    return [sorted(share) for share in shares]


def split_by_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in groups of at most `budget` tokens: first-fit decreasing, ties by index.

    An item above the budget gets a group of its own: the budget bounds memory, it never drops data.
    Groups, and the indices in each, are in ascending order of their first index, so the result depends
    on nothing but its arguments.

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
    )


def pad(examples: Sequence[Encoded], pad_token_id: int) -> MicroBatch:
    """One row an example, filled up on the right to the longest; for models that can't take packed rows."""
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
        input_ids, positions, mask, torch.tensor(lengths, dtype=torch.int32), _long(rows), _long(targets)
    )


def share_prompts(examples: Sequence[Sequence[Encoded]]) -> MicroBatch:
    """One row in which each prompt stands once and several completions follow it side by side.

    A completion sees its prompt and itself, at the positions that it would have alone; its last token is
    only predicted, so it isn't there. `rows` and `targets` are in the order of the completions.

    Args:
        examples: groups with the same prompt.
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
    """Indices of `lengths` as the groups that go through the model together.

    Packed rows are filled by `split_by_budget`. For padded rows, neighbours in length go together, and a
    group's longest length times its rows stays within the budget.
    """
    if packed:
        return split_by_budget(lengths, budget)
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        # ascending, so the newest is the longest of its group
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
    """The step over `examples`, as the share of process `rank` of `world_size`.

    Every process gets the whole step's examples and takes its own, so that the number of completion
    tokens needs no message between them; examples are dealt out so that all finish together.
    """
    lengths = [len(example.prompt) + len(example.completion) for example in examples]
    shares = deal(lengths, world_size)
    mine = shares[rank]
    loads = [sum(lengths[index] for index in share) for share in shares]
    return StepBatch(
        tuple(
            micro_batch([examples[mine[place]] for place in group], packed=packed, pad_token_id=pad_token_id)
            for group in split_rows([lengths[index] for index in mine], micro_batch_tokens, packed=packed)
        ),
        sum(len(example.completion) for example in examples),
        loads[rank],
        tuple(example.id for example in examples),
        sum(loads),
        max(loads) * world_size / max(1, sum(loads)),
    )


def _rows(example: Encoded, start: int) -> range:
    """Where the completion is predicted: each token from the position before it."""
    first = start + len(example.prompt) - 1
    return range(first, first + len(example.completion))


def _long(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long)
