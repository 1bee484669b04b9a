"""What the first questions of an evaluation say of the time for all of them."""

from array import array
from types import SimpleNamespace
from typing import Any, cast

import pytest

from medqlora.callbacks import progress
from medqlora.callbacks.progress import AskedQuestions
from medqlora.compat.lightning import validations_left
from medqlora.data.batching.loader import EvalBatch
from medqlora.records import Encoded


def group(count: int, tokens: int) -> EvalBatch:
    return EvalBatch(tuple(Encoded(f"q{n}", array("i", [1] * tokens), array("i"), ()) for n in range(count)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    # of this module alone: an event loop in another thread would sleep by the false clock for ever
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_the_first_group_gives_an_estimate_for_all_by_tokens_and_the_others_none(clock: list[float]) -> None:
    batches = [group(4, 100), group(8, 50), group(16, 25)]  # the longest come first, of equal work
    asked = AskedQuestions("test", batches, says=True)
    clock[0] = 15.0
    asked.within(2)
    assert (asked.done, asked.share) == (2, pytest.approx(1 / 6))
    clock[0] = 30.0
    line = asked.group_ended(batches[0])
    assert line == "Test: about 1 min 30 s for 28 questions (the first 4 took 30 s)"
    assert asked.group_ended(batches[1]) is None
    assert asked.share == pytest.approx(2 / 3)
    assert asked.group_ended(batches[2]) is None
    assert (asked.done, asked.share) == (28, 1.0)


@pytest.mark.parametrize(("seconds", "says"), [(10.0, True), (300.0, False)])
def test_a_short_evaluation_and_later_validations_say_nothing(
    clock: list[float], seconds: float, says: bool
) -> None:
    batches = [group(4, 10), group(4, 10)]
    asked = AskedQuestions("validate", batches, says=says)
    clock[0] = seconds
    assert asked.group_ended(batches[0]) is None


@pytest.mark.parametrize(
    ("every", "epochs", "limit", "left"),
    [
        (10, 1, 1.0, 4),  # once an epoch of 10 steps
        (5, 1, 1.0, 8),  # twice
        (10, 2, 1.0, 2),  # after every second epoch
        (float("inf"), 1, 1.0, 4),
        (8, None, 1.0, 5),  # over epochs
        (10, 1, 0, 0),
    ],
)
def test_the_validations_that_are_left_are_counted_as_lightning_counts_them(
    every: float, epochs: int | None, limit: float, left: int
) -> None:
    trainer = SimpleNamespace(
        val_check_batch=every,
        check_val_every_n_epoch=epochs,
        num_training_batches=10,
        limit_val_batches=limit,
    )
    assert validations_left(cast(Any, trainer), 40) == left
