"""A report's training curves are what the run logged; a damaged file costs curves, not the report."""

from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from medqlora.artifacts.curve import read_curves


@pytest.fixture
def run(tmp_path: Path) -> Path:
    writer = SummaryWriter(str(tmp_path / "run"))
    for step in range(200):
        writer.add_scalar("train/loss", 0.5 * step, step)
        writer.add_scalar("train/grad_norm", 1.0, step)
    writer.add_scalar("val/accuracy", 0.25, 199)
    writer.add_scalar("val/loss", float("nan"), 199)
    writer.close()
    return tmp_path / "run"


def test_the_loss_and_the_validations_scores_are_read_and_nothing_else(run: Path) -> None:
    curves = read_curves(run)
    assert curves["train/loss"] == [(step, 0.5 * step) for step in range(200)]
    assert curves["val/accuracy"] == [(199, 0.25)]
    assert curves["val/loss"] == []  # a figure can't show what is no number
    assert "train/grad_norm" not in curves


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "missing"])
def test_a_damaged_file_gives_the_points_before_the_damage(run: Path, damage: str) -> None:
    [file] = run.glob("events*")
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(
        {"cut": content[:half], "changed": content[:half] + b"\xff" * 99 + content[half + 99 :]}.get(
            damage, b""
        )
    )
    if damage == "missing":
        file.unlink()
    curve = read_curves(run).get("train/loss", [])
    assert curve == [(step, 0.5 * step) for step in range(len(curve))]
    assert (0 < len(curve) < 200) == (damage in ("cut", "changed"))
