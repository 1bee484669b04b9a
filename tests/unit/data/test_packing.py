"""Micro-batches hold every token once, and loss is taken at the completions alone, however they are cut."""

import random
import statistics
from collections import Counter

import pytest
from hypothesis import example as also
from hypothesis import given
from hypothesis import strategies as st

from medqlora.data.batching.packing import (
    MicroBatch,
    StepBatch,
    deal,
    micro_batch,
    pack,
    pad,
    split_by_budget,
    split_rows,
    step_batch,
)
from medqlora.records import Encoded

PAD = 999
TOKENS = st.lists(st.integers(0, 500), min_size=1, max_size=12)


@st.composite
def encoded_sets(draw: st.DrawFn, least: int = 1) -> list[Encoded]:
    """Examples with at least one token of prompt; a completion may be empty (its answer isn't known)."""
    pairs = draw(st.lists(st.tuples(TOKENS, st.one_of(st.just([]), TOKENS)), min_size=least, max_size=9))
    return [Encoded(f"q{number}", prompt, completion) for number, (prompt, completion) in enumerate(pairs)]


def length(example: Encoded) -> int:
    return len(example.prompt) + len(example.completion)


def pairs_by_hand(examples: list[Encoded]) -> list[tuple[int, int, int]]:
    """(position in its example, token read there, token predicted there) of every completion token."""
    found = []
    for example in examples:
        ids = [*example.prompt, *example.completion]
        found += [(place - 1, ids[place - 1], ids[place]) for place in range(len(example.prompt), len(ids))]
    return found


def pairs_held(batch: MicroBatch) -> list[tuple[int, int, int]]:
    ids, positions = batch.input_ids.flatten(), batch.position_ids.flatten()
    return [
        (int(positions[row]), int(ids[row]), int(target))
        for row, target in zip(batch.rows, batch.targets, strict=True)
    ]


def rows_held(batch: MicroBatch) -> list[list[int]]:
    """The examples' tokens as the batch holds them, read off its own lengths."""
    lengths = batch.lengths.tolist()
    if batch.attention_mask is None:
        return [piece.tolist() for piece in batch.input_ids[0].split(lengths)]
    return [row[:count].tolist() for row, count in zip(batch.input_ids, lengths, strict=True)]


@given(encoded_sets(), st.booleans())
def test_a_micro_batch_holds_every_token_of_every_example_once_and_in_order(
    examples: list[Encoded], packed: bool
) -> None:
    batch = micro_batch(examples, packed=packed, pad_token_id=PAD)
    assert rows_held(batch) == [[*example.prompt, *example.completion] for example in examples]


@given(encoded_sets(), st.booleans())
def test_loss_is_taken_at_exactly_the_completions_tokens(examples: list[Encoded], packed: bool) -> None:
    assert pairs_held(micro_batch(examples, packed=packed, pad_token_id=PAD)) == pairs_by_hand(examples)


def test_a_completion_of_one_token_is_predicted_from_the_last_prompt_position() -> None:
    batch = pack([Encoded("a", [5, 6, 7], [8]), Encoded("b", [9], [1])])
    assert batch.rows.tolist() == [2, 4]
    assert batch.targets.tolist() == [8, 1]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1]]


@given(encoded_sets())
def test_packed_rows_hold_no_padding_and_their_positions_restart_with_every_example(
    examples: list[Encoded],
) -> None:
    batch = pack(examples)
    assert batch.attention_mask is None
    assert batch.input_ids.shape == batch.position_ids.shape == (1, sum(map(length, examples)))
    assert batch.position_ids[0].tolist() == [
        place for example in examples for place in range(length(example))
    ]


@given(encoded_sets())
def test_padding_stands_on_the_right_and_is_masked(examples: list[Encoded]) -> None:
    batch = pad(examples, PAD)
    assert batch.attention_mask is not None
    for row, example in enumerate(examples):
        mask = batch.attention_mask[row].tolist()
        assert mask == [True] * length(example) + [False] * (len(mask) - length(example))
        assert set(batch.input_ids[row, length(example) :].tolist()) <= {PAD}


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 80), st.booleans())
def test_groups_lose_nothing_and_pass_the_budget_only_with_a_single_item(
    lengths: list[int], budget: int, packed: bool
) -> None:
    groups = split_rows(lengths, budget, packed=packed)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        tokens = sum(lengths[i] for i in group) if packed else max(lengths[i] for i in group) * len(group)
        assert tokens <= budget or len(group) == 1
    assert groups == split_rows(list(lengths), budget, packed=packed)  # nothing but the arguments decides


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(60, 90))
@also([30, 60, 30], 60)
def test_packing_is_tight_no_two_groups_would_fit_into_one(lengths: list[int], budget: int) -> None:
    loads = [sum(lengths[index] for index in group) for group in split_by_budget(lengths, budget)]
    assert all(first + second > budget for place, first in enumerate(loads) for second in loads[place + 1 :])


