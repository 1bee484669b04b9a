"""Reads the rows of JSON text: one value, one object per line, or several objects, whatever the extension."""

import json
from collections import Counter
from pathlib import Path

from medqlora.data.bad_records import refuse
from medqlora.data.json_text import MalformedError, ends_at, parse_json
from medqlora.data.readers.decoding import escaped_byte, escaped_line
from medqlora.data.readers.json_shapes import is_record, rows_of
from medqlora.data.readers.rows import Part, Row, type_name
from medqlora.data.wording import shown
from medqlora.errors import InputError
from medqlora.records import BadRecord
from medqlora.utils.types import Json

SUFFIXES = (".jsonl", ".ndjson", ".jsonlines", ".json")


def read_json_rows(
    file: Path, text: str, suffix: str, split: str, option: str, skipped: list[BadRecord] | None = None
) -> Part:
    """Reads all rows of a JSON text.

    Args:
        file: for messages.
        text: the text.
        suffix: the extension: ".json" suggests one value, any other one object per line. Either may hold the other.
        split: the split to select if the text has several; "" to require a single one.
        option: the option that named the file, for messages.
        skipped: collects the unusable rows, which are left out; None makes them errors.

    Raises:
        InputError: the text is malformed; names the line.
    """
    if suffix == ".json":
        try:
            value = parse_whole(file, text)
        except InputError as error:
            cause = error.__cause__
            several = isinstance(cause, json.JSONDecodeError) and cause.msg == "Extra data"
            if not several or not _starts_with_bracket(text):
                raise
            first, _ = _first_lines(text)
            by_line = _parses(first) and first.startswith("{")
            return _lines(file, text, skipped) if by_line else _sequence(file, text, skipped)
        return rows_of(value, file, split, option, skipped)
    layout = _layout(text)
    if layout == "value":
        return rows_of(parse_whole(file, text), file, split, option, skipped)
    return _sequence(file, text, skipped) if layout == "sequence" else _lines(file, text, skipped)


def parse_whole(file: Path, text: str) -> Json:
    """Parses a text that is one JSON value.

    Raises:
        InputError: the text is not JSON; names the line.
    """
    if broken := escaped_byte(text):
        raise InputError(f"{file}:{escaped_line(text)}: {broken}")
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}: {_not_json(error)}: correct it") from error
    except MalformedError as error:
        where = file if error.line is None else f"{file}:{error.line}"
        raise InputError(f"{where}: {error}") from error


def _not_json(error: json.JSONDecodeError) -> str:
    return f"not JSON ({error.msg}, column {error.colno})"


def _starts_with_bracket(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[")


def _first_lines(text: str) -> tuple[str, str]:
    """The first two lines that are not blank; "" for a missing line."""
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
    """Whether a line is JSON; `parse_json` reports violations inside it later."""
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    except (RecursionError, ValueError):
        return True
    return True


def _layout(text: str) -> str:
    """lines: one object per line; value: one value; sequence: several objects of several lines each."""
    first, second = _first_lines(text)
    if _parses(first):
        if second or first[:1] not in ("{", "["):
            return "lines"
        try:
            value = parse_json(first)
        except ValueError:
            return "lines"
        return "lines" if isinstance(value, dict) and is_record(value) else "value"
    if not _starts_with_bracket(text):
        return "lines"
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        blank = text[: len(text) - len(text.lstrip())]
        if error.msg == "Extra data" and text.count("\n", 0, error.pos) > blank.count("\n"):
            return "sequence"
        # a line with only a bracket opens a value of several lines, unless the next line is a complete value
        return "value" if first in ("{", "[") and not _parses(second) else "lines"
    except (RecursionError, ValueError):
        return "value"
    return "value"


def _lines(file: Path, text: str, skipped: list[BadRecord] | None) -> Part:
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 is valid inside a string
        if not line.strip():
            continue
        objects: list[dict[str, Json]] = []
        why = escaped_byte(line)
        try:
            values = _on_line(line) if why is None else []
            objects = [value for value in values if isinstance(value, dict)]
            if len(objects) < len(values):
                other = next(value for value in values if not isinstance(value, dict))
                why = f"holds a {type_name(other)}: each line has to be an object"
        except json.JSONDecodeError as error:
            why = f"{_not_json(error)}: {shown(line[:50])}: correct it"
        except MalformedError as error:
            why = str(error)
        if why is None:
            rows += [Row(f"{file}:{number}", number, None, value, str(file)) for value in objects]
        else:
            _refuse(file, number, why, skipped)
    return Part(_with_keys(rows), ("JSON lines",))


def _refuse(file: Path, line: int, why: str, skipped: list[BadRecord] | None) -> None:
    refuse(InputError(f"{file}:{line}: {why}"), BadRecord(str(file), line, why), skipped)


def _on_line(line: str) -> list[Json]:
    """The value of a line; several values if files were concatenated without a line break."""
    try:
        return [parse_json(line)]
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or not line.lstrip().startswith("{"):
            raise
        values, start = [], 0
        while (start := _next_value(line, start)) < len(line):
            if line[start] != "{":
                raise
            end = ends_at(line, start)
            values.append(parse_json(line[start:end]))
            start = end
        return values


def _next_value(text: str, start: int) -> int:
    """The index of the next value, after spaces, byte order marks and record separators (RFC 7464)."""
    while start < len(text) and (text[start].isspace() or text[start] in "\ufeff\x1e"):
        start += 1
    return start


def _sequence(file: Path, text: str, skipped: list[BadRecord] | None) -> Part:
    """Reads consecutive objects or lists of objects, each of one or more lines."""
    if broken := escaped_byte(text):
        raise InputError(f"{file}:{escaped_line(text)}: {broken}")
    rows: list[Row] = []
    start, line, counted = 0, 1, 0
    while (start := _next_value(text, start)) < len(text):
        line += text.count("\n", counted, start)
        counted = start
        try:
            end = ends_at(text, start)
        except json.JSONDecodeError as error:
            raise InputError(f"{file}:{error.lineno}: {_not_json(error)}: correct it") from error
        except MalformedError as error:
            raise InputError(f"{file}:{line}: {error}") from error
        try:
            value = parse_json(text[start:end])
        except MalformedError as error:
            _refuse(file, line + (error.line or 1) - 1, str(error), skipped)
            value = []
        start = end
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                rows.append(Row(f"{file}:{line}", line, None, item, str(file)))
            else:
                _refuse(file, line, f"holds a {type_name(item)}: each value has to be an object", skipped)
    return Part(_with_keys(rows), ("JSON objects one after another",))


def _with_keys(rows: list[Row]) -> list[Row]:
    """The rows, with keys ("3.1", "3.2") for those that begin on the same line: ids need distinct keys or lines."""
    counts = Counter(row.number for row in rows)
    if len(counts) == len(rows):
        return rows
    seen: Counter[int] = Counter()
    result = []
    for row in rows:
        seen[row.number] += 1
        several = counts[row.number] > 1
        result.append(row._replace(key=f"{row.number}.{seen[row.number]}") if several else row)
    return result
