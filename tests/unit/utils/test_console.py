"""The library's messages: logged once per run, printed as plain lines, under the control of standard logging."""

import logging
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medqlora.utils.console import process_rank, say

VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "NODE_RANK", "GROUP_RANK")
LOGGER = logging.getLogger("medqlora")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def restored() -> Iterator[None]:
    handlers, level = list(LOGGER.handlers), LOGGER.level
    yield
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"RANK": "0", "LOCAL_RANK": "1"}, 0),
        ({"RANK": "2", "LOCAL_RANK": "0"}, 2),
        ({"LOCAL_RANK": "0", "SLURM_PROCID": "3"}, 0),
        ({"SLURM_PROCID": "3"}, 3),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, 1),
        ({"RANK": "0", "NODE_RANK": "1"}, 0),
    ],
)
def test_the_environment_names_the_rank_before_a_process_group_is_there(
    environment: dict[str, str],
    rank: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert process_rank() == rank
    say("one line")
    assert capsys.readouterr().out == ("one line\n" if rank == 0 else "")


def _joined(rank: int, folder: Path) -> None:
    import torch.distributed

    with (folder / f"{rank}.txt").open("w") as sys.stdout:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2
        )
        say(f"from {rank}")
        torch.distributed.destroy_process_group()


def test_of_two_processes_of_a_group_the_first_one_prints(tmp_path: Path) -> None:
    import torch.distributed  # noqa: F401  # before the fork: it takes seconds

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_joined, args=(rank, tmp_path)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "0.txt").read_text() == "from 0\n"
    assert (tmp_path / "1.txt").read_text() == ""


@pytest.mark.usefixtures("restored")
def test_a_users_handler_and_level_replace_ours(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    class Own(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(f"{record.levelname} {record.getMessage()}")

    LOGGER.handlers[:] = [Own()]
    say("100% of it\x1b[2J")
    assert seen == ["INFO 100% of it\\x1b[2J"]  # no control character, and no formatting of the text
    LOGGER.setLevel(logging.WARNING)
    say("less")
    assert len(seen) == 1
    assert capsys.readouterr().out == ""


def test_a_pipe_gets_a_line_at_once_and_no_torch_is_imported() -> None:
    code = """
import sys
from medqlora.utils.console import say
say("first")
sys.stdin.readline()
assert "torch" not in sys.modules and "lightning" not in sys.modules
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "first\n"  # while the process goes on
        process.stdin.write("\n")
    assert process.returncode == 0