def pairs_of_step(batch: StepBatch) -> Counter[tuple[int, int, int]]:
    return Counter(pair for micro in batch.micro_batches for pair in pairs_held(micro))


@given(encoded_sets(), st.integers(1, 60), st.booleans(), st.integers(1, 5))
def test_neither_budget_nor_layout_nor_processes_change_what_a_step_learns(
    examples: list[Encoded], budget: int, packed: bool, world_size: int
) -> None:
    shares = [
        step_batch(examples, budget, packed=packed, pad_token_id=PAD, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    held = sum((pairs_of_step(share) for share in shares), Counter[tuple[int, int, int]]())
    assert held == Counter(pairs_by_hand(examples))
    wanted = Counter((*example.prompt, *example.completion) for example in examples)
    rows = Counter(
        tuple(row) for share in shares for micro in share.micro_batches for row in rows_held(micro)
    )
    assert rows == wanted


@given(encoded_sets(), st.integers(1, 60), st.integers(1, 5))
def test_every_process_divides_by_the_whole_steps_completion_tokens(
    examples: list[Encoded], budget: int, world_size: int
) -> None:
    shares = [step_batch(examples, budget, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {share.completion_tokens for share in shares} == {
        sum(len(example.completion) for example in examples)
    }
    assert {share.ids for share in shares} == {tuple(example.id for example in examples)}
    for share in shares:
        assert share.tokens == sum(int(micro.lengths.sum()) for micro in share.micro_batches)
    loads, total = [share.tokens for share in shares], sum(map(length, examples))
    assert sum(loads) == total
    assert {share.all_tokens for share in shares} == {total}
    for share in shares:
        assert share.imbalance == pytest.approx(max(loads) / (total / world_size))


@given(encoded_sets(), st.integers(2, 5))
def test_processes_finish_together_to_within_one_example(examples: list[Encoded], world_size: int) -> None:
    loads = [step_batch(examples, 50, rank=rank, world_size=world_size).tokens for rank in range(world_size)]
    assert max(loads) - min(loads) <= max(map(length, examples))


@given(st.lists(st.integers(1, 900), max_size=12), st.integers(1, 4))
def test_no_exchange_with_the_emptiest_process_would_relieve_the_fullest(
    lengths: list[int], world_size: int
) -> None:
    shares = deal(lengths, world_size)
    assert sorted(index for share in shares for index in share) == list(range(len(lengths)))
    loads = [sum(lengths[index] for index in share) for share in shares]
    fullest, emptiest = loads.index(max(loads)), loads.index(min(loads))
    for given_away in shares[fullest]:
        for taken in [0, *(lengths[index] for index in shares[emptiest])]:
            moved = lengths[given_away] - taken
            assert abs(loads[fullest] - loads[emptiest] - 2 * moved) >= loads[fullest] - loads[emptiest]


def test_two_processes_share_steps_of_eight_questions_to_within_a_hundredth() -> None:
    generator = random.Random(0)
    uneven = []
    for _ in range(200):
        lengths = [round(generator.gauss(380, 90)) for _ in range(8)]  # PubMedQA's
        loads = [sum(lengths[index] for index in share) for share in deal(lengths, 2)]
        uneven.append(2 * max(loads) / sum(loads) - 1)
    assert statistics.mean(uneven) < 0.01


@pytest.mark.parametrize("packed", [True, False])
def test_moving_a_batch_keeps_the_lengths_on_the_host(packed: bool) -> None:
    moved = micro_batch([Encoded("a", [1, 2], [3])], packed=packed, pad_token_id=PAD).to("meta")  # type: ignore[arg-type]
    assert moved.input_ids.device.type == moved.rows.device.type == "meta"
    assert moved.lengths.device.type == "cpu"
