"""The folders of runs: what each says of itself, and which adapter `test` takes when none is named."""

import json
import os
import socket
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from medqlora.utils.files import now, write_text
from medqlora.utils.slurm import slurm_job

RUN_FILE = "run.json"
#: a process that began so many seconds after the run's record is another one with its number
_CLOCK_SLACK_S = 5


@dataclass
class RunRecord:
    """`run.json` in a run's folder.

    Attributes:
        command: fit, test, ….
        state: running, finished, failed, or interrupted (by a signal; a killed process says nothing, and its run
            stays "running").
        base: the base as the user named it.
        base_identity: what tells it from others.
        started, finished: UTC times.
        best: the best validation scores, by name.
        error: what ended it, when it failed.
        pid, host: the process that writes the record, and the machine it is on.
        slurm_job: as `slurm_job` says.
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

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{RUN_FILE}.*"):  # of a process that was killed as it wrote
            left.unlink(missing_ok=True)
        write_text(folder / RUN_FILE, json.dumps(asdict(self), indent=2) + "\n")


def read_run(folder: Path) -> dict[str, Any] | None:
    """A run's own record; None where the folder holds none that can be read."""
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def new_run_folder(root: Path) -> Path:
    """Makes the next `version_N` under `root`; of two runs that start together each gets its own.

    Args:
        root: the log folder; made where only it is missing.

    Raises:
        OSError: it can't be made or written in.
    """
    root.mkdir(exist_ok=True)
    number = max((version_number(one.name) for one in root.glob("version_*")), default=-1) + 1
    while True:
        folder = root / f"version_{number}"
        try:
            folder.mkdir()
        except FileExistsError:  # another process was first
            number += 1
        else:
            return folder


def version_number(name: str) -> int:
    """Of a run's folder; -1 where its name is another."""
    number = name.removeprefix("version_")
    return int(number) if number.isascii() and number.isdigit() else -1


def is_alive(record: dict[str, Any]) -> bool:
    """Whether the process that wrote the record is there, on this machine, and not a later one with its number."""
    pid = record.get("pid")
    if record.get("state") != "running" or not isinstance(pid, int) or pid < 1:
        return False
    if record.get("host") != socket.gethostname():
        return False
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and not yet fetched by what started it
            return False
        began = datetime.fromisoformat(str(record.get("started"))).timestamp()
        return process.create_time() <= began + _CLOCK_SLACK_S
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, ValueError):
        return True


def fits(root: Path, base_identity: str) -> list[tuple[Path, dict[str, Any]]]:
    """The folders and records of the fits under `root` on this base, the one started last first.

    A run that goes on at this moment, on this machine, is left out: it is not to be resumed.
    """
    found: list[tuple[str, int, Path, dict[str, Any]]] = []
    for folder in root.glob("version_*"):
        record = read_run(folder)
        if (
            record is not None
            and record.get("command") == "fit"
            and record.get("base_identity") == base_identity
            and not is_alive(record)
        ):
            found.append((str(record.get("started")), version_number(folder.name), folder, record))
    return [one[2:] for one in sorted(found, key=lambda one: one[:2], reverse=True)]


def newest_adapter(root: Path, base_identity: str | None = None) -> Path | None:
    """The `adapter/` of the fit under `root` that finished last; None where there is none.

    Args:
        root: the folder with the runs' folders.
        base_identity: of the base that it has to be trained on; None for any.
    """
    return next(iter(finished_adapters(root, base_identity)), None)


def finished_adapters(root: Path, base_identity: str | None = None) -> list[Path]:
    """The `adapter/` folders of the fits under `root`, the one that finished last first.

    Args:
        root: the folder with the runs' folders.
        base_identity: of the base that they have to be trained on; None for any.
    """
    found: list[tuple[str, int, Path]] = []
    for folder in root.glob("version_*"):
        record = read_run(folder)
        adapter = folder / "adapter"
        if (
            record is not None
            and record.get("command") == "fit"
            and record.get("state") == "finished"
            and base_identity in (None, record.get("base_identity"))
            and (adapter / "adapter_config.json").is_file()
        ):
            found.append((str(record.get("finished")), version_number(folder.name), adapter))
    return [one[2] for one in sorted(found, reverse=True)]
