"""What becomes of the records of a user's file that can't be used: an error, or a list of what was left out."""

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

#: what the list is called in a run's folder
FILE_NAME = "bad_records.jsonl"


def check_choice(value: str) -> None:
    """
    Raises:
        InputError: `value` is neither "error" nor "skip".
    """
    if value not in ("error", "skip"):
        raise InputError(f"--data.source.on_bad_record: {value!r}: give error or skip")


def refuse(error: InputError, bad: BadRecord, skipped: list[BadRecord] | None) -> None:
    """Raises the error, or takes the record down where there is a list of those that are left out.

    Args:
        error: the message, with its place.
        bad: the same for the list.
        skipped: the list; None where a bad record is an error.

    Raises:
        InputError: `error`, where `skipped` is None.
    """
    if skipped is None:
        raise error
    skipped.append(bad)


def remarks_on(skipped: Sequence[BadRecord]) -> tuple[str, ...]:
    """A line for each file of which records were left out, for `Source.remarks`."""
    counts = Counter(bad.file for bad in skipped)
    return tuple(
        f"{count:,} {'record' if count == 1 else 'records'} of {file} {'was' if count == 1 else 'were'} left "
        f"out, see {FILE_NAME}"
        for file, count in counts.items()
    )


def write_bad_records(path: Path, skipped: Sequence[BadRecord]) -> None:
    """Writes the list, a JSON object with `file`, `line` and `why` a line; whole or not at all.

    Args:
        path: the file to be written `FILE_NAME` in a run's folder, which exists.
        skipped: `Source.skipped`.

    Raises:
        OSError: it can't be written; what was there before is as it was.
    """
    write_text(path, "".join(f"{json.dumps(bad._asdict())}\n" for bad in skipped))
