"""The learning rate's schedules by name and by class."""

from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, StepLR

from medqlora.artifacts.checkpoint import CheckpointRecord, check_definition
from medqlora.errors import InputError
from medqlora.training.optim import build_scheduler, check_scheduler

STEPS, WARMUP = 10, 3
THEIRS: dict[str, Callable[[Optimizer], LRScheduler]] = {
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, T_max=STEPS),
    "linear": lambda optimizer: LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=STEPS),
    "constant": lambda optimizer: ConstantLR(optimizer, factor=1.0),
}


def optimizer() -> Optimizer:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)


def rates(make: Callable[[Optimizer], LRScheduler], steps: int = STEPS) -> list[float]:
    built = optimizer()
    scheduler, found = make(built), []
    for _ in range(steps):
        found.append(float(built.param_groups[0]["lr"]))
        built.step()
        scheduler.step()
    return found


def ours(name: str, warmup: int, total: int = STEPS) -> Callable[[Optimizer], LRScheduler]:
    return lambda made: build_scheduler(name, made, warmup_steps=warmup, total_steps=total)


@pytest.mark.parametrize("name", THEIRS)
def test_without_a_warm_up_each_is_torchs(name: str) -> None:
    assert rates(ours(name, 0)) == pytest.approx(rates(THEIRS[name]))


@pytest.mark.parametrize("name", THEIRS)
def test_the_rate_rises_over_the_warm_up_and_then_follows_the_schedule(name: str) -> None:
    found = rates(ours(name, WARMUP, STEPS + WARMUP), STEPS + WARMUP)
    assert found[:WARMUP] == pytest.approx([0.5 * (step + 1) / (WARMUP + 1) for step in range(WARMUP)])
    assert found[WARMUP:] == pytest.approx(rates(THEIRS[name]))


def test_a_class_decides_everything_by_itself() -> None:
    halving = rates(
        lambda made: build_scheduler(lambda o: StepLR(o, 2, 0.5), made, warmup_steps=5, total_steps=9), 5
    )
    assert halving == pytest.approx([0.5, 0.5, 0.25, 0.25, 0.125])


def test_a_name_that_none_has_and_a_class_that_follows_a_score_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"--model.lr_scheduler linaer: choose one of cosine, linear, constant"
    ):
        check_scheduler("linaer")
    with pytest.raises(InputError, match=r"ReduceLROnPlateau: it follows a score"):
        build_scheduler(
            torch.optim.lr_scheduler.ReduceLROnPlateau,  # type: ignore[arg-type]  # a user may pass it
            optimizer(),
            warmup_steps=0,
            total_steps=1,
        )


def test_a_run_goes_on_with_its_own_schedule_and_an_older_checkpoint_s_is_the_cosine() -> None:
    older: CheckpointRecord = {"definition": {"--model.learning_rate": 1.0}}
    now = {"--model.learning_rate": 1.0, "--model.lr_scheduler": "cosine"}
    assert check_definition(older, now, anyway=False) == []
    with pytest.raises(InputError, match=r"--model.lr_scheduler linear \(the checkpoint: cosine\)"):
        check_definition(older, {**now, "--model.lr_scheduler": "linear"}, anyway=False)
