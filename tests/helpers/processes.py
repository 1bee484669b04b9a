"""Commands in processes of their own, several of them for one run, and what has to be equal between such runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from events import logged
from import_path import import_path
from safetensors.torch import load_file

#: what the whole of a run with so few steps may take; a process that waits for another would wait longer
LIMIT_S = 150


def begin(verb: str, words: list[str], processes: int = 1, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}
    # for the callbacks of `signal_at`
    environment["PYTHONPATH"] = import_path()
    command = [sys.executable, "-m", "medqlora", verb, *words, f"--trainer.devices={processes}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it said. Everything that it began is ended if it takes too long."""
    try:
        said, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        said, _ = process.communicate()
        raise AssertionError(f"it was still running after {LIMIT_S} s:\n{said}") from None
    return said


def run(verb: str, words: list[str], processes: int = 1) -> str:
    process = begin(verb, words, processes)
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
