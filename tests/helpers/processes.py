"""Commands in processes of their own, several of them for one run, and what has to be equal between such runs."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from fuzzing import THOROUGH
from import_path import import_path
from safetensors.torch import load_file
from tensorboard_events import logged
from warm_process import WarmCommand

#: what the whole of a run with so few steps may take; a process that waits for another would wait longer
LIMIT_S = 150


def begin(
    verb: str, words: list[str], processes: int = 1, *, cold: bool = THOROUGH, **more: str
) -> WarmCommand | subprocess.Popen[str]:
    """Begins a command; of several processes Lightning's launcher begins the others.

    Args:
        verb: the command.
        words: its options.
        processes: devices of the Trainer.
        cold: with a new interpreter for each process, as every night, not a fork of one with torch.
        more: variables of the environment.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}
    # for the callbacks of `signal_at`
    environment["PYTHONPATH"] = import_path()
    words = [verb, *words, f"--trainer.devices={processes}"]
    if not cold:
        descriptor, log = tempfile.mkstemp(prefix="medqlora-said-")
        os.close(descriptor)
        return WarmCommand(words, cwd=Path.cwd(), log=Path(log), env=environment, processes=processes)
    command = [sys.executable, "-m", "medqlora", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def finish(process: WarmCommand | subprocess.Popen[str]) -> str:
    """What all of its processes said. Everything that it began is ended if it takes too long."""
    try:
        return _said(process)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        raise AssertionError(f"it was still running after {LIMIT_S} s:\n{_said(process)}") from None


def _said(process: WarmCommand | subprocess.Popen[str]) -> str:
    if isinstance(process, WarmCommand):
        said = process.wait_for_all(LIMIT_S)
        process.log.unlink()
        return said
    return process.communicate(timeout=LIMIT_S)[0]


def run(verb: str, words: list[str], processes: int = 1, *, cold: bool = THOROUGH) -> str:
    process = begin(verb, words, processes, cold=cold)
    said = finish(process)
    assert process.returncode == 0, said
    return said


def figures(folder: Path) -> dict[str, Any]:
    """A report without what differs from run to run."""
    (found,) = folder.rglob("test_report.json")
    report: dict[str, Any] = json.loads(found.read_text())
    for name in ("asking_s", "info", "more", "run"):
        report.pop(name, None)
    return report


def curve(folder: Path) -> dict[str, list[tuple[int, float]]]:
    names = ("train/loss", "train/grad_norm", "train/learning_rate", "val/loss", "val/accuracy")
    return {name: logged(folder, name) for name in names}


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    for name, points in curve(one).items():
        found = curve(other)[name]
        assert [step for step, _ in found] == [step for step, _ in points], name
        assert [value for _, value in found] == pytest.approx([value for _, value in points], rel=1e-4), name
    expected = weights(one)
    assert expected.keys() == weights(other).keys()
    for name, value in weights(other).items():
        assert (value - expected[name]).norm() <= 1e-4 * expected[name].norm() + 1e-6, name
