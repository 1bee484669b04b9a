"""The shapes in which people keep a table in one JSON value, and the rows of each.

A list of objects; an object of objects, by id; an object of columns; pandas' `to_json` in its orients
(https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.to_json.html); `{"train": […], "test": […]}`;
and any of these as the one thing inside an object: `{"version": 1, "data": […]}`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medqlora.data.bad_records import refuse
from medqlora.data.readers.rows import Part, Row, type_name
from medqlora.data.readers.splits import pick, split_named
from medqlora.data.wording import listed, plain, shown
from medqlora.errors import InputError
from medqlora.records import BadRecord

#: columns by which a record, or the side of a table that has the columns, is told from the rest
_ASKED = frozenset(
    (
        *("question", "query", "prompt", "instruction", "problem", "stem", "body", "sent1"),
        *("messages", "conversations", "conversation"),
    )
)
_COLUMNS = _ASKED | frozenset(
    (
        *(
            "id",
            "answer",
            "answers",
            "label",
            "labels",
            "context",
            "contexts",
            "options",
            "choices",
            "topics",
        ),
        *("input", "output", "completion", "response", "text", "long_answer", "final_decision"),
        *("reasoning", "rationale", "explanation"),
    )
)
#: what the list of the rows is called beside other things
_WRAPPERS = frozenset(
    (
        *("data", "rows", "records", "examples", "items", "questions", "samples", "results"),
        *("instances", "entries", "dataset", "cases"),
    )
)
_DEEPEST = 4  # objects around the rows


class _Found(NamedTuple):
    """Rows as (key or None, value), and the words for the form."""

    rows: Iterable[tuple[str | None, Any]]
    words: tuple[str, ...]


def rows_of(value: Any, file: Path, split: str, option: str, skipped: list[BadRecord] | None) -> Part:
    """The rows of one JSON value.

    Args:
        value: the value.
        file: for messages.
        split: the part that is asked for, where the value has parts: train, dev or test; "" for the only one.
        option: the option that named the file, for messages.
        skipped: takes up items that are no objects, which are then left out; without it they are errors.

    Raises:
        InputError: it has none of the shapes.
    """
    found = _found(value, file, split, option, 0)
    if found is None:
        if isinstance(value, dict) and value:
            found = _Found([(None, value)], ("one JSON object",))
        else:
            kind = "an empty object" if value == {} else f"a JSON {type_name(value)}"
            raise InputError(f"{file}: holds {kind}: give a list of objects, or an object of objects")
    rows = []
    for number, (key, row) in enumerate(found.rows, 1):
        where = f"{file}: item {number}" if key is None else f"{file}: key {plain(key)}"
        if isinstance(row, dict):
            rows.append(Row(where, number, key, row, str(file)))
        else:
            why = f"is a {type_name(row)}: each has to be an object"
            refuse(InputError(f"{where} {why}"), BadRecord(str(file), number, why), skipped)
    return Part(rows, found.words)


def is_record(value: Mapping[str, Any]) -> bool:
    """Whether an object is one row by itself, rather than what holds rows."""
    if not any(isinstance(one, (dict, list)) for one in value.values()):
        return True
    asked = [one for key, one in value.items() if key.strip().casefold() in _ASKED]
    if any(isinstance(one, str) for one in asked):
        return not any(_rows(one) and key.strip().casefold() in _WRAPPERS for key, one in value.items())
    # turns of a chat, which are objects themselves
    return any(
        _rows(one) and any({"role", "from", "content", "value"} & set(turn) for turn in one) for one in asked
    )


def _found(value: Any, file: Path, split: str, option: str, depth: int) -> _Found | None:
    """The rows of a value; None where it has none of the shapes, and so may be a row itself."""
    if isinstance(value, list):
        return _Found(((None, item) for item in value), ("a JSON list",))
    if not isinstance(value, dict) or not value:
        return None
    found = _pandas(value, file)
    if found is not None or is_record(value):
        return found
    parts = [
        key
        for key, one in value.items()
        if split_named(key) and (isinstance(one, dict) or _rows(one) or one == [])
    ]
    others = [key for key, one in value.items() if key not in parts and (_rows(one) or _holds_objects(one))]
    if parts and not others:
        name = pick(parts, split, str(file), option)
        inner = _found(value[name], file, "", option, depth + 1)
        return inner and _Found(inner.rows, (*inner.words, f"its part {plain(name)}"))
    if all(isinstance(one, dict) for one in value.values()):
        if _keyed_by_column(value):
            return _by_column(value)
        return _inside(value, file, split, option, depth) or _Found(
            value.items(), ("a JSON object of objects",)
        )
    if all(isinstance(one, list) for one in value.values()) and not all(map(_rows, value.values())):
        lengths = {len(one) for one in value.values()}
        if len(lengths) == 1:
            names = list(value)
            rows = [dict(zip(names, cells, strict=True)) for cells in zip(*value.values(), strict=True)]
            return _Found(((None, row) for row in rows), ("a JSON object of columns",))
        if not any(map(_rows, value.values())) and [] not in value.values():
            counts = ", ".join(f"{plain(key)} {len(one)}" for key, one in list(value.items())[:6])
            raise InputError(f"{file}: holds columns of different lengths ({counts}): correct it")
    return _inside(value, file, split, option, depth)


def _inside(value: Mapping[str, Any], file: Path, split: str, option: str, depth: int) -> _Found | None:
    """The rows of the only thing in an object that has any."""
    lists = [key for key, one in value.items() if _rows(one) or one == []]
    filled = [key for key in lists if value[key]] or lists
    if len(filled) > 1 and [key for key in filled if key.strip().casefold() in _WRAPPERS]:
        filled = [key for key in filled if key.strip().casefold() in _WRAPPERS]
    if len(filled) > 1:
        raise InputError(
            f"{file}: holds the lists {listed(filled)}: save the one that has the rows in a file of its own"
        )
    if filled:
        rows = value[filled[0]]
        if rows and all(isinstance(row.get("row"), dict) and "row_idx" in row for row in rows):
            rows = [row["row"] for row in rows]  # the pages of the Hub's dataset viewer
        return _Found(((None, row) for row in rows), (f"JSON, its list {shown(filled[0])}",))
    objects = [key for key, one in value.items() if isinstance(one, dict) and one]
    if len(objects) == 1 and depth < _DEEPEST and not is_record(value[objects[0]]):
        inner = _found(value[objects[0]], file, split, option, depth + 1)
        return inner and _Found(inner.rows, (*inner.words, f"inside {shown(objects[0])}"))
    return None


def _rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(one, (dict, list)) for one in value.values())


def _pandas(value: Mapping[str, Any], file: Path) -> _Found | None:
    """`to_json` with orient split or table; databases write the former with "rows"."""
    data, names, schema = value.get("data", value.get("rows")), value.get("columns"), value.get("schema")
    if isinstance(schema, dict) and isinstance(schema.get("fields"), list) and isinstance(data, list):
        index = schema.get("primaryKey") == ["index"]  # the rows' numbers, no column of the table
        rows = [
            {key: one for key, one in row.items() if key != "index"}
            if index and isinstance(row, dict)
            else row
            for row in data
        ]
        return _Found(((None, row) for row in rows), ("pandas' JSON, orient table",))
    if not (
        isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data)
    ):
        return None
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return None
    for number, row in enumerate(data, 1):
        if len(row) != len(names):
            raise InputError(
                f"{file}: item {number} has {len(row)} cells, and there are {len(names)} columns: correct it"
            )
    labels = value.get("index")
    keys = _labels(map(str, labels)) if isinstance(labels, list) and len(labels) == len(data) else None
    return _Found(
        zip(keys or [None] * len(data), (dict(zip(names, row, strict=True)) for row in data), strict=True),
        ("pandas' JSON, orient split",),
    )


def _by_column(value: Mapping[str, Mapping[str, Any]]) -> _Found:
    labels = list(next(iter(value.values())))
    keys = _labels(labels) or [None] * len(labels)
    rows = [{name: column[label] for name, column in value.items()} for label in labels]
    return _Found(zip(keys, rows, strict=True), ("pandas' JSON, orient columns",))


def _labels(labels: Iterable[str]) -> list[str | None] | None:
    """The labels of the rows; None where they only count from 0."""
    held: list[str | None] = list(labels)
    return None if held == [str(number) for number in range(len(held))] else held


def _keyed_by_column(value: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether an object of objects has the columns outside, as pandas writes it, rather than the rows."""
    inner = next(iter(value.values()))
    if not inner or any(other.keys() != inner.keys() for other in value.values()):
        return False
    cells = list(inner.values())
    if all(
        isinstance(cell, dict) and any(name.strip().casefold() in _ASKED for name in cell) for cell in cells
    ):
        return False  # {"data": {"1": {"question": …}, …}}: rows, and not cells
    outside, inside = (any(key.strip().casefold() in _COLUMNS for key in keys) for keys in (value, inner))
    if outside != inside:
        return outside
    return all(map(str.isdecimal, inner)) and not all(map(str.isdecimal, value))
