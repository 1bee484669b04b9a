"""Runs each case in a process of its own, so that no case affects the next."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil

from medqlora.profiling.case import Case
from medqlora.profiling.figures import Figures
from medqlora.utils.types import Json

#: time limit of a case, in seconds: a first compilation takes minutes
LIMIT_S = 1800


class PlainCase(Protocol):
    """A case of any job."""

    def to_json(self) -> dict[str, Json]: ...


def run_case(case: PlainCase, *, limit_s: float = LIMIT_S, job: str = "measure") -> Figures:
    """The case's figures, or `failed` with the reason; it never raises, so that the next case can run.

    Args:
        case: the case.
        limit_s: seconds after which the process is killed.
        job: "measure", "checkpoint" to write the case's `folder`, or "generate" for a `GenerationCase`, whose figures
            are `GenerationFigures`.
    """
    with tempfile.TemporaryDirectory(prefix="medqlora-bench-") as folder:
        case_file, result_file, log = (Path(folder, name) for name in ("case.json", "result.json", "log.txt"))
        case_file.write_text(json.dumps(case.to_json()), encoding="utf-8")
        command = [sys.executable, "-m", "medqlora.profiling.worker", job, str(case_file), str(result_file)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ))
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return {"failed": f"it took longer than {limit_s:.0f} s"}
            finally:
                if process.poll() is None:
                    _end(process)
        if result_file.exists():
            return json.loads(result_file.read_text(encoding="utf-8"))
        # no result: the process was killed, usually by the kernel when host memory runs out
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
        ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return {"failed": f"its process {ended}: {lines[-1][:200]}"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and its children: with several GPUs there is one on each."""
    # the parent first, before it can react to the end of a child
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def run_cases(cases: list[Case], report: Callable[[Case, Figures], None]) -> None:
    """Runs the cases one after another and reports each with its figures."""
    for case in cases:
        report(case, run_case(case))
