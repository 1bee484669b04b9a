"""`medqlora runs`: what is under a log folder, from the runs' folders alone; no torch is imported."""

import argparse
import contextlib
import json
import math
import os
import shlex
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from medqlora.artifacts.runs import (
    RUN_FILE,
    is_alive,
    read_run,
    version_number,
)
from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.utils.terminal import printable_line

COMMAND = Command(
    "runs", "the runs of a log folder: state, best score, size, how to go on", also=("list",), rank=100
)

_EXAMPLES = """examples:
  medqlora runs                          the runs in ./lightning_logs
  medqlora runs elsewhere/lightning_logs
  medqlora runs --json                   the same for a program

states:
  running                  its process is there
  finished                 it came to its end
  failed                   an error ended it; the line below names it
  interrupted              its process is gone: killed, or the machine went down
  running or interrupted   the record names no process of this machine

A fit that did not finish and left checkpoints/last.ckpt has the command below it that goes on from there, in
the same folder. A fit keeps its own record, run.json; of the other commands' folders it is known what they
wrote. Size is what the folder holds on disk; the newest run is at the top.
"""
_UNKNOWN = "–"
#: what a run of another command leaves when it is done → the command
_RESULTS = {"test_report.json": "test", "aggregate_report.json": "test", "predictions.jsonl": "predict"}
_WIDEST = 36


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser(
        "runs",
        "Lists runs: state, best validation score, base, size, and how to go on with an unfinished one.",
        _EXAMPLES,
    )
    made.add_argument(
        "folder",
        nargs="?",
        default="lightning_logs",
        metavar="FOLDER",
        help="the log folder, or one run's folder (default: %(default)s)",
    )
    made.add_argument("--json", action="store_true", help="print everything as one line of JSON")
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, or a folder that isn't there."""
    options = parser().parse_args(words)
    root = Path(options.folder).expanduser()
    if not root.is_dir():
        what = "it is a file" if root.exists() else "there is no such folder here"
        raise InputError(
            f"FOLDER {options.folder}: {what}: name the one that holds version_0, or train with `medqlora fit`"
        )
    try:
        found = listed(root)
    except OSError as error:
        raise InputError(
            f"FOLDER {options.folder}: it can't be read ({error.strerror}): make it readable, or name another"
        ) from error
    if options.json:
        print(json.dumps({"folder": str(root), "runs": found}, allow_nan=False))
    elif found:
        print("\n".join(_table(found)))
    else:
        inner = root / "lightning_logs"
        hint = f"did you mean {inner}?" if inner.is_dir() else "`medqlora fit` makes one"
        print(f"No run in {root}: {hint}")
    return 0


def listed(root: Path) -> list[dict[str, Any]]:
    """Every run under `root` (or `root` itself, when it is one), the newest first.

    Keys: run, folder, command, state, best (score → value), base, bytes, started (ISO, UTC), error, resume
    (a command, or None) and damaged (what is wrong with the record, or None). What is not known is None.

    Raises:
        OSError: `root` can't be read.
    """
    alone = (root / RUN_FILE).exists() or root.name.startswith("version_")
    folders = [root] if alone else [one for one in root.iterdir() if one.name.startswith("version_")]
    runs = [_readable(folder) for folder in folders if folder.is_dir()]
    return sorted(runs, key=lambda one: (one["started"] or "", version_number(one["run"])), reverse=True)


def _readable(folder: Path) -> dict[str, Any]:
    """The run's row; of a folder that may not be opened, one that says so, and the others are listed still."""
    try:
        return _described(folder)
    except OSError as error:
        keys = ("command", "state", "base", "started", "error", "resume")
        row: dict[str, Any] = {"run": folder.name, "folder": str(folder), **dict.fromkeys(keys)}
        return {**row, "best": {}, "bytes": 0, "damaged": f"the folder can't be read ({error.strerror})"}


