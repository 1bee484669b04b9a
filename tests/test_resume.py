"""A run that was interrupted and resumed ends as one that never was."""

import json
from pathlib import Path

import pytest
import torch
from harness import adapter_weights, options, run

from medqlora.errors import InputError


@pytest.mark.parametrize(
    "stop", [3, 6, 7, 11]
)  # mid-epoch, at an epoch's end, just after it, in the last epoch
def test_weights_optimizer_and_curve_are_bit_for_bit_those_of_an_uninterrupted_run(
    tiny_bases: dict[str, Path], tmp_path: Path, stop: int
) -> None:
    from test_training import logged

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    extra = ["--model.lora.dropout=0.1", "--checkpoint.every_n_train_steps=1"]
    straight = run("fit", [*options(tiny_bases["llama"], whole), *extra])
    words = [*options(tiny_bases["llama"], parts), *extra]
    with pytest.raises(InterruptionError):
        run("fit", [*words, "--trainer.callbacks=test_resume.StopAt", f"--trainer.callbacks.step={stop}"])
    folder = parts / "lightning_logs" / "version_0"
    last = folder / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == stop
    resumed = run("fit", [*words, f"--ckpt_path={last}"])
    assert resumed.trainer.global_step == straight.trainer.global_step == 12
    for name, value in adapter_weights(straight).items():
        assert torch.equal(adapter_weights(resumed)[name], value), name
    a, b = (cli.trainer.optimizers[0].state_dict()["state"] for cli in (straight, resumed))
    assert same(a, b)
    assert Path(resumed.trainer.log_dir) == folder
    for name in ("train/loss", "train/learning_rate"):
        assert logged(Path(resumed.trainer.log_dir), name) == logged(Path(straight.trainer.log_dir), name)


def test_the_best_adapter_keeps_its_own_scores_and_calibration_when_later_ones_are_worse(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    # the loss falls, and the highest is asked for: the first validation stays the best
    best = ["--checkpoint.monitor=val/loss", "--checkpoint.mode=max", "--checkpoint.every_n_train_steps=1"]
    words = [*options(tiny_bases["llama"], tmp_path), *best]
    with pytest.raises(InterruptionError):
        run("fit", [*words, "--trainer.callbacks=test_resume.StopAt", "--trainer.callbacks.step=8"])
    folder = tmp_path / "lightning_logs" / "version_0"
    record = folder / "adapter" / "medqlora.json"
    before = json.loads(record.read_text())
    resumed = run("fit", [*words, f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}"])
    assert float(resumed.trainer.callback_metrics["val/loss"]) < before["scores"]["val/loss"]
    after = json.loads(record.read_text())
    for name in ("scores", "calibration", "chosen_by"):
        assert after[name] == before[name], name
    assert after["training"]["step"] == before["training"]["step"] == 6


def test_a_checkpoint_holds_the_adapter_and_not_the_base(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    cli = run("fit", [*options(tiny_bases["llama"], tmp_path), "--trainer.max_steps=2"])
    file = Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)  # no pickle is needed to read it
    assert checkpoint["state_dict"].keys() == {f"model.{name}" for name in adapter_weights(cli)}


def test_a_checkpoint_of_another_base_or_shape_is_refused(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    cli = run("fit", [*words, "--trainer.max_steps=1"])
    last = Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"
    with pytest.raises(InputError, match="trained on the base"):
        run("fit", [*words, f"--model.backend.base={tiny_bases['mistral']}", f"--ckpt_path={last}"])
    with pytest.raises(InputError, match=r"lora\.r is 8, but the checkpoint was trained with 4"):
        run("fit", [*words, "--model.lora.r=8", f"--ckpt_path={last}"])


def same(a: object, b: object) -> bool:
    """Whether nested values are equal, tensors to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


class InterruptionError(Exception):
    """Stands for whatever ends a process."""


def _stop_at() -> type:
    from lightning.pytorch import Callback, LightningModule, Trainer

    class StopAt(Callback):
        """Ends the run before the step after `step`."""

        def __init__(self, step: int) -> None:
            self.step = step

        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            if trainer.global_step >= self.step:
                raise InterruptionError

    StopAt.__module__, StopAt.__qualname__ = __name__, "StopAt"
    return StopAt


StopAt = _stop_at()
