"""Several processes take the same steps as one, and none of them is left waiting when another ends.

Real processes on a CPU, with gloo: on GPUs the same code sends the same messages through NCCL.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzzing import THOROUGH, nightly
from harness import options
from interruptions import outcome, run_folder, same
from processes import LIMIT_S, assert_same_run, begin, figures, finish, run
from warm_process import WarmCommand

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs of one process, by examples a step."""
    runs = {}
    for batch_size in (3, 4):
        folder = tmp_path_factory.mktemp(f"alone{batch_size}")
        run("fit", [*options(tiny_bases["llama"], folder), f"--data.batch_size={batch_size}"])
        runs[batch_size] = folder / "lightning_logs" / "version_0"
    return runs


@pytest.mark.parametrize(
    ("processes", "engine", "batch_size"),
    [(2, "native", 4), (2, "fused", 4), (4, "native", 3)],  # three examples and four processes: one has none
)
def test_any_number_of_processes_takes_the_same_steps(
    processes: int,
    engine: str,
    batch_size: int,
    alone: dict[int, Path],
    tiny_bases: dict[str, Path],
    tmp_path: Path,
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), f"--data.batch_size={batch_size}"]
    cold = THOROUGH or engine == "fused"  # once as Lightning begins them by itself
    said = run("fit", [*words, f"--model.engine={engine}"], processes, cold=cold)
    assert said.count("Trainable parameters") == 1  # the first process alone speaks
    folders = list((tmp_path / "lightning_logs").iterdir())
    assert [folder.name for folder in folders] == ["version_0"]
    assert len(list(folders[0].glob("events*"))) == 1
    assert_same_run(alone[batch_size], folders[0])


