"""JSON text to rows, whatever the extension says: one value, an object a line, or objects one after another."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from medqlora.data.bad_records import refuse
from medqlora.data.json_text import MalformedError, ends_at, parse_json
from medqlora.data.readers.decoding import escaped_byte, escaped_line
from medqlora.data.readers.json_shapes import is_record, rows_of
from medqlora.data.readers.rows import Part, Row, type_name
from medqlora.data.wording import shown
from medqlora.errors import InputError
from medqlora.records import BadRecord

LINES = (".jsonl", ".ndjson", ".jsonlines")
SUFFIXES = (*LINES, ".json")


def read_json_rows(
    file: Path, text: str, suffix: str, split: str, option: str, skipped: list[BadRecord] | None = None
) -> Part:
    """All rows of a JSON text.

    Args:
        file: for messages.
        text: the text.
        suffix: its extension: ".json" promises one value, anything else an object a line. Either may hold the other.
        split: the part that is asked for, where the text has parts; "" for the only one.
        option: the option that named the file, for messages.
        skipped: takes up the rows that can't be used, which are then left out; without it they are errors.

    Raises:
        InputError: malformed; names the line.
    """
    if suffix == ".json":
        try:
            whole = parse_whole(file, text)
        except InputError as error:
            cause = error.__cause__
            if (
                not (isinstance(cause, json.JSONDecodeError) and cause.msg == "Extra data")
                or _starts(text) == ""
            ):
                raise
            first, _ = _first_lines(text)
            by_line = _parses(first) and first.startswith("{")
            return _lines(file, text, skipped) if by_line else _sequence(file, text, skipped)
        return rows_of(whole, file, split, option, skipped)
    form = _form(text)
    if form == "value":
        return rows_of(parse_whole(file, text), file, split, option, skipped)
    return _sequence(file, text, skipped) if form == "sequence" else _lines(file, text, skipped)


def parse_whole(file: Path, text: str) -> Any:
    """A JSON text as it is.

    Raises:
        InputError: it is not JSON; names the line.
    """
    if broken := escaped_byte(text):
        raise InputError(f"{file}:{escaped_line(text)}: {broken}")
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}:{error.lineno}: not JSON ({error.msg}, column {error.colno}): correct it"
        ) from error
    except MalformedError as error:
        place = file if error.line is None else f"{file}:{error.line}"
        raise InputError(f"{place}: {error}") from error


def _starts(text: str) -> str:
    """The bracket that a text begins with; "" for anything else."""
    start = text.lstrip()[:1]
    return start if start in ("{", "[") else ""


def _first_lines(text: str) -> tuple[str, str]:
    """The first two lines with anything on them; "" for one that isn't there."""
    lines: list[str] = []
    start = 0
    while len(lines) < 2 and start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if text[start:end].strip():
            lines.append(text[start:end].strip())
        start = end + 1
    first, second, *_ = [*lines, "", ""]
    return first, second


def _parses(line: str) -> bool:
    """Whether a line is JSON by itself; `parse_json` says later what is wrong inside."""
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    except (RecursionError, ValueError):
        return True
    return True


def _form(text: str) -> str:
    """lines: an object a line; value: one value; sequence: objects of several lines each."""
    first, second = _first_lines(text)
    if _parses(first):
        if second or first[:1] not in ("{", "["):
            return "lines"
        try:
            value = parse_json(first)
        except ValueError:
            return "lines"
        return "lines" if isinstance(value, dict) and is_record(value) else "value"
    if not _starts(text):
        return "lines"
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.count("\n", 0, error.pos) > text[
            : len(text) - len(text.lstrip())
        ].count("\n"):
            return "sequence"
        # a bracket by itself opens a value of several lines, unless whole lines stand below it
        return "value" if first in ("{", "[") and not _parses(second) else "lines"
    except (RecursionError, ValueError):
        return "value"
    return "value"


def _lines(file: Path, text: str, skipped: list[BadRecord] | None) -> Part:
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 may stand in a string
        if not line.strip():
            continue
        values: list[Any] = []
        why = escaped_byte(line)
        try:
            values = _on_line(line) if why is None else []
        except json.JSONDecodeError as error:
            why = f"not JSON ({error.msg}, column {error.colno}): {shown(line[:50])}: correct it"
        except MalformedError as error:
            why = str(error)
        strange = next((value for value in values if not isinstance(value, dict)), None)
        if why is None and (strange is not None or not all(isinstance(value, dict) for value in values)):
            why = f"holds a {type_name(strange)}: each line has to be an object"
        if why is None:
            rows += [Row(f"{file}:{number}", number, None, value, str(file)) for value in values]
        else:
            refuse(InputError(f"{file}:{number}: {why}"), BadRecord(str(file), number, why), skipped)
    return Part(_apart(rows), ("JSON lines",))


def _on_line(line: str) -> list[Any]:
    """The value of a line; or several where files were put one behind the other without a line end."""
    try:
        return [parse_json(line)]
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or not line.lstrip().startswith("{"):
            raise
        values, start = [], 0
        while (start := _next(line, start)) < len(line):
            if line[start] != "{":
                raise
            end = ends_at(line, start)
            values.append(parse_json(line[start:end]))
            start = end
        return values


def _next(text: str, start: int) -> int:
    """Where the next value begins, behind spaces, byte order marks and record separators (RFC 7464)."""
    while start < len(text) and (text[start].isspace() or text[start] in "\ufeff\x1e"):
        start += 1
    return start


def _sequence(file: Path, text: str, skipped: list[BadRecord] | None) -> Part:
    """Objects, or lists of them, one after another; each may have several lines."""
    if broken := escaped_byte(text):
        raise InputError(f"{file}:{escaped_line(text)}: {broken}")
    rows: list[Row] = []
    start, line, counted = 0, 1, 0
    while (start := _next(text, start)) < len(text):
        line += text.count("\n", counted, start)
        counted = start
        try:
            end = ends_at(text, start)
        except json.JSONDecodeError as error:
            why = f"not JSON ({error.msg}, column {error.colno}): correct it"
            raise InputError(f"{file}:{error.lineno}: {why}") from error
        except MalformedError as error:
            raise InputError(f"{file}:{line}: {error}") from error
        try:
            value = parse_json(text[start:end])
        except MalformedError as error:
            place = line + (error.line or 1) - 1
            refuse(InputError(f"{file}:{place}: {error}"), BadRecord(str(file), place, str(error)), skipped)
            value = []
        start = end
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                rows.append(Row(f"{file}:{line}", line, None, item, str(file)))
            else:
                why = f"holds a {type_name(item)}: each value has to be an object"
                refuse(InputError(f"{file}:{line}: {why}"), BadRecord(str(file), line, why), skipped)
    return Part(_apart(rows), ("JSON objects one after another",))


def _apart(rows: list[Row]) -> list[Row]:
    """The rows; those that begin on the same line get keys ("3.1", "3.2"), since ids are made of lines and keys."""
    counts = Counter(row.number for row in rows)
    if len(counts) == len(rows):
        return rows
    begun: Counter[int] = Counter()
    result = []
    for row in rows:
        begun[row.number] += 1
        several = counts[row.number] > 1
        result.append(row._replace(key=f"{row.number}.{begun[row.number]}") if several else row)
    return result
