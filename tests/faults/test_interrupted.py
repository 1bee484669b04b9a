"""SIGTERM and SIGINT: the step ends, a checkpoint is written, the exit code and one line say so."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import options
from interruptions import EXTRA, manifest_step, outcome, run_folder, same, started, straight_outcome

from medqlora import cli
from medqlora.utils.interrupts import Interrupted

pytestmark = pytest.mark.slow


def interrupted(
    words: list[str], folder: Path, number: signal.Signals, step: int, *, validating: bool = False
) -> tuple[int, str]:
    """Sends the signal in the step after `step`, or in the validation after it; exit code and last line."""
    at = ["--trainer.callbacks=signal_at.SignalAt", f"--trainer.callbacks.name={number.name}"]
    at += [f"--trainer.callbacks.step={step}", f"--trainer.callbacks.validating={validating}"]
    code = started([*words, *at], folder).wait(timeout=240)
    return code, (folder / "log.txt").read_text().strip().splitlines()[-1]


def assert_ends_as_one_never_interrupted(base: Path, folder: Path) -> None:
    found, expected = outcome(folder), straight_outcome(base)
    for key, value in expected.items():
        assert same(found[key], value), key


@pytest.mark.parametrize(
    ("number", "code", "step"),
    [
        (signal.SIGTERM, 143, 2),
        (signal.SIGINT, 130, 8),
        (signal.SIGTERM, 143, 6),  # in the validation
        (signal.SIGHUP, 129, 2),  # a terminal that was closed
    ],
)
def test_a_signal_ends_the_run_with_a_checkpoint_and_the_resumed_one_ends_as_if_none_had_come(
    tiny_bases: dict[str, Path], tmp_path: Path, number: signal.Signals, code: int, step: int
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), *EXTRA]
    validating = step == 6
    found, line = interrupted(words, tmp_path, number, step, validating=validating)
    run = run_folder(tmp_path)
    assert found == code, line
    assert line.startswith(
        f"medqlora: ended by {number.name} with the checkpoint of step {manifest_step(run)}"
    )
    assert line.endswith("--ckpt_path last`")
    assert manifest_step(run) == (step if validating else step + 1)
    record = json.loads((run / "run.json").read_text())
    assert (record["state"], record["error"]) == ("interrupted", None)
    assert started([*words, "--ckpt_path", "last"], tmp_path).wait() == 0
    assert_ends_as_one_never_interrupted(tiny_bases["llama"], tmp_path)


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
    assert process.wait(timeout=240) == 143  # the loop itself has no end
    process.stdout.close()


def test_a_job_that_slurm_requeues_goes_on_by_itself_in_its_own_folder(
    tiny_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM's environment and a `scontrol` that writes down what it is asked; there is no SLURM here."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked.txt\n')
    (tools / "scontrol").chmod(0o755)
    job = {
        **{"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "qlora"},
        **{"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        **{"SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost"},
    }
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    words = [*options(tiny_bases["llama"], tmp_path), *EXTRA]
    code, line = interrupted(words, tmp_path, signal.SIGUSR1, 4)
    assert code == 128 + signal.SIGUSR1, line
    assert (tmp_path / "asked.txt").read_text() == "requeue 4711\n"
    assert "SLURM starts job 4711 again" in (tmp_path / "log.txt").read_text()

    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert started(words, tmp_path).wait() == 0  # the same script: nothing about a checkpoint
    assert "SLURM has started this job again: going on with" in (tmp_path / "log.txt").read_text()
    assert not list(tmp_path.glob("hpc_ckpt*"))  # Lightning's own
    for name in (*job, "SLURM_RESTART_COUNT"):
        if name != "PATH":
            monkeypatch.delenv(name)
    assert_ends_as_one_never_interrupted(tiny_bases["llama"], tmp_path)


def test_a_gpu_that_is_lost_in_a_step_ends_the_run_with_what_was_saved(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    """The error that torch raises for a CUDA error, here on a CPU, in the seventh step."""
    words = [*options(tiny_bases["llama"], tmp_path), *EXTRA]
    lost = ["--trainer.callbacks=interruptions.LostGPU", "--progress.refresh_rate=1"]
    assert started([*words, *lost], tmp_path).wait() == 1
    shown = (tmp_path / "log.txt").read_text().replace("\r", "\n")
    line = shown.strip().splitlines()[-1]  # of its own: the bar has ended
    assert line.startswith(
        "medqlora: failed: AcceleratorError: CUDA error: unspecified launch failure; the checkpoint of step 6 is "
        "whole: go on with `medqlora fit "
    )
    record = json.loads((run_folder(tmp_path) / "run.json").read_text())
    assert (record["state"], record["error"]) == (
        "failed",
        "AcceleratorError: CUDA error: unspecified launch failure",
    )
    assert started([*words, "--ckpt_path", "last"], tmp_path).wait() == 0


def test_ctrl_c_reaches_all_processes_of_a_run_and_the_first_one_alone_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_: list[str]) -> int:
        raise Interrupted(signal.SIGINT, 4)

    monkeypatch.setattr(cli, "_run", stopped)
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert cli.main(["fit", "--config", "a.yaml"]) == 130
        said.append(capsys.readouterr().err.strip())
    assert said == [
        "medqlora: ended by SIGINT with the checkpoint of step 4: go on with "
        "`medqlora fit --config a.yaml --ckpt_path last`",
        "",
    ]
