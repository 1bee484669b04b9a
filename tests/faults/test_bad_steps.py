"""A loss or a gradient that is no finite number reaches no weight."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import adapter_weights, options, run
from torch import nn

from medqlora.models import Decoder
from medqlora.training.step_metrics import StepMetrics, StepResult, clip_or_leave_out


@pytest.fixture
def words(tiny_bases: dict[str, Path], tmp_path: Path) -> list[str]:
    return [*options(tiny_bases["llama"], tmp_path), "--trainer.limit_val_batches=0"]


def spoil(monkeypatch: pytest.MonkeyPatch, calls: set[int], factor: float) -> None:
    """The given calls of the loss, counted from 0, are multiplied by `factor`."""
    original, count = Decoder.loss_sum, [0]

    def spoiled(self: Decoder, batch: Any) -> torch.Tensor:
        loss = original(self, batch)
        if torch.is_grad_enabled():
            count[0] += 1
            if count[0] - 1 in calls:
                return loss * factor
        return loss

    monkeypatch.setattr(Decoder, "loss_sum", spoiled)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_the_step_is_left_out_its_questions_are_named_and_the_run_goes_on(
    factor: float, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, {4}, factor)
    one_pass = ["--data.micro_batch_tokens=100000"]  # a call of the loss is a step
    cli = run("fit", [*words, *one_pass])
    assert cli.trainer.global_step == 12
    assert all(value.isfinite().all() for value in adapter_weights(cli).values())
    for state in cli.trainer.optimizers[0].state.values():
        assert all(value.isfinite().all() for value in state.values() if isinstance(value, torch.Tensor))
    said = [line for line in capsys.readouterr().out.splitlines() if "is left out" in line]
    assert len(said) == 1
    assert said[0].startswith("Step 4 is left out: its loss is ")
    assert said[0].split("its questions: ")[1].count("q") == 4

    from tensorboard_events import logged

    folder = Path(cli.trainer.log_dir)
    losses = [value for _, value in logged(folder, "train/loss")]
    assert [step for step, value in enumerate(losses) if not math.isfinite(value)] == [4]
    assert losses[-1] < losses[0]
    assert logged(folder, "train/bad_steps")[-1][1] == 1


def test_too_many_in_a_row_end_the_run_with_the_last_checkpoint_whole(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, set(range(6, 100)), math.nan)
    often = [
        "--data.micro_batch_tokens=100000",
        "--checkpoint.every_n_train_steps=1",
        "--model.max_bad_steps=3",
    ]
    with pytest.raises(FloatingPointError, match=r"of 3 steps in a row .* lower --model\.learning_rate"):
        run("fit", [*words, *often])
    folder = next((Path(words[-2].split("=")[1])).glob("lightning_logs/version_0/checkpoints"))
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert saved["global_step"] >= 6
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_finite_gradients_are_clipped_as_torch_does_it() -> None:
    generator = torch.Generator().manual_seed(0)
    for limit in (0.5, 100.0, math.inf):
        mine = [nn.Parameter(torch.zeros(7, 3)), nn.Parameter(torch.zeros(5))]
        theirs = [nn.Parameter(torch.zeros(7, 3)), nn.Parameter(torch.zeros(5))]
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        norm = clip_or_leave_out(mine, limit, torch.zeros(()))
        assert torch.equal(norm, nn.utils.clip_grad_norm_(theirs, limit))
        for one, other in zip(mine, theirs, strict=True):
            assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "gradient"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)]
)
def test_a_loss_or_a_gradient_that_is_no_finite_number_leaves_no_gradient(
    loss: float, gradient: float
) -> None:
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2))]
    weights[0].grad, weights[1].grad = torch.ones(3), torch.tensor([gradient, 1.0])
    clip_or_leave_out(weights, 1.0, torch.tensor(loss))
    assert all(bool((one.grad == 0).all()) for one in weights)  # type: ignore[union-attr]


class Log:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.told.append((step, metrics))


def result(loss: float, norm: float = 1.0, *, overflow: bool = False) -> StepResult:
    return StepResult(torch.tensor(loss), torch.tensor(norm), 0.1, ("q",), overflow)


def test_every_step_is_logged_once_with_its_own_number_and_figures() -> None:
    metrics, log = StepMetrics(), Log()
    for first in (0, 3):
        for step in range(first, first + 3):
            metrics.add(step, result(step / 2, step / 4))
        metrics.flush([log], 0, 3)
    assert metrics.flush([log], 0, 3) == {}
    assert [(step, told["train/loss"], told["train/grad_norm"]) for step, told in log.told] == [
        (step, step / 2, step / 4) for step in range(6)
    ]


def test_bad_steps_count_in_a_row_alone_and_an_overflow_that_the_scaler_met_is_none() -> None:
    metrics = StepMetrics()
    for step, loss in enumerate([math.nan, math.nan, 1.0, math.nan, math.nan, 1.0]):
        metrics.add(step, result(loss))
    for step in range(6, 12):
        metrics.add(step, result(1.0, math.inf, overflow=True))
    metrics.flush([], 6, 3)
    assert metrics.bad == 4
    for step in range(3):
        metrics.add(step, result(1.0, math.inf))
    with pytest.raises(FloatingPointError, match="of 3 steps in a row"):
        metrics.flush([], 0, 3)
