"""A case in a process of its own, which begins clean and leaves nothing behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from medqlora.profiling.case import Case

#: what a case may take before it is given up, in seconds: a first compilation takes minutes
LIMIT_S = 1800


def run_case(case: Case, *, limit_s: float = LIMIT_S, job: str = "measure") -> dict[str, Any]:
    """The case's figures, or `{"failed": why}`; nothing raises, so that the next case can run.

    Args:
        case: what to measure.
        limit_s: seconds before the process is ended.
        job: "measure", or "checkpoint" to write the case's `folder`.
    """
    with tempfile.TemporaryDirectory(prefix="medqlora-bench-") as folder:
        question, answer, log = (Path(folder, name) for name in ("case.json", "result.json", "log.txt"))
        question.write_text(json.dumps(case.to_json()), encoding="utf-8")
        command = [sys.executable, "-m", "medqlora.profiling.worker", job, str(question), str(answer)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ))
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return {"failed": f"it took longer than {limit_s:.0f} s"}
            finally:
                if process.poll() is None:
                    _end(process)
        if answer.exists():
            return json.loads(answer.read_text(encoding="utf-8"))
        # killed from outside: on most machines the kernel, for the host's memory
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
        ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return {"failed": f"its process {ended}: {lines[-1][:200]}"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """With what it began: on several GPUs that is a process on each."""
    # the parent first: it would see a child's end, and do something about it
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def run_cases(cases: list[Case], report: Callable[[Case, dict[str, Any]], None]) -> None:
    """One case after another, each reported with its figures when they are there."""
    for case in cases:
        report(case, run_case(case))
