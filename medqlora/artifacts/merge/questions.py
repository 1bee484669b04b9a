"""The questions that an export is verified on: those that the adapter was validated on, or a file's."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path

from medqlora import data
from medqlora.data import SOURCES, Source
from medqlora.errors import InputError
from medqlora.records import Record, Splits

_FIX = "pass --questions FILE"
#: the fix that names an option of `fit`
_COLUMN = re.compile(r"name it with --data\.source\.fields\.(\w+) COLUMN")


def validation_questions(record: Mapping[str, object], where: str) -> list[Record]:
    """The adapter's validation questions, read again from the data that its record names.

    Args:
        record: the adapter's own (`medqlora.json`).
        where: the adapter's folder, for messages.

    Raises:
        InputError: the record names no questions, or its data can't be read any more.
    """
    ids = record.get("dev_ids")
    fix = f"{_FIX}, or --verify false"
    if not isinstance(ids, list) or not ids:
        raise InputError(f"--adapter {where}: its record names no validation questions: {fix}")
    splits = _splits(record, where, "validation", fix)
    wanted = {str(ident) for ident in ids}
    found = [one for one in (*splits.dev, *splits.train) if one.id in wanted]
    if len(found) < len(wanted):
        raise InputError(
            f"--adapter {where}: {len(wanted) - len(found)} of its {len(wanted)} validation questions are no longer in "
            f"its data: {fix}"
        )
    return found


def development_questions(record: Mapping[str, object], where: str) -> list[Record]:
    """The training and validation questions of the data that the adapter's record names, each id once.

    Args:
        record: the adapter's own (`medqlora.json`).
        where: the adapter's folder, for messages.

    Raises:
        InputError: the data can't be read any more.
    """
    splits = _splits(record, where, "training", _FIX)
    return list({one.id: one for one in (*splits.train, *splits.dev)}.values())


def test_questions(record: Mapping[str, object], where: str) -> list[Record]:
    """The test questions of the data that the adapter's record names.

    Args:
        record: the adapter's own (`medqlora.json`).
        where: the adapter's folder, for messages.

    Raises:
        InputError: the data can't be read any more, or has no test questions.
    """
    found = _splits(record, where, "test", _FIX).test
    if not found:
        raise InputError(f"--adapter {where}: its data has no test questions: {_FIX}")
    return list(found)


def _splits(record: Mapping[str, object], where: str, kind: str, fix: str) -> Splits:
    described = record.get("data")
    source = _source(described if isinstance(described, Mapping) else {})
    if source is None:
        raise InputError(f"--adapter {where}: the source of its data is not known: {fix}")
    try:
        return source.read()
    except InputError as error:
        raise InputError(
            f"--adapter {where}: its {kind} questions can't be read again ({error}): {fix}"
        ) from error


def _source(described: Mapping[str, object]) -> Source | None:
    """The source with the options that the record holds; None where there is no such source."""
    name = described.get("source")
    kind = next(
        (kind for registered, kind in SOURCES if name in (registered, getattr(kind, "name", None))), None
    )
    if kind is None:
        return None
    taken = inspect.signature(kind).parameters
    options = {name: value for name, value in described.items() if name in taken}
    try:
        return kind(**options)
    except (TypeError, InputError):
        return None


def file_questions(file: str) -> list[Record]:
    """The questions of a file with answers, as `medqlora.data.JSONLines` reads it.

    Raises:
        InputError: the file is missing or malformed.
    """
    source = data.JSONLines(train=str(Path(file)), dev_fraction=0)
    source.checks_test_questions = False  # nothing is trained on them
    try:
        return source.read().train
    except InputError as error:
        words = str(error).replace("--data.source.train", "--questions")
        raise InputError(_COLUMN.sub(r"name it \1", words)) from error
