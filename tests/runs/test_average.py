"""The average of several validations' adapters: its weights, its scores, and a resume that keeps it."""

import json
from pathlib import Path

import pytest
import torch
from harness import options, run
from interruptions import InterruptionError, StopAt
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file

from medqlora.artifacts.checkpoint_files import remove_checkpoint
from medqlora.callbacks import saver_of
from medqlora.cli import main


def words(base: Path, folder: Path, of: str = "last") -> list[str]:
    folder.mkdir(exist_ok=True)
    return [
        *options(base, folder, train=12, dev=6, test=3),
        "--trainer.max_epochs=3",
        "--model.lr_scheduler=constant",
        "--model.generate=false",
        "--checkpoint.save_top_k=-1",
        "--average.count=2",
        f"--average.of={of}",
    ]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_the_average_is_the_mean_of_the_validated_weights_and_is_validated_itself(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    given = words(tiny_bases["llama"], tmp_path / "whole")
    fit = run("fit", given)
    root = fit.adapter_folder.parent
    saved = [
        torch.load(file, weights_only=True)["state_dict"]
        for file in sorted((root / "checkpoints").glob("epoch*.ckpt"))[-2:]
    ]
    averaged = adapter(root / "adapter_averaged")
    assert len(averaged) == len(saved[0])
    for name, value in averaged.items():
        (key,) = [key for key in saved[0] if key.replace(".default.", ".").endswith(name)]
        assert torch.allclose(value, (saved[0][key] + saved[1][key]) / 2, atol=1e-7)
    record = json.loads((root / "adapter_averaged" / "medqlora.json").read_text("utf-8"))
    assert "average of the last 2 adapters (steps 6, 9)" in record["chosen_by"]["score"]
    # the scores are those of a validation of the folder itself
    checked = run("validate", [*given, f"--model.adapter={root / 'adapter_averaged'}"])
    assert record["scores"]["val/loss"] == pytest.approx(
        float(checked.trainer.callback_metrics["val/loss"]), rel=1e-5
    )
    # a run that is interrupted between two of the validations averages the same weights
    other = words(tiny_bases["llama"], tmp_path / "stopped")
    from medqlora.commands.run import Run

    stopped = Run(["fit", *other])
    stopped.build()
    stopped.start()
    stopped.trainer.callbacks.append(StopAt(7))  # type: ignore[attr-defined]
    with pytest.raises(InterruptionError):
        stopped.perform()
    again = run("fit", [*other, "--ckpt_path=last"])
    resumed = adapter(again.adapter_folder.parent / "adapter_averaged")
    assert all(torch.equal(averaged[name], resumed[name]) for name in averaged)


class Removes(Callback):
    """Removes the best checkpoint at the training's end."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        remove_checkpoint(Path(saver_of(trainer).best_model_path))


def test_the_average_is_of_the_best_by_the_runs_mode_and_made_without_the_best_checkpoint(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    """The loss falls, so with `max` the first two validations are the best."""
    more = [
        "--checkpoint.monitor=val/loss",
        "--checkpoint.mode=max",
        f"--trainer.callbacks={__name__}.Removes",
    ]
    fit = run("fit", [*words(tiny_bases["llama"], tmp_path / "max", "best"), *more])
    record = json.loads((fit.adapter_folder.parent / "adapter_averaged" / "medqlora.json").read_text("utf-8"))
    assert "average of the best 2 adapters (steps 3, 6)" in record["chosen_by"]["score"]


def test_a_count_that_averages_nothing_is_told(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *words(tiny_bases["llama"], tmp_path / "one"), "--average.count=1"]) == 2
    assert "--average.count 1: give 0 for none, or at least 2" in capsys.readouterr().err
