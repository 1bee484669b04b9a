"""However a step is cut, every token of every example is in it once, beside its own and no other's."""

from itertools import pairwise

import pytest
from fuzzing import SLOW_INPUTS, fuzz
from hypothesis import strategies as st

from medqlora.data.batching.packing import (
    MicroBatch,
    StepBatch,
    share_prompts,
    split_by_budget,
    split_rows,
    step_batch,
)
from medqlora.records import Encoded

PAD = -1


@st.composite
def steps(draw: st.DrawFn) -> tuple[list[Encoded], int, bool, int]:
    """A step's examples, the budget, whether rows are packed, and the number of processes.

    No two of the tokens are alike, so that each can be found again.
    """
    lengths = draw(
        st.lists(
            st.tuples(st.integers(1, 40), st.integers(0, 15)) | st.tuples(st.integers(1, 3), st.just(1)),
            min_size=1,
            max_size=16,
        )
    )
    examples, token = [], 0
    for number, (prompt, completion) in enumerate(lengths):
        middle, end = token + prompt, token + prompt + completion
        examples.append(Encoded(f"q{number}", list(range(token, middle)), list(range(middle, end))))
        token = end
    return examples, draw(st.integers(1, 120)), draw(st.booleans()), draw(st.integers(1, 8))


def tokens_of(example: Encoded) -> list[int]:
    return [*example.prompt, *example.completion]


def rows_of(batch: MicroBatch) -> list[tuple[list[int], list[int]]]:
    """What the model takes for one text: the tokens and positions between two restarts, or of a padded row."""
    if batch.attention_mask is None:
        ids, positions = batch.input_ids[0].tolist(), batch.position_ids[0].tolist()
        starts = [place for place, position in enumerate(positions) if position == 0]
        cuts = pairwise([*starts, len(ids)])
        return [(ids[start:end], positions[start:end]) for start, end in cuts]
    held = []
    for ids, positions, mask in zip(batch.input_ids, batch.position_ids, batch.attention_mask, strict=True):
        assert ids[~mask].tolist() == [PAD] * int((~mask).sum())
        held.append((ids[mask].tolist(), positions[mask].tolist()))
    return held


def cost(lengths: list[int], packed: bool) -> int:
    return sum(lengths) if packed else max(lengths) * len(lengths)


def check_budget(batch: MicroBatch, budget: int, packed: bool) -> None:
    """The budget is kept but for an example that is longer by itself; nothing but packed rows is counted."""
    rows = rows_of(batch)
    assert len(rows) == 1 or cost([len(ids) for ids, _ in rows], packed) <= budget
    assert batch.input_ids.numel() == cost([len(ids) for ids, _ in rows], packed)
    assert batch.lengths.tolist() == [len(ids) for ids, _ in rows]


def check_loss(batch: MicroBatch, whole: dict[int, Encoded]) -> None:
    """Each target is the token after the one that it is predicted from, in the same example's completion."""
    flat = batch.input_ids.flatten().tolist()
    for row, target in zip(batch.rows.tolist(), batch.targets.tolist(), strict=True):
        assert target == flat[row] + 1, "predicted from another place"
        example = whole[target]
        assert target in example.completion
        assert flat[row] in tokens_of(example)


def check(value: tuple[list[Encoded], int, bool, int]) -> None:
    examples, budget, packed, world_size = value
    whole = {token: example for example in examples for token in tokens_of(example)}
    shares: list[StepBatch] = [
        step_batch(examples, budget, packed=packed, pad_token_id=PAD, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    rows = [row for share in shares for batch in share.micro_batches for row in rows_of(batch)]
    # every example is in one place, whole and by itself, and so is every token
    assert sorted(ids for ids, _ in rows) == sorted(map(tokens_of, examples))
    assert sorted(token for ids, _ in rows for token in ids) == list(range(len(whole)))
    assert all(positions == list(range(len(ids))) for ids, positions in rows)
    targets = [
        target for share in shares for batch in share.micro_batches for target in batch.targets.tolist()
    ]
    assert sorted(targets) == sorted(token for example in examples for token in example.completion)
    for share in shares:
        assert share.completion_tokens == len(targets)
        assert share.ids == tuple(example.id for example in examples)
        assert share.tokens == sum(len(ids) for batch in share.micro_batches for ids, _ in rows_of(batch))
        for batch in share.micro_batches:
            check_budget(batch, budget, packed)
            check_loss(batch, whole)
    busy = [share.tokens for share in shares]
    assert max(busy) - min(busy) <= max(len(tokens_of(example)) for example in examples)
    assert (0 in busy) == (len(examples) < world_size)


def check_groups(value: tuple[list[int], int, bool]) -> None:
    lengths, budget, packed = value
    groups = split_rows(lengths, budget, packed=packed)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(groups)
    for group in groups:
        assert len(group) == 1 or cost([lengths[index] for index in group], packed) <= budget
    if packed:
        assert groups == split_by_budget(lengths, budget)
        assert groups == sorted(groups)
        assert len(groups) <= 2 * -(-sum(lengths) // budget) or max(lengths) > budget


def check_shared(value: tuple[list[list[int]], list[int]]) -> None:
    """Several completions behind one prompt: each row looks at its prompt, itself and nothing else."""
    completions, prompts = value
    groups, token = [], 0
    for number, lengths in enumerate(completions):
        prompt = list(range(token, token + prompts[number]))
        token += len(prompt)
        group = []
        for length in lengths:
            group.append(Encoded(f"q{number}", prompt, list(range(token, token + length))))
            token += length
        groups.append(group)
    batch = share_prompts(groups)
    assert batch.attention_mask is not None
    ids, mask = batch.input_ids[0].tolist(), batch.attention_mask[0, 0]
    assert len(set(ids)) == len(ids)
    alone = [example for group in groups for example in group]
    assert batch.targets.tolist() == [target for example in alone for target in example.completion]
    seen = iter(batch.rows.tolist())
    for example in alone:
        read = tokens_of(example)
        for place, _ in enumerate(example.completion):
            row = next(seen)
            wanted = read[: len(example.prompt) + place]
            assert sorted(ids[column] for column in mask[row].nonzero().flatten().tolist()) == wanted
            assert int(batch.position_ids[0, row]) == len(wanted) - 1


GROUPS = st.tuples(st.lists(st.integers(1, 90), max_size=60), st.integers(1, 200), st.booleans())
SHARED = st.integers(1, 4).flatmap(
    lambda many: st.tuples(
        st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=many, max_size=many),
        st.lists(st.integers(1, 12), min_size=many, max_size=many),
    )
)


def run_packing(inputs: int) -> None:
    fuzz(steps(), check, inputs // 2)
    fuzz(GROUPS, check_groups, inputs // 4)
    fuzz(SHARED, check_shared, inputs - inputs // 2 - inputs // 4)


def test_every_token_stands_once_nothing_crosses_and_the_processes_share_the_step() -> None:
    run_packing(240)


@pytest.mark.slow
def test_thousands_of_steps_hold_every_token_once() -> None:
    run_packing(SLOW_INPUTS["packing"])
