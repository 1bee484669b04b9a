"""The order of an epoch depends on (seed, epoch) alone, and an interrupted run draws on where it stopped."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medqlora.data.batching.loader import EvalLoader, StepLoader, epoch_order
from medqlora.data.batching.packing import StepBatch
from medqlora.records import Encoded


def examples(count: int) -> list[Encoded]:
    return [Encoded(f"q{n}", [n % 7 + 1] * (n % 5 + 1), [n % 11] * (n % 3 + 1)) for n in range(count)]


def loader(count: int = 10, batch_size: int = 3, **options: Any) -> StepLoader:
    return StepLoader(examples(count), batch_size, 16, **options)


class Trainer:
    """Counts epochs as Lightning's does, and saves where the loader stands after every step."""

    def __init__(self, batches: StepLoader, epoch: int = 0) -> None:
        self.batches = batches
        self.epoch = epoch
        batches.current_epoch = lambda: self.epoch
        self.seen: list[StepBatch] = []
        self.saved: list[tuple[int, dict[str, int]]] = []

    def run(self, epochs: int) -> "Trainer":
        while self.epoch < epochs:
            for batch in self.batches:
                self.seen.append(batch)
                self.saved.append((self.epoch, self.batches.state_dict()))
            self.epoch += 1
        return self


def plain(batches: Sequence[StepBatch]) -> list[Any]:
    """All that the batches hold, as values that compare."""
    return [
        (
            batch.ids,
            batch.completion_tokens,
            [[t.tolist() if isinstance(t, Tensor) else t for t in m] for m in batch.micro_batches],
        )
        for batch in batches
    ]


def test_an_epochs_order_is_a_function_of_seed_and_epoch_alone() -> None:
    first, again, other = loader(seed=1), loader(seed=1, batch_size=4), loader(seed=2)
    assert [first.order(epoch) for epoch in range(4)] == [again.order(epoch) for epoch in range(4)]
    assert len({tuple(each.order(epoch)) for each in (first, other) for epoch in range(4)}) == 8
    list(first)  # having drawn changes nothing
    assert first.order(0) == again.order(0)


def test_an_unshuffled_loader_keeps_the_examples_order() -> None:
    drawn = [id for batch in loader(shuffle=False) for id in batch.ids]
    assert drawn == [example.id for example in examples(10)]


@given(st.integers(1, 25), st.integers(1, 9))
def test_an_epoch_draws_every_example_once_the_last_step_holding_what_is_left(
    count: int, batch_size: int
) -> None:
    batches = list(loader(count, batch_size))
    assert len(batches) == len(loader(count, batch_size))
    assert sorted(id for batch in batches for id in batch.ids) == sorted(
        example.id for example in examples(count)
    )
    assert [len(batch.ids) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches[-1].ids) == count - batch_size * (len(batches) - 1)


def test_iterations_without_a_trainer_are_successive_epochs() -> None:
    batches = loader(seed=3)
    drawn = [[id for batch in batches for id in batch.ids] for _ in range(3)]
    assert drawn == [[f"q{index}" for index in batches.order(epoch)] for epoch in range(3)]


@pytest.mark.parametrize("stop", range(12))
def test_a_run_resumed_after_any_step_draws_what_an_uninterrupted_one_would(stop: int) -> None:
    whole = Trainer(loader(seed=5)).run(3)
    epoch, state = whole.saved[stop]
    resumed = loader(seed=5)
    resumed.load_state_dict(state)
    rest = Trainer(resumed, epoch).run(3)
    assert plain(whole.seen[: stop + 1] + rest.seen) == plain(whole.seen)


def test_a_state_from_an_epochs_end_starts_the_next_epoch_at_its_first_step() -> None:
    whole = Trainer(loader(seed=5)).run(3)
    steps = len(whole.batches)
    resumed = loader(seed=5)
    resumed.load_state_dict(whole.saved[steps - 1][1])  # Lightning counts the epoch as done before it saves
    assert plain(Trainer(resumed, epoch=1).run(3).seen) == plain(whole.seen[steps:])


@pytest.mark.parametrize("stop", [-1, 0, 1, 3, 4])
def test_a_resume_without_a_trainer_goes_on_too(stop: int) -> None:
    straight = loader(seed=5)
    whole = [batch for _ in range(2) for batch in straight]
    source = loader(seed=5)
    drawing = (batch for _ in range(2) for batch in source)
    for _ in range(stop + 1):
        next(drawing)
    resumed = loader(seed=5)
    resumed.load_state_dict(source.state_dict())
    rest: list[StepBatch] = []
    while len(rest) < len(whole) - stop - 1:
        rest += resumed
    assert plain(rest) == plain(whole[stop + 1 :])


def test_a_state_does_not_outlive_the_iteration_that_it_resumes() -> None:
    batches = loader(seed=5)
    batches.load_state_dict({"epoch": 0, "next": 2})
    trainer = Trainer(batches).run(2)
    assert plain(trainer.seen) == plain(Trainer(loader(seed=5)).run(2).seen[2:])


@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 4))
def test_processes_share_every_step_and_agree_on_it(count: int, batch_size: int, world_size: int) -> None:
    per_rank = [
        list(loader(count, batch_size, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    for shares in zip(*per_rank, strict=True):
        assert len({share.ids for share in shares}) == 1
        held = sum(len(micro.lengths) for share in shares for micro in share.micro_batches)
        assert held == len(shares[0].ids)


@given(st.integers(0, 25), st.integers(1, 60), st.integers(1, 4), st.booleans())
def test_evaluation_asks_every_question_once_over_all_processes(
    count: int, tokens: int, world_size: int, in_order: bool
) -> None:
    loaders = [
        EvalLoader(examples(count), tokens, in_order=in_order, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    asked = [example.id for each in loaders for batch in each for example in batch.examples]
    assert sorted(asked) == sorted(example.id for example in examples(count))
    assert [len(each) for each in loaders] == [len(list(each)) for each in loaders]
    assert not count or all(map(len, loaders))  # one that had nothing to do would not meet the others


def test_evaluation_begins_with_the_longest_question() -> None:
    lengths = [len(e.prompt) for batch in EvalLoader(examples(20), 50) for e in batch.examples]
    assert lengths == sorted(lengths, reverse=True)


def test_answers_that_are_written_as_they_come_keep_the_order() -> None:
    data = examples(20)
    assert [e.id for batch in EvalLoader(data, 50, in_order=True) for e in batch.examples] == [
        e.id for e in data
    ]


@pytest.mark.parametrize("in_order", [False, True])
def test_evaluation_groups_stay_within_the_tokens_but_for_a_prompt_that_is_longer_by_itself(
    in_order: bool,
) -> None:
    for tokens in (1, 20, 50, 10_000):
        for batch in EvalLoader(examples(30), tokens, in_order=in_order):
            total = sum(len(example.prompt) for example in batch.examples)
            assert len(batch.examples) == 1 or total <= tokens


def test_the_order_of_an_epoch_is_pinned_for_the_planner_and_for_resumed_runs() -> None:
    assert epoch_order(8, 0, 0) == loader(8).order(0) == [0, 2, 1, 4, 6, 7, 3, 5]
    assert epoch_order(8, 0, 1) != epoch_order(8, 0, 0) != epoch_order(8, 1, 0)
    assert epoch_order(0, 3, 1) == []