def test_the_report_of_two_processes_is_that_of_one(
    alone: dict[int, Path], tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    reports = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        # so few tokens at once that there are several groups to share
        words = [*options(tiny_bases["llama"], folder), "--data.micro_batch_tokens=60"]
        run("test", [*words, f"--model.adapter={alone[4] / 'adapter'}"], processes)
        reports.append(figures(folder))
    assert reports[0] == reports[1]


@nightly  # by day the next test has the processes' environment, without torchrun's own process
def test_torchrun_begins_the_processes_as_well(
    alone: dict[int, Path], tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    words = [*options(tiny_bases["llama"], tmp_path), "--trainer.devices=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [*command, "-m", "medqlora", "fit", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    said = finish(process)
    assert process.returncode == 0, said
    assert_same_run(alone[4], tmp_path / "lightning_logs" / "version_0")


def test_processes_that_torchrun_would_have_begun_take_the_steps_of_one(
    alone: dict[int, Path], tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    """Each has the environment of `torchrun --nproc-per-node=2`, and none begins another."""
    words = options(tiny_bases["llama"], tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        agent = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
    agent |= {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "False", "GROUP_RANK": "0"}
    agent |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    both = [begin("fit", words, 2, cold=False, **agent, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")]
    said = [finish(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[1].count("Trainable parameters") == 0
    assert_same_run(alone[4], tmp_path / "lightning_logs" / "version_0")


Process = WarmCommand | subprocess.Popen[str]


def wait_for(path: Path, process: Process) -> None:
    until = time.monotonic() + LIMIT_S
    while not path.exists():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < until
        time.sleep(0.05)


LONG = ["--trainer.max_epochs=400", "--checkpoint.every_n_train_steps=1", "--trainer.limit_val_batches=0"]


def begin_to_end_at(name: str, words: list[str], *, step: int, rank: int, **more: str) -> Process:
    """Two processes, of which one gets a signal in the middle of a step."""
    at = {"name": name, "step": step, "rank": rank}
    words = [*words, "--trainer.callbacks=signal_at.SignalAt"]
    words += [f"--trainer.callbacks.{key}={value}" for key, value in at.items()]
    return begin("fit", words, 2, **more)


def finish_lost(process: Process) -> str:
    """The one line of the process that lost another; nothing of either is left running."""
    said = finish(process)  # to the end of what all of them say: one that were left would hold it open
    (line,) = [line for line in said.splitlines() if line.startswith("medqlora: ")]
    assert "Traceback" not in said
    return line


ENDED = "medqlora: failed: LostProcessError: another process has ended"


def test_a_run_of_two_of_which_one_is_killed_ends_bit_for_bit_as_one_that_never_was(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    extra = ["--model.lora.dropout=0.1", "--checkpoint.every_n_train_steps=1"]
    for folder in (straight, killed):
        folder.mkdir()
    other = begin("fit", [*options(tiny_bases["llama"], straight), *extra], 2)  # at the same time
    words = [*options(tiny_bases["llama"], killed), *extra]
    process = begin_to_end_at("SIGKILL", words, step=8, rank=1)
    assert finish_lost(process).startswith(ENDED)
    assert process.returncode == 1
    said = finish(other)
    assert other.returncode == 0, said
    record = json.loads((run_folder(killed) / "run.json").read_text())
    assert record["state"] == "failed"
    assert record["error"].startswith("LostProcessError: another process has ended")
    assert "last.ckpt, of step 8" in run("fit", [*words, "--ckpt_path=last"], 2)
    expected, found = outcome(straight), outcome(killed)
    assert [step for step, _ in expected["curve"]["train/loss"]] == list(range(12))
    for key, value in expected.items():
        assert same(found[key], value), f"{key}\n{found[key]}\n{value}"[:3000]


def test_when_the_first_process_is_killed_the_other_ends_and_one_alone_goes_on_to_the_same_end(
    alone: dict[int, Path], tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), "--checkpoint.every_n_train_steps=1"]
    process = begin_to_end_at("SIGKILL", words, step=8, rank=0)
    assert finish_lost(process).startswith(ENDED)
    assert process.returncode == -signal.SIGKILL
    assert "last.ckpt, of step 8" in run("fit", [*words, "--ckpt_path=last"])
    assert_same_run(alone[4], run_folder(tmp_path))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_process_that_hangs_is_given_up_after_the_patience_and_ended(
    strategy: str, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    patience_s = 25 if THOROUGH else 10  # a cold process needs longer to begin
    words = [*options(tiny_bases["llama"], tmp_path), f"--trainer.strategy={strategy}"]
    process = begin_to_end_at("SIGSTOP", words, step=2, rank=1, MEDQLORA_PATIENCE_S=str(patience_s))
    line = finish_lost(process)
    assert (
        f"LostProcessError: another process has not answered for {patience_s} s (MEDQLORA_PATIENCE_S)" in line
    )
    assert process.returncode == 1


def test_a_signal_to_one_process_ends_all_of_them_after_the_same_step(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    process = begin("fit", [*words, *LONG], 2)
    folder = tmp_path / "lightning_logs" / "version_0"
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    said = finish(process)
    assert process.returncode == 143, said
    assert "--ckpt_path last" in said
    assert json.loads((folder / "run.json").read_text())["state"] == "interrupted"


def test_a_best_checkpoint_that_the_first_process_cannot_write_is_none_of_the_others(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    """Otherwise they would not agree at the next validation whether to save; and all read the best for the average."""
    words = [*options(tiny_bases["llama"], tmp_path), "--model.generate=false", "--average.count=2"]
    words += ["--checkpoint.monitor=val/loss", "--checkpoint.mode=min"]
    words += ["--trainer.callbacks=signal_at.NoRoomForTheBest", "--trainer.callbacks.step=6"]
    said = run("fit", words, 2)
    assert "that of step 6 is kept" in said
    folder = run_folder(tmp_path)
    assert [path.name for path in folder.glob("checkpoints/epoch*.ckpt")] == ["epoch1-step12.ckpt"]
    assert (folder / "adapter_averaged" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=nightly)])
def test_a_process_that_failed_alone_is_gone_though_its_end_would_wait_for_the_others(
    rank: int, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), "--trainer.callbacks=signal_at.FailsAlone"]
    words += ["--trainer.callbacks.step=2", f"--trainer.callbacks.rank={rank}"]
    process = begin("fit", words, 2)
    said = finish(process)
    assert "medqlora: failed: RuntimeError: of this process alone" in said
    assert process.returncode == 1


def test_full_of_two_processes_tests_the_adapter_that_they_trained_and_says_it_once(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    said = run("full", [*options(tiny_bases["llama"], tmp_path), "--trainer.max_steps=2"], 2)
    assert said.count("Summary") == 1
    adapter = tmp_path / "lightning_logs" / "version_0" / "adapter"
    assert said.count(f"Evaluating the adapter {adapter}") == 1
    assert (tmp_path / "lightning_logs" / "version_1" / "test_report.json").is_file()


def test_an_engine_that_one_process_cannot_trust_is_refused_by_all_with_one_line(
    tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = [*options(tiny_bases["llama"], tmp_path), "--model.engine=fused"]
    process = begin("fit", [*words, "--trainer.callbacks=signal_at.OddGPU", "--trainer.callbacks.rank=1"], 2)
    said = finish(process)
    assert process.returncode == 2, said
    lines = {line for line in said.splitlines() if line.startswith("medqlora: ")}
    (line,) = lines
    assert line.startswith("medqlora: error: --model.engine fused: its rows differ from the model's own (")