def _described(folder: Path) -> dict[str, Any]:
    record = read_run(folder)
    there = (folder / RUN_FILE).exists()
    damaged = None
    if record is None and there:
        damaged = f"{RUN_FILE} can't be read"
    elif record is not None and not all(isinstance(record.get(key), str) for key in ("command", "state")):
        damaged, record = f"{RUN_FILE} names no command or no state", None
    done = next((command for name, command in _RESULTS.items() if (folder / name).is_file()), None)
    record = record or {"command": done, "state": None if damaged or done is None else "finished"}
    state = _state(record)
    last = folder / "checkpoints" / "last.ckpt"
    unfinished = state not in ("finished", "running") and (record["command"] or "fit") in ("fit", "full")
    return {
        "run": folder.resolve().name,
        "folder": str(folder),
        "command": record["command"],
        "state": state,
        "best": _scores(record.get("best")) or _test_scores(folder),
        "base": _text(record.get("base")),
        "bytes": _bytes(folder),
        "started": _started(record, folder),
        "error": _text(record.get("error")) if state != "finished" else None,
        "resume": _resume(folder, last) if unfinished and last.is_file() else None,
        "damaged": damaged,
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _scores(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    known = {name: score for name, score in value.items() if isinstance(score, (int, float))}
    return {name: float(score) for name, score in known.items() if math.isfinite(score)}


def _test_scores(folder: Path) -> dict[str, float]:
    """A test's accuracy, or the token F1 of free answers, from its report."""
    try:
        report = json.loads((folder / "test_report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(report, dict):
        return {}
    name = "token_f1" if report.get("decided_by") == "exact_match" and "token_f1" in report else "accuracy"
    return _scores({f"test/{name}": report.get(name)})


def _state(record: dict[str, Any]) -> str | None:
    """What the record says; of one that says "running", whether its process is there."""
    state = record["state"]
    if state != "running":
        return state
    pid, host = record.get("pid"), record.get("host")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1 or host != socket.gethostname():
        return "running or interrupted"
    return "running" if is_alive(record) else "interrupted"


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _started(record: dict[str, Any], folder: Path) -> str | None:
    """When it began, in UTC; without a record the oldest file's time, which is the nearest there is."""
    time = _time(record.get("started"))
    if time is None:
        times = [file.stat().st_mtime for file in folder.iterdir() if file.is_file()]
        time = datetime.fromtimestamp(min(times), timezone.utc) if times else None
    return None if time is None else time.astimezone(timezone.utc).isoformat(timespec="seconds")


def _bytes(folder: Path) -> int:
    """What its files hold, links not followed; a file that goes away meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(place, name).lstat().st_size
    return total


def _resume(folder: Path, last: Path) -> str:
    """`fit` reads its options from the run's own config.yaml, and goes on in the same folder."""
    config = folder / "config.yaml"
    words = ["--config", str(config)] if config.is_file() else []
    return shlex.join(["medqlora", "fit", *words, "--ckpt_path", str(last)])


def _table(runs: list[dict[str, Any]]) -> list[str]:
    heads = ("run", "command", "state", "best", "base", "size", "started (UTC)")
    rows = [
        (
            _shown(one["run"]),
            _shown(one["command"]),
            "damaged record" if one["damaged"] else _shown(one["state"]),
            ", ".join(f"{name} {value:.4f}" for name, value in one["best"].items()) or _UNKNOWN,
            _shown(one["base"]),
            _size(one["bytes"]),
            _UNKNOWN if one["started"] is None else one["started"][:16].replace("T", " "),
        )
        for one in runs
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    indent = " " * (widths[0] + 2)

    def line(cells: tuple[str, ...]) -> str:
        placed = (
            f"{cell:>{width}}" if head == "size" else f"{cell:<{width}}"
            for head, cell, width in zip(heads, cells, widths, strict=True)
        )
        return "  ".join(placed).rstrip()

    lines = [line(heads)]
    for one, row in zip(runs, rows, strict=True):
        lines.append(line(row))
        if one["damaged"]:
            lines.append(f"{indent}{one['damaged']}: what stands in this line is from the folder's files")
        if one["error"]:
            lines.append(f"{indent}ended by {printable_line(one['error'])[:120]}")
        if one["resume"]:
            when = "if it has ended" if one["state"] == "running or interrupted" else "go on"
            lines.append(f"{indent}{when}: {printable_line(one['resume'])}")
    return lines


def _shown(text: str | None) -> str:
    """A long path from its end, which is what tells bases apart."""
    if text is None:
        return _UNKNOWN
    text = printable_line(text)
    return text if len(text) <= _WIDEST else "…" + text[1 - _WIDEST :]


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
