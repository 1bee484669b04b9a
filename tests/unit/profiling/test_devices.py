"""Several processes share a case's steps; their figures are one row, and so is what goes wrong in one of them."""

import contextlib
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import psutil
import pytest

from medqlora.profiling import SHAPES, Case, run_case
from medqlora.profiling.devices import culprit
from medqlora.profiling.figures import Figures, Share, combined
from medqlora.profiling.lengths import random_examples
from medqlora.profiling.measure import step_batches
from medqlora.profiling.processes import _end

BUDGET = 1024
EXAMPLES = random_examples(60, vocab_size=512, longest=BUDGET)
LONGEST = max(len(example.prompt) + len(example.completion) for example in EXAMPLES)
GONE = {"failed": "LostProcessError: another process has ended, killed or with an error of its own"}
SILENT = {"failed": "LostProcessError: another process has not answered for 15 s"}


@pytest.mark.parametrize("devices", [2, 3])
def test_each_device_has_one_full_micro_batch_a_step_as_one_alone_has(devices: int) -> None:
    shares = [
        list(islice(step_batches(EXAMPLES, BUDGET, None, 0, rank=rank, devices=devices), 20))
        for rank in range(devices)
    ]
    for step in zip(*shares, strict=True):
        assert len({(batch.ids, batch.completion_tokens, batch.all_tokens) for batch in step}) == 1
        assert sum(batch.tokens for batch in step) == step[0].all_tokens
        for batch in step:
            assert len(batch.micro_batches) == 1
            assert batch.tokens <= BUDGET
        # the next example had no place on any of them
        assert max(batch.tokens for batch in step) > BUDGET - LONGEST


def test_a_step_of_some_examples_has_as_many_for_each_device() -> None:
    for batch in islice(step_batches(EXAMPLES, BUDGET, 4, 0, rank=1, devices=3), 5):
        assert len(batch.ids) == 12
        assert 1 <= sum(len(micro.lengths) for micro in batch.micro_batches) <= 11


def share(**changes: Any) -> Share:
    measured: Share = {
        "step_s": [1.0, 1.0],
        "computing_s": [0.8, 0.8],
        "tokens": [200, 300],
        "flops": 4e12,
        "flops_per_s": 8e12,
        "peaks": {"peak_allocated_gib": 10.0, "peak_reserved_gib": 11.0},
        "planned_gib": 12.0,
        "loaded_gib": 5.0,
        "loss": 2.5,
        "attention": "flash",
        "hardware": {"device": "cpu"},
    }
    return {**measured, **changes}  # type: ignore[typeddict-item]


def test_figures_are_of_all_devices_over_the_time_of_the_slowest() -> None:
    other = share(
        step_s=[1.1, 1.4],
        computing_s=[0.9, 1.2],
        flops=2e12,
        flops_per_s=4e12,
        peaks={"peak_allocated_gib": 9.0, "peak_reserved_gib": 11.5},
        planned_gib=12.5,
    )
    found = combined([share(), other])
    assert found["tokens_per_s"] == 200.0  # 500 tokens in 2.5 s
    assert found["tokens_per_s_per_device"] == 100.0
    assert found["quickest_waits"] == 0.2  # 0.1 and 0.4 of 2.5 s
    assert found["step_s"] == 1.25
    assert found["tokens_per_step"] == 250.0
    assert (found["peak_allocated_gib"], found["peak_reserved_gib"]) == (10.0, 11.5)
    assert found["plan_error"] == 0.25
    assert found["flop_utilisation"] == 0.2  # 6 of the 30 TFLOP that both could do in 2.5 s
    assert found["matrix_product_tflops"] == 6.0


def test_one_device_has_no_figures_of_several() -> None:
    found = combined([share()])
    assert found["tokens_per_s"] == 250.0
    assert "quickest_waits" not in found
    assert "tokens_per_s_per_device" not in found


@pytest.mark.parametrize(
    ("codes", "failures", "expected"),
    [
        ([1, 1], [GONE, {"failed": "out of memory"}], {"failed": "out of memory"}),
        (
            [-15, 1],
            [None, {"failed": "wrong", "input_error": True}],
            {"failed": "wrong", "input_error": True},
        ),
        ([1, -9], [GONE, None], {"failed": "process 2 of 2 ended by SIGKILL"}),
        ([-15, -15, -11], [None, None, None], {"failed": "process 3 of 3 ended by SIGSEGV"}),
        ([-15, 3], [None, None], {"failed": "process 2 of 2 ended with 3"}),
        ([1, -9], [SILENT, None], SILENT),  # it was killed because it hung
        ([1, -15], [GONE, None], GONE),
        ([0, 0], [None, None], {"failed": "one of 2 processes ended without a word"}),
    ],
)
def test_what_is_told_is_the_failure_that_ended_the_others(
    codes: list[int | None], failures: list[Figures | None], expected: Figures
) -> None:
    assert culprit(codes, failures) == expected


def sharing() -> list[psutil.Process]:
    """The processes of a case that is running."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end while it is asked
            found += [one] if any("spawn_main" in word for word in one.cmdline()) else []
    return found


def speaks(process: psutil.Process) -> bool:
    """Whether it has found the other, beside where they met."""
    connections = process.net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED for one in connections) >= 2


@pytest.mark.slow
def test_when_a_process_is_killed_the_case_ends_at_once_and_says_so() -> None:
    endless = Case(
        trainer="fused",
        shape=SHAPES["tiny"][1],
        micro_batch_tokens=512,
        precision="32",
        checkpointing="none",
        warm_up=10**6,
        devices=2,
    )

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run_case, endless, limit_s=500)
        until = time.monotonic() + 300  # two processes import torch
        while len(both := sharing()) < 2 or not all(map(speaks, both)):
            assert time.monotonic() < until
            assert not result.done(), result.result()
            time.sleep(0.05)
        both[1].send_signal(signal.SIGKILL)
        assert result.result(300)["failed"] == "process 2 of 2 ended by SIGKILL"
    assert not any(one.is_running() for one in both)


def test_a_case_that_is_given_up_leaves_none_of_its_processes() -> None:
    # one that is stopped hears nothing of its parent's end
    program = (
        "import signal, subprocess, sys\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "other.send_signal(signal.SIGSTOP)\n"
        "print(other.pid, flush=True)\n"
        "other.wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        other = psutil.Process(int(process.stdout.readline()))
    _end(process)
    assert process.returncode == -signal.SIGKILL
    psutil.wait_procs([other], timeout=10)
    assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE
