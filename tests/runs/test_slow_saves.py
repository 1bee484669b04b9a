"""What a run says and reads of its checkpoints is true while they are written in the background.

Here the writes are slow, or fail, at chosen steps; tests/faults kills runs in the middle of them.
"""

import errno
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import options, questions, run, write_rows
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from medqlora.artifacts.adapter_folder import AdapterContents, write_adapter
from medqlora.artifacts.checkpoint_files import (
    read_checkpoint,
    remove_checkpoint,
    step_of,
    write_checkpoint,
)
from medqlora.artifacts.run_folder import RunFolder
from medqlora.callbacks import adapter_checkpoint, checkpoint_io, saver_of
from medqlora.callbacks.adapter_contents import saver_states
from medqlora.cli import main
from medqlora.commands.given_checkpoint import best_checkpoint
from medqlora.utils.files import disk_full
from medqlora.utils.interrupts import Interrupted


def words(base: Path, folder: Path, *more: str) -> list[str]:
    """Two epochs of three steps."""
    return [
        *options(base, folder, train=12, dev=3, test=0),
        "--model.generate=false",
        "--checkpoint.monitor=val/loss",
        "--checkpoint.mode=min",
        *more,
    ]


class Slow:
    """Writes that take a while; each may fail.

    Args:
        fails: errno of the error of a write to (file name, step), 0 for none.
    """

    def __init__(self, patch: pytest.MonkeyPatch, fails: Callable[[str, int], int] = lambda *_: 0) -> None:
        self.failed: list[tuple[str, int]] = []

        def write(checkpoint: Any, path: Path) -> None:
            time.sleep(0.15)
            if number := fails(path.name, checkpoint["global_step"]):
                self.failed.append((path.name, checkpoint["global_step"]))
                raise OSError(number, os.strerror(number), str(path))
            write_checkpoint(checkpoint, path)

        patch.setattr(checkpoint_io, "write_checkpoint", write)


