"""The learning rate over a run, and the optimizers by name and by class."""

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from medqlora.artifacts.checkpoint import KEY, adopt_rates
from medqlora.training.optim import build_optimizer, warmup_cosine
from medqlora.utils.run_length import total_steps


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [
        nn.Parameter(torch.randn(80, 64)),
        nn.Parameter(torch.randn(3)),
    ]  # the first is large enough for 8 bits


def named(parameters: list[nn.Parameter]) -> list[tuple[str, nn.Parameter]]:
    return [(f"layer.{number}", parameter) for number, parameter in enumerate(parameters)]


def rates(warmup_steps: int, total_steps: int, steps: int, peak: float = 2.0) -> list[float]:
    """The rate that each step is taken with."""
    optimizer = torch.optim.SGD(parameters(), lr=peak)
    scheduler = warmup_cosine(optimizer, warmup_steps=warmup_steps, total_steps=total_steps)
    taken = []
    for _ in range(steps):
        taken.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return taken


def test_the_rate_rises_in_equal_steps_to_the_peak_and_no_step_is_taken_at_zero() -> None:
    assert rates(4, 20, 5) == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])


def test_the_rate_falls_along_half_a_cosine_to_zero_and_stays_there() -> None:
    taken = rates(4, 20, 24)
    for step in range(4, 20):
        assert taken[step] == pytest.approx(1 + math.cos(math.pi * (step - 4) / 16))
    assert taken[12] == pytest.approx(1.0)  # half-way down: half the peak
    assert taken[20:] == [0.0] * 4


@pytest.mark.parametrize(("warmup", "total", "first"), [(0, 10, 2.0), (0, 1, 2.0), (1, 1, 1.0), (0, 0, 2.0)])
def test_runs_of_a_step_or_without_warm_up_take_a_real_rate(warmup: int, total: int, first: float) -> None:
    assert rates(warmup, total, 1) == pytest.approx([first])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", "AdamW"), ("adamw_8bit", "AdamW8bit"), ("paged_adamw_8bit", "PagedAdamW8bit")],
)
def test_an_optimizer_is_found_by_name_with_the_rate_and_decay_asked_for(name: str, kind: str) -> None:
    built = build_optimizer(name, named(parameters()), learning_rate=0.25, weight_decay=0.5)  # type: ignore[arg-type]
    assert type(built.inner).__name__ == kind  # type: ignore[attr-defined]
    assert [(group["lr"], group["weight_decay"]) for group in built.param_groups] == [(0.25, 0.5)]


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_its_first_step_is_adamws(name: str) -> None:
    weights = parameters()
    before = [weight.detach().clone() for weight in weights]
    built = build_optimizer(name, named(weights), learning_rate=0.1, weight_decay=0.5)  # type: ignore[arg-type]
    for weight in weights:
        assert weight.grad is not None
        weight.grad += torch.ones_like(weight)
    built.step()
    for weight, old in zip(weights, before, strict=True):
        # Adam's first step is lr * sign(gradient); the decay is decoupled: lr * decay * weight
        assert torch.allclose(weight, old * (1 - 0.1 * 0.5) - 0.1, atol=1e-4)


def test_the_8_bit_optimizer_keeps_its_state_in_8_bits() -> None:
    weights = parameters()
    built = build_optimizer("adamw_8bit", named(weights), learning_rate=0.1, weight_decay=0.0)
    for weight in weights:
        assert weight.grad is not None
        weight.grad += torch.ones_like(weight)
    built.step()
    state = built.state_dict()["state"]
    assert state["layer.0"]["state1"].dtype == torch.uint8
    assert state["layer.1"]["state1"].dtype == torch.float32  # too small for blocks to pay


def test_a_class_gets_the_one_learning_rate_and_keeps_its_own_settings() -> None:
    def factory(weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(weights, lr=9.0, momentum=0.5, weight_decay=0.125)

    built = build_optimizer(factory, named(parameters()), learning_rate=0.25, weight_decay=0.0)
    group = built.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.25, 0.5, 0.125)
    warmup_cosine(built, warmup_steps=1, total_steps=3)
    assert built.param_groups[0]["lr"] == pytest.approx(
        0.125
    )  # the schedule multiplies that rate, not the class's


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_epochs": 3}, 30),
        ({"max_epochs": 3, "max_steps": 12}, 12),
        ({"max_epochs": 3, "max_steps": 50}, 30),
        ({"max_epochs": -1, "max_steps": 7}, 7),
        ({"max_epochs": 2, "limit_train_batches": 4}, 8),
        ({"max_epochs": 2, "limit_train_batches": 99}, 20),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 10),
    ],
)
def test_the_rate_ends_where_the_first_of_the_trainers_limits_ends_the_run(
    limits: dict[str, Any], expected: int
) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **limits)
    assert total_steps(trainer, 10) == expected


def test_a_changed_rate_goes_on_from_the_same_place_of_its_schedule() -> None:
    checkpoint: dict[str, Any] = {
        KEY: {"definition": {"--model.learning_rate": 2e-4}},
        "optimizer_states": [{"param_groups": [{"lr": 5e-5, "initial_lr": 2e-4, "weight_decay": 0.0}]}],
        "lr_schedulers": [{"base_lrs": [2e-4]}],
    }
    adopt_rates(checkpoint, 1e-4, 0.0)
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert (group["lr"], group["initial_lr"]) == (pytest.approx(2.5e-5), 1e-4)
    assert checkpoint["lr_schedulers"] == [{"base_lrs": [1e-4]}]
