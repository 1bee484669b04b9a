"""Unusable records of a user's file: an error, or a list of what was left out."""

import json
from collections import Counter
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
    counts = Counter(bad.file for bad in skipped)
    return tuple(
        f"{count:,} {'record' if count == 1 else 'records'} of {file} {'was' if count == 1 else 'were'} left "
        f"out, see {FILE_NAME}"
        for file, count in counts.items()
    )


def write_bad_records(path: Path, skipped: Sequence[BadRecord]) -> None:
    """Writes the list atomically, one JSON object with `file`, `line` and `why` per line.

    Args:
        path: the file to write (`FILE_NAME` in an existing run folder).
        skipped: `Source.skipped`.

    Raises:
        OSError: it can't be written; an earlier file stays unchanged.
    """
    write_text(path, "".join(json.dumps(bad._asdict()) + "\n" for bad in skipped))