def test_the_average_waits_for_the_best_checkpoint(
    tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Slow(monkeypatch)
    fit = run("fit", words(tiny_bases["llama"], tmp_path, "--average.count=2"))
    assert step_of(Path(saver_of(fit.trainer).best_model_path)) == 6  # the last one written
    assert (fit.adapter_folder.parent / "adapter_averaged" / "adapter_model.safetensors").is_file()


def test_a_users_callback_finds_the_best_checkpoint_at_the_trainings_end(
    tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Slow(monkeypatch)
    Reads.steps.clear()
    run("fit", words(tiny_bases["llama"], tmp_path, f"--trainer.callbacks={__name__}.Reads"))
    assert Reads.steps == [6, 6]


class Reads(Callback):
    """Reads the best and the newest checkpoint."""

    steps: list[int] = []  # noqa: RUF012  # of the run just now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        saver = saver_of(trainer)
        for path in (saver.best_model_path, saver.last_model_path):
            self.steps.append(read_checkpoint(Path(path))["global_step"])


def test_a_logger_that_takes_checkpoints_away_finds_them_written(
    tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Slow(monkeypatch)
    Uploads.steps.clear()
    logger = [f"--trainer.logger={__name__}.Uploads", f"--trainer.logger.save_dir={tmp_path}"]
    run("fit", words(tiny_bases["llama"], tmp_path, *logger))
    assert Uploads.steps == [3, 6]


class Uploads(CSVLogger):
    """A logger that copies each best checkpoint, as those of Weights & Biases and MLflow do."""

    steps: list[int | None] = []  # noqa: RUF012  # of the run just now

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        self.steps.append(step_of(Path(checkpoint_callback.best_model_path)))


# ---- writes that fail ----------------------------------------------------------------------------


def test_a_last_save_that_finds_no_room_is_tried_again_at_the_end(
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tries: list[str] = []

    def fails(name: str, step: int) -> int:
        tries.extend([name] * (step == 6))
        return errno.ENOSPC if len(tries) == 2 else 0

    Slow(monkeypatch, fails)
    run("fit", words(tiny_bases["llama"], tmp_path, "--checkpoint.save_top_k=0"))
    assert tries == ["last.ckpt"] * 3  # before its validation, after it, and again
    assert "that of step 6 is kept" in capsys.readouterr().out


def test_a_step_that_is_said_to_be_kept_is_on_the_disk(
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From step 4 on there is no room: for checkpoints every step, for that of the signal, and for the best."""
    Slow(monkeypatch, lambda name, step: step >= 4 and errno.ENOSPC)
    more = ["--checkpoint.every_n_train_steps=2", f"--trainer.callbacks={__name__}.Signalled"]
    with pytest.raises(Interrupted) as stopped:
        run("fit", words(tiny_bases["llama"], tmp_path, *more))
    assert stopped.value.step == 3
    (last,) = tmp_path.rglob("last.ckpt")
    assert read_checkpoint(last)["global_step"] == 3
    shown = capsys.readouterr().out
    assert shown.count("that of step 3 is kept") == shown.count("No room") == 2


class Signalled(Callback):
    """A SIGTERM in the step after `step`."""

    def __init__(self, step: int = 4) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


def test_a_best_checkpoint_without_room_leaves_the_older_one_the_best(
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No room at all at the last step, whose checkpoint is first saved after the validation."""
    slow = Slow(monkeypatch, lambda name, step: step == 6 and errno.ENOSPC)
    fit = run("fit", words(tiny_bases["llama"], tmp_path, "--trainer.max_steps=6"))
    saver = saver_of(fit.trainer)
    assert {name for name, _ in slow.failed} == {"last.ckpt", "epoch1-step6.ckpt"}
    assert step_of(Path(saver.best_model_path)) == saver.newest_step == 3
    assert step_of(Path(saver.last_model_path)) == 3
    assert list(saver._losses) == [saver.best_model_path]
    assert fit.adapter_folder.is_dir()
    shown = capsys.readouterr().out
    assert shown.count("that of step 3 is kept") == shown.count("No room") > 0
    assert "step6" not in shown
    assert "The checkpoint of step 6 found no room, and the best one is the best of those before it" in shown
    assert f"go on with --ckpt_path {saver.last_model_path}" in shown


def test_a_fit_without_room_for_its_end_is_not_finished_and_goes_on(
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The only checkpoint is the one before the first validation: its weights are not those of the fit's end."""
    more = ["--average.count=2"]
    with monkeypatch.context() as patch:
        Slow(patch, lambda name, step: (step > 3 or name != "last.ckpt") and errno.ENOSPC)
        assert main(["fit", *words(tiny_bases["llama"], tmp_path, *more)]) == 1
    ended = capsys.readouterr()
    assert "no checkpoint of step 6 found room on the disk, and there is no adapter" in ended.err
    assert "the checkpoint of step 3 is whole" in ended.err
    left = RunFolder(tmp_path / "lightning_logs" / "version_0")
    assert not left.adapter.exists()
    assert left.read_record()["state"] == "failed"
    resumed = run("fit", words(tiny_bases["llama"], tmp_path, *more, "--ckpt_path=last"))
    assert resumed.adapter_folder == left.adapter
    assert step_of(Path(saver_of(resumed.trainer).best_model_path)) == 6
    assert (left.path / "adapter_averaged").is_dir()


@pytest.mark.parametrize("end", ["killed", "signalled"])
def test_the_newest_checkpoint_names_no_best_one_that_found_no_room(
    tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """The run ends behind a validation whose best checkpoint found no room, and goes on with what is on the disk."""
    slow = Slow(monkeypatch, lambda name, step: name == "epoch1-step6.ckpt" and errno.ENOSPC)
    if end == "killed":
        more = [f"--trainer.callbacks={__name__}.Copied", f"--trainer.callbacks.folder={tmp_path / 'killed'}"]
        run("fit", words(tiny_bases["llama"], tmp_path, *more))
    else:
        more = ["--trainer.max_epochs=3", f"--trainer.callbacks={__name__}.Signalled"]
        with pytest.raises(Interrupted):
            run("fit", words(tiny_bases["llama"], tmp_path, *more, "--trainer.callbacks.step=6"))
    assert slow.failed == [("epoch1-step6.ckpt", 6)]
    left = tmp_path / ("killed" if end == "killed" else "lightning_logs") / "version_0"
    last = left / "checkpoints" / "last.ckpt"
    (state,) = saver_states(read_checkpoint(last)).values()
    assert (last.parent / Path(str(state["best_model_path"])).name).is_file()

    Slow(monkeypatch)  # there is room again
    epochs = "--trainer.max_epochs=2" if end == "killed" else "--trainer.max_epochs=3"
    resumed = run("fit", words(tiny_bases["llama"], tmp_path, epochs, f"--ckpt_path={last}"))
    assert resumed.adapter_folder == left / "adapter"
    record = json.loads((left / "adapter" / "medqlora.json").read_text())
    assert record["training"]["step"] == step_of(Path(saver_of(resumed.trainer).best_model_path))
    assert record["training"]["step"] == resumed.trainer.global_step  # the loss falls
    assert record["chosen_by"] == {"score": "val/loss", "value": record["scores"]["val/loss"]}


class Copied(Callback):
    """Copies the run's folder before the second epoch's end as a kill there would leave it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            trainer.strategy.checkpoint_io.settle()  # type: ignore[attr-defined]
            run_folder = Path(str(trainer.log_dir))
            shutil.copytree(run_folder, Path(self.folder) / run_folder.name)


@pytest.mark.parametrize(
    ("adapter", "damage"), [("stands", "removed"), ("is gone", "removed"), ("stands", "cut off")]
)
def test_a_best_checkpoint_that_was_removed_or_damaged_is_named_and_nothing_claims_its_score(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], adapter: str, damage: str
) -> None:
    """The first validation is the best, and no other one follows once the run goes on."""
    best = "--checkpoint.mode=max"
    fit = run("fit", words(tiny_bases["llama"], tmp_path, best))
    folder = fit.adapter_folder
    file = Path(saver_of(fit.trainer).best_model_path)
    if damage == "removed":
        remove_checkpoint(file)
    else:
        os.truncate(file, 1000)
    why = "it is not there" if damage == "removed" else "it has 1,000 bytes"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if adapter == "is gone":
        shutil.rmtree(folder)
    capsys.readouterr()
    last = folder.parent / "checkpoints" / "last.ckpt"
    assert best_checkpoint(RunFolder(folder.parent)) == last
    said = capsys.readouterr().out
    assert f"epoch0-step3.ckpt, can't be taken ({why}" in said
    assert "the newest one, last.ckpt" in said
    resumed = run("fit", words(tiny_bases["llama"], tmp_path, best, f"--ckpt_path={last}"))
    shown = capsys.readouterr().out
    assert f"epoch0-step3.ckpt, the best checkpoint so far, can't be taken ({why}" in shown
    assert "Best" not in shown
    assert resumed.adapter_folder == folder
    assert f"Adapter: {folder}" in shown
    if adapter == "stands":
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    else:
        record = json.loads((folder / "medqlora.json").read_text())
        assert record["training"]["step"] == 6
        assert record["chosen_by"] == {"score": None, "value": None}


def test_an_adapter_that_found_no_room_is_not_named_as_there(
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(contents: object, folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    test = write_rows(tmp_path / "test.jsonl", questions(3, 2000))
    with monkeypatch.context() as patch:
        patch.setattr(adapter_checkpoint, "write_adapter", full)
        # `full` tests no folder "None"
        for command in (["fit"], ["full", f"--data.source.test={test}"]):
            assert main([*command, *words(tiny_bases["llama"], tmp_path)]) == 1
            ended = capsys.readouterr()
            assert "No room for the adapter" in ended.out
            assert "the adapter found no room on the disk" in ended.err
            assert "Adapter:" not in ended.out
            assert "Evaluating" not in ended.out
    fit = run("fit", words(tiny_bases["llama"], tmp_path, "--ckpt_path=last"))  # whose steps are all done
    assert fit.adapter_folder == tmp_path / "lightning_logs" / "version_1" / "adapter"
    assert fit.adapter_folder.is_dir()


def test_an_error_in_training_is_not_hidden_by_a_write_that_fails(
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Slow(monkeypatch, lambda name, step: step == 4 and errno.EACCES)
    more = ["--checkpoint.every_n_train_steps=1", f"--trainer.callbacks={__name__}.Breaks"]
    assert main(["fit", *words(tiny_bases["llama"], tmp_path, *more)]) == 1
    shown = capsys.readouterr()
    assert "the fan is broken" in shown.err
    assert "step 3" in shown.err
    assert "Permission denied" in shown.out + shown.err


class Breaks(Callback):
    """An error in step 5."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if trainer.global_step == 4:
            raise RuntimeError("the fan is broken")


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
def test_any_file_of_the_adapter_may_be_the_one_without_room(
    tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries in Rust write the weights and the tokenizer, and raise errors of their own."""
    import resource

    contents: list[AdapterContents] = []

    def kept(made: AdapterContents, folder: Path) -> None:
        contents.append(made)
        write_adapter(made, folder)

    monkeypatch.setattr(adapter_checkpoint, "write_adapter", kept)
    fit = run("fit", words(tiny_bases["llama"], tmp_path, "--trainer.max_steps=1"))
    sizes = {path.name: path.stat().st_size for path in fit.adapter_folder.iterdir()}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in sorted(set(sizes.values())):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
            with pytest.raises(OSError, match="File too large") as error:
                write_adapter(contents[0], tmp_path / "other" / "adapter")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert disk_full(error.value)
        assert list((tmp_path / "other").iterdir()) == []
