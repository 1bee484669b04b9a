"""`medqlora runs`: the runs under a log folder, from their folders alone; no torch is imported."""

import argparse
import contextlib
import json
import os
import shlex
import socket
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TypedDict

from medqlora.artifacts.fold_group import FoldGroup
from medqlora.artifacts.run_folder import LOGS, RunFolder
from medqlora.artifacts.runs import finite_scores, is_alive
from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.utils.cache import base_words
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
the same folder. The folds of a cross-validation are listed as cv_0/version_3. A fit and a predict keep a
record, run.json; of the other commands' folders it is known what they wrote. Size is what the folder holds on
disk; the newest run is at the top.
"""
_UNKNOWN = "–"
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
        default=LOGS,
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
        runs = listed(root)
    except OSError as error:
        raise InputError(
            f"FOLDER {options.folder}: it can't be read ({error.strerror}): make it readable, or name another"
        ) from error
    if options.json:
        print(json.dumps({"folder": str(root), "runs": runs}, allow_nan=False))
    elif runs:
        print("\n".join(_table(runs)))
    else:
        inner = root / LOGS
        hint = f"did you mean {inner}?" if inner.is_dir() else "`medqlora fit` makes one"
        print(f"No run in {root}: {hint}")
    return 0


class RunRow(TypedDict):
    """A run of the list; None stands for what is not known.

    Attributes:
        run, folder: the folder's name and path.
        command: fit, test, ….
        state: see the command's help.
        best: score → value.
        base: the base model.
        bytes: the size of the folder's files.
        started: an ISO time, UTC.
        error: the error that ended the run.
        resume: the command that resumes the run.
        answers: the file of a `predict`.
        damaged: what is wrong with the record.
    """

    run: str
    folder: str
    command: str | None
    state: str | None
    best: dict[str, float]
    base: str | None
    bytes: int
    started: str | None
    error: str | None
    resume: str | None
    answers: str | None
    damaged: str | None


def listed(root: Path) -> list[RunRow]:
    """Every run under `root`, or `root` itself when it is one, the newest first.

    Raises:
        OSError: `root` can't be read.
    """
    run = RunFolder(root)
    alone = run.record_file.exists() or run.is_named_as_a_run
    folders = [run] if alone else RunFolder.all(root)
    rows = [_readable(folder) for folder in folders]
    for group in [] if alone else FoldGroup.all(root):
        folds = [_readable(fold) for fold in RunFolder.all(group.path)]
        rows += [{**fold, "run": f"{group.path.name}/{fold['run']}"} for fold in folds]
    return sorted(
        rows, key=lambda row: (row["started"] or "", RunFolder(Path(row["folder"])).number), reverse=True
    )


def _readable(run: RunFolder) -> RunRow:
    """The run's row; a folder that can't be opened has a row that says so."""
    try:
        return _described(run)
    except OSError as error:
        return {
            "run": run.path.name,
            "folder": str(run.path),
            "command": None,
            "state": None,
            "best": {},
            "base": None,
            "bytes": 0,
            "started": None,
            "error": None,
            "resume": None,
            "answers": None,
            "damaged": f"the folder can't be read ({error.strerror})",
        }


def _described(run: RunFolder) -> RunRow:
    stored, damaged, name = run.read_record(), None, run.record_file.name
    if stored is None and run.record_file.exists():
        damaged = f"{name} can't be read"
    elif stored is not None and not all(isinstance(stored.get(key), str) for key in ("command", "state")):
        damaged, stored = f"{name} names no command or no state", None
    done = run.finished_command
    record: Mapping[str, object] = stored or {
        "command": done,
        "state": None if damaged or done is None else "finished",
    }
    state, command = _state(record), _text(record.get("command"))
    unfinished = state not in ("finished", "running") and (command or "fit") in ("fit", "full")
    return {
        "run": run.path.resolve().name,
        "folder": str(run.path),
        "command": command,
        "state": state,
        "best": finite_scores(record.get("best")) or _test_scores(run),
        "base": _text(record.get("base")),
        "bytes": _bytes(run.path),
        "started": _started(record, run.path),
        "error": _text(record.get("error")) if state != "finished" else None,
        "resume": _resume(run) if unfinished and run.last_checkpoint.is_file() else None,
        "answers": _text(record.get("answers")),
        "damaged": damaged,
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _test_scores(run: RunFolder) -> dict[str, float]:
    """A test's accuracy, or the token F1 of free answers, from its report."""
    try:
        report = json.loads(run.test_report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(report, dict):
        return {}
    name = "token_f1" if report.get("decided_by") == "exact_match" and "token_f1" in report else "accuracy"
    return finite_scores({f"test/{name}": report.get(name)})


def _state(record: Mapping[str, object]) -> str | None:
    """The record's state; where that is "running", whether its process still runs."""
    state = _text(record["state"])
    if state != "running":
        return state
    pid, host = record.get("pid"), record.get("host")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid < 1 or host != socket.gethostname():
        return "running or interrupted"
    return "running" if is_alive(record) else "interrupted"


def _time(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)  # type: ignore[arg-type]  # raises TypeError for another type
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def _started(record: Mapping[str, object], folder: Path) -> str | None:
    """The start in UTC; without a record the oldest file's time, which is nearest to it."""
    time = _time(record.get("started"))
    if time is None:
        times = [file.stat().st_mtime for file in folder.iterdir() if file.is_file()]
        time = datetime.fromtimestamp(min(times), timezone.utc) if times else None
    return None if time is None else time.astimezone(timezone.utc).isoformat(timespec="seconds")


def _bytes(folder: Path) -> int:
    """The size of the folder's files, links not followed; a file that disappears meanwhile counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(parent, name).lstat().st_size
    return total


def _resume(run: RunFolder) -> str:
    """`fit` reads its options from the run's own config.yaml, and goes on in the same folder."""
    words = ["--config", str(run.config)] if run.config.is_file() else []
    return shlex.join(["medqlora", "fit", *words, "--ckpt_path", str(run.last_checkpoint)])


def _table(runs: list[RunRow]) -> list[str]:
    heads = ("run", "command", "state", "best", "base", "size", "started (UTC)")
    rows = [
        (
            _shown(run["run"]),
            _shown(run["command"]),
            "damaged record" if run["damaged"] else _shown(run["state"]),
            ", ".join(f"{name} {value:.4f}" for name, value in run["best"].items()) or _UNKNOWN,
            _shown(run["base"] and base_words(run["base"])),
            _size(run["bytes"]),
            _UNKNOWN if run["started"] is None else run["started"][:16].replace("T", " "),
        )
        for run in runs
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
    for run, row in zip(runs, rows, strict=True):
        lines += [line(row), *(indent + note for note in _notes(run))]
    return lines


def _notes(run: RunRow) -> list[str]:
    """The lines below a run's own."""
    notes = []
    if run["damaged"]:
        notes.append(f"{run['damaged']}: what stands in this line is from the folder's files")
    if run["error"]:
        notes.append(f"ended by {printable_line(run['error'])[:120]}")
    if run["answers"]:
        notes.append(f"answers: {printable_line(run['answers'])}")
    if run["resume"]:
        when = "if it has ended" if run["state"] == "running or interrupted" else "go on"
        notes.append(f"{when}: {printable_line(run['resume'])}")
    return notes


def _shown(text: str | None) -> str:
    """The text in one line; of a long path the end, by which bases differ."""
    if text is None:
        return _UNKNOWN
    text = printable_line(text)
    return text if len(text) <= _WIDEST else "…" + text[1 - _WIDEST :]


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
