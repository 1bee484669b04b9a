"""The folders of runs: what each says of itself, and which adapter `test` takes when none is named."""

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

RUN_FILE = "run.json"


def now() -> str:
    """The time as text, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_text(path: Path, text: str) -> None:
    """Writes aside, flushes, then renames: a reader sees the old file or the new one, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)


@dataclass
class RunRecord:
    """`run.json` in a run's folder.

    Attributes:
        command: fit, test, ….
        state: running, finished, or failed.
        base: the base as the user named it.
        base_identity: what tells it from others.
        started, finished: UTC times.
        best: the best validation scores, by name.
        error: what ended it, when it failed.
    """

    command: str
    state: Literal["running", "finished", "failed"]
    base: str
    base_identity: str
    started: str = field(default_factory=now)
    finished: str | None = None
    best: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / RUN_FILE, json.dumps(asdict(self), indent=2) + "\n")


def read_run(folder: Path) -> dict[str, Any] | None:
    """A run's own record; None where the folder holds none that can be read."""
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def newest_adapter(root: Path, base_identity: str | None = None) -> Path | None:
    """The `adapter/` of the fit under `root` that finished last; None where there is none.

    Args:
        root: the folder with the runs' folders.
        base_identity: of the base that it has to be trained on; None for any.
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
            number = folder.name.removeprefix("version_")
            found.append((str(record.get("finished")), int(number) if number.isdigit() else -1, adapter))
    return max(found)[2] if found else None
