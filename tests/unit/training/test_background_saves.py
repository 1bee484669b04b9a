"""Checkpoints that are written while the run goes on."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from medqlora.artifacts.checkpoint_files import problem, step_of, write_checkpoint
from medqlora.callbacks import CheckpointFiles, checkpoint_io


def state(step: int) -> dict[str, Any]:
    return {"global_step": step, "epoch": 0, "weights": torch.full((64,), float(step))}


def test_a_save_in_the_background_holds_the_state_of_its_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on at once, and what it changes is not in the file; the file is that of a save that waits."""
    flat, states = torch.arange(6.0), OrderedDict(step=torch.tensor(3.0))
    held: dict[str, Any] = {
        "state_dict": {"a": flat[:2], "b": flat[2:]},
        "optimizer_states": [states],
        "global_step": 1,
    }
    files = CheckpointFiles()
    files.save_checkpoint(held, tmp_path / "waits.ckpt")
    may_write = threading.Event()

    def late(checkpoint: Any, path: Path) -> None:
        may_write.wait(30)
        write_checkpoint(checkpoint, path)

    monkeypatch.setattr(checkpoint_io, "write_checkpoint", late)
    with files.behind():
        files.save_checkpoint(held, tmp_path / "behind.ckpt")
    flat.zero_()
    states["step"] += 1
    states["later"] = flat
    assert not (tmp_path / "behind.ckpt").exists()
    may_write.set()
    found: Any = files.load_checkpoint(tmp_path / "behind.ckpt")  # waits for the save
    assert (tmp_path / "behind.ckpt").read_bytes().count(b"later") == 0
    assert dict(found["optimizer_states"][0]) == {"step": torch.tensor(3.0)}
    assert torch.equal(found["state_dict"]["a"], torch.tensor([0.0, 1.0]))
    assert found["state_dict"]["a"].data_ptr() + 8 == found["state_dict"]["b"].data_ptr(), "saved twice"
    files.teardown()


def test_after_a_write_in_the_background_that_fails_the_group_changes_nothing_more(tmp_path: Path) -> None:
    """The old best checkpoint is not removed where the new one found no place."""
    files, taken, old = CheckpointFiles(), tmp_path / "taken", tmp_path / "old.ckpt"
    taken.write_text("a file where the folder should be")
    write_checkpoint(state(3), old)
    with files.behind() as group:
        files.save_checkpoint(state(4), taken / "new.ckpt")
        files.remove_checkpoint(old)
    with files.behind() as later:
        files.save_checkpoint(state(5), tmp_path / "last.ckpt")
    later.wait()
    with pytest.raises(OSError, match="taken"):
        group.wait()
    files.teardown()
    assert (problem(old), step_of(tmp_path / "last.ckpt")) == (None, 5)
