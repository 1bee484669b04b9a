"""SIGTERM and SIGINT: the step ends, a checkpoint is written, the exit code and one line say so."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import options
from test_kill import EXTRA, manifest_step, outcome, run_folder, started, wait
from test_resume import same

pytestmark = pytest.mark.slow


def interrupted(words: list[str], folder: Path, number: signal.Signals, step: int) -> tuple[int, str]:
    """Sends the signal once the checkpoint of `step` or a later one stands; exit code and last line."""
    process = started(words, folder)

    def reached() -> bool:
        try:
            return manifest_step(run_folder(folder)) >= step
        except ValueError:  # no run's folder yet
            return False

    assert wait(process, reached), (folder / "log.txt").read_text()
    process.send_signal(number)
    code = process.wait(timeout=60)
    return code, (folder / "log.txt").read_text().strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("number", "code", "step"),
    [(signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 8), (signal.SIGTERM, 143, 6)],  # 6: in the validation
)
def test_a_signal_ends_the_run_with_a_checkpoint_and_the_resumed_one_ends_as_if_none_had_come(
    tiny_bases: dict[str, Path], tmp_path: Path, number: signal.Signals, code: int, step: int
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), *EXTRA]
    found, line = interrupted(words, tmp_path, number, step)
    run = run_folder(tmp_path)
    assert found == code, line
    assert line.startswith(
        f"medqlora: ended by {number.name} with the checkpoint of step {manifest_step(run)}"
    )
    assert line.endswith("--ckpt_path last`")
    assert manifest_step(run) >= step
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["error"]) == ("interrupted", None)
    assert started([*words, "--ckpt_path", "last"], tmp_path).wait() == 0
    straight = tmp_path / "straight"
    straight.mkdir()
    assert started([*options(tiny_bases["llama"], straight), *EXTRA], straight).wait() == 0
    found, expected = outcome(tmp_path), outcome(straight)
    for key, value in expected.items():
        assert same(found[key], value), key


def test_a_second_signal_ends_the_run_at_once(tmp_path: Path) -> None:
    code = """
import os, signal, time
from types import SimpleNamespace
from medqlora.callbacks import Signals
watch = Signals()
watch.on_train_start(SimpleNamespace(_accelerator_connector=SimpleNamespace(cluster_environment=None)), None)
print("ready", flush=True)
while True:
    time.sleep(0.01)
    if watch.received:
        print("received", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "received\n"  # the step goes on
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait(timeout=10) == 143
    assert time.monotonic() - begun < 2
    process.stdout.close()
