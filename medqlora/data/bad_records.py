"""Unusable records of a user's file: an error, or a list of what was left out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from medqlora.errors import InputError
from medqlora.records import BadRecord
from medqlora.utils.files import write_text

#: the values of `on_bad_record`
OnBadRecord = Literal["error", "skip"]

#: the name of the list in a run's folder
FILE_NAME = "bad_records.jsonl"
#: lines that a remark names
_SHOWN = 3


def check_choice(value: str) -> None:
    """
    Raises:
        InputError: `value` is neither "error" nor "skip".
    """
    if value not in ("error", "skip"):
        raise InputError(f"--data.source.on_bad_record: {value!r}: give error or skip")


def refuse(error: InputError, bad: BadRecord, skipped: list[BadRecord] | None) -> None:
    """Raises the error, or adds the record to the list of skipped records.

    Args:
        error: the message, with file and line.
        bad: the list's entry.
        skipped: the list; None where a bad record is an error.

    Raises:
        InputError: `error`, where `skipped` is None.
    """
    if skipped is None:
        raise error
    skipped.append(bad)


def remarks_on(skipped: Sequence[BadRecord]) -> tuple[str, ...]:
    """A line for each file with skipped records, for `Source.remarks`."""
    lines: dict[str, list[int]] = {}
    for bad in skipped:
        lines.setdefault(bad.file, []).append(bad.line)
    return tuple(
        f"{len(of_file):,} {'record' if len(of_file) == 1 else 'records'} of {file} "
        f"{'was' if len(of_file) == 1 else 'were'} left out ({_places(sorted(of_file))}): "
        f"a run's {FILE_NAME} says why"
        for file, of_file in lines.items()
    )


def _places(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:_SHOWN])) + (", …" if len(lines) > _SHOWN else "")
    return f"line or row {shown}" if len(lines) == 1 else f"lines or rows {shown}"


def write_bad_records(path: Path, skipped: Sequence[BadRecord]) -> None:
    """Writes the list atomically, one JSON object with `file`, `line` and `why` per line.

    Args:
        path: the file to write (`FILE_NAME` in an existing run folder).
        skipped: `Source.skipped`.

    Raises:
        OSError: it can't be written; an earlier file stays unchanged.
    """
    write_text(path, "".join(json.dumps(bad._asdict()) + "\n" for bad in skipped))
