"""The runs under a log folder: their records, the unfinished fits, the finished adapters."""

import json
import math
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from medqlora.artifacts.run_folder import RunFolder
from medqlora.utils.files import now, write_text
from medqlora.utils.slurm import slurm_job

#: a process that began so many seconds after the run's record is another process with the same number
_CLOCK_SLACK_S = 5


def finite_scores(value: object) -> dict[str, float]:
    """The numbers of a record's scores, by name; what is no finite number is left out."""
    numbers = value if isinstance(value, dict) else {}
    return {
        str(name): float(score)
        for name, score in numbers.items()
        if isinstance(score, (int, float)) and math.isfinite(score)
    }


@dataclass
class RunRecord:
    """`run.json` in a run's folder.

    Attributes:
        command: fit, test, ….
        state: running, finished, failed, or interrupted by a signal. A killed process writes nothing: its run stays
            "running".
        base: the base model as the user named it.
        base_identity: identifies the base model.
        started, finished: UTC times.
        best: the best validation scores, by name.
        error: the error that ended a failed run.
        pid, host: the process that writes the record, and its machine.
        slurm_job: see `slurm_job`.
        answers: the file of a `predict`.
    """

    command: str
    state: Literal["running", "finished", "failed", "interrupted"]
    base: str
    base_identity: str
    started: str = field(default_factory=now)
    finished: str | None = None
    best: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    slurm_job: str | None = field(default_factory=slurm_job)
    answers: str | None = None

    def write(self, folder: Path) -> None:
        """Writes `run.json`, and removes what a killed process left of writing it.

        Raises:
            OSError: the file can't be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = RunFolder(folder).record_file
        for left in folder.glob(f".{file.name}.*"):
            left.unlink(missing_ok=True)
        write_text(file, json.dumps(asdict(self), indent=2) + "\n")


class StoredRun(NamedTuple):
    """A run's folder and the content of its `run.json`."""

    folder: RunFolder
    record: Mapping[str, object]

    @property
    def finished(self) -> bool:
        return self.record.get("state") == "finished"


def is_alive(record: Mapping[str, object]) -> bool:
    """Whether the process that wrote the record still runs on this machine, and is no later one with its number."""
    pid = record.get("pid")
    if record.get("state") != "running" or not isinstance(pid, int) or pid < 1:
        return False
    if record.get("host") != socket.gethostname():
        return False
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and its parent has not waited for it yet
            return False
        began = datetime.fromisoformat(str(record.get("started"))).timestamp()
        return process.create_time() <= began + _CLOCK_SLACK_S
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, ValueError):
        return True


def fits(root: Path, base_identity: str) -> list[StoredRun]:
    """The fits under `root` on this base model, the one started last first, without those that still run.

    Args:
        root: the log folder.
        base_identity: the base model's.
    """
    return [run for run in _by_time(root, base_identity, "started") if not is_alive(run.record)]


def finished_adapters(root: Path, base_identity: str | None = None) -> list[Path]:
    """The `adapter/` folders of the fits under `root`, the one that finished last first.

    Args:
        root: the log folder.
        base_identity: the base model that they were trained on; None for any.
    """
    runs = _by_time(root, base_identity, "finished")
    return [run.folder.adapter for run in runs if run.finished and run.folder.has_adapter]


def newest_adapter(root: Path, base_identity: str | None = None) -> Path | None:
    """The first of `finished_adapters`; None where there is none."""
    return next(iter(finished_adapters(root, base_identity)), None)


def newest_fit(root: Path) -> RunFolder | None:
    """The fit under `root` that finished last; where none has, the one started last that no process goes on with."""
    finished = [run for run in _by_time(root, None, "finished") if run.finished]
    stopped = [run for run in _by_time(root, None, "started") if not is_alive(run.record)]
    return next((run.folder for run in (*finished, *stopped)), None)


def _by_time(root: Path, base_identity: str | None, key: Literal["started", "finished"]) -> list[StoredRun]:
    """The fits under `root`, the latest time under `key` first."""
    try:
        folders = RunFolder.all(root)
    except OSError:  # missing, or not readable
        return []
    runs = [
        StoredRun(folder, record)
        for folder in folders
        if (record := folder.read_record()) is not None
        and record.get("command") == "fit"
        and base_identity in (None, record.get("base_identity"))
    ]
    return sorted(runs, key=lambda run: (str(run.record.get(key)), run.folder.number), reverse=True)
