"""Finds the rows of a table that is stored as one JSON value.

Supported shapes: a list of objects; an object of objects, by id; an object of columns; the orients of pandas' `to_json`
(https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.to_json.html); `{"train": […], "test": […]}`;
and any of these as the only table inside an object: `{"version": 1, "data": […]}`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeGuard

from medqlora.data.bad_records import refuse
from medqlora.data.readers.rows import Part, Row, type_name
from medqlora.data.readers.splits import pick, split_named
from medqlora.data.wording import listed, plain, shown
from medqlora.errors import InputError
from medqlora.records import BadRecord
from medqlora.utils.types import Json

#: names of question columns, which identify a record
_QUESTIONS = frozenset(
    {"question", "query", "prompt", "instruction", "problem", "stem", "body", "sent1"}
    | {"messages", "conversations", "conversation"}
)
#: names of columns, which identify the side of a table that has the columns
_COLUMNS = _QUESTIONS | frozenset(
    {"id", "answer", "answers", "label", "labels", "context", "contexts", "options", "choices", "topics"}
    | {"input", "output", "completion", "response", "text", "long_answer", "final_decision"}
    | {"reasoning", "rationale", "explanation"}
)
#: names of the list of rows in an object with other content
_WRAPPERS = frozenset(
    {"data", "rows", "records", "examples", "items", "questions", "samples", "results"}
    | {"instances", "entries", "dataset", "cases"}
)
_DEEPEST = 4  # levels of objects around the rows


class _Rows(NamedTuple):
    """Rows as (key or None, value), and the terms for the file's remark."""

    rows: Iterable[tuple[str | None, Json]]
    words: tuple[str, ...]


def _without_keys(rows: Iterable[Json], *words: str) -> _Rows:
    return _Rows([(None, row) for row in rows], words)


class _Source(NamedTuple):
    file: Path
    split: str
    option: str


def rows_of(value: Json, file: Path, split: str, option: str, skipped: list[BadRecord] | None) -> Part:
    """Finds the rows of one JSON value.

    Args:
        value: the value.
        file: for messages.
        split: the split to select if the value has several: train, dev or test; "" to require a single one.
        option: the option that named the file, for messages.
        skipped: collects items that are not objects, which are left out; None makes them errors.

    Raises:
        InputError: the value has none of the shapes.
    """
    table = _table(value, _Source(file, split, option), 0)
    if table is None:
        if not isinstance(value, dict) or not value:
            kind = "an empty object" if value == {} else f"a JSON {type_name(value)}"
            raise InputError(f"{file}: holds {kind}: give a list of objects, or an object of objects")
        table = _without_keys([value], "one JSON object")
    rows = []
    for number, (key, row) in enumerate(table.rows, 1):
        where = f"{file}: item {number}" if key is None else f"{file}: key {plain(key)}"
        if isinstance(row, dict):
            rows.append(Row(where, number, key, row, str(file)))
        else:
            why = f"is a {type_name(row)}: each has to be an object"
            refuse(InputError(f"{where} {why}"), BadRecord(str(file), number, why), skipped)
    return Part(rows, table.words)


def is_record(value: Mapping[str, Json]) -> bool:
    """Whether an object is one row, not a container of rows."""
    if not any(isinstance(item, (dict, list)) for item in value.values()):
        return True
    questions = [item for key, item in value.items() if _is_name(key, _QUESTIONS)]
    if any(isinstance(item, str) for item in questions):
        return not any(_is_rows(item) and _is_name(key, _WRAPPERS) for key, item in value.items())
    # the turns of a chat, which are objects too
    return any(
        _is_rows(item) and any({"role", "from", "content", "value"} & set(turn) for turn in item)
        for item in questions
    )


def _is_name(key: str, names: frozenset[str]) -> bool:
    return key.strip().casefold() in names


def _table(value: Json, source: _Source, depth: int) -> _Rows | None:
    """The rows of a value; None if it has none of the shapes and may be a row."""
    if isinstance(value, list):
        return _without_keys(value, "a JSON list")
    if not isinstance(value, dict) or not value:
        return None
    table = _pandas(value, source.file)
    if table is not None or is_record(value):
        return table
    parts = [
        key for key, item in value.items() if split_named(key) and (isinstance(item, dict) or _is_list(item))
    ]
    others = [
        key for key, item in value.items() if key not in parts and (_is_rows(item) or _has_containers(item))
    ]
    if parts and not others:
        name = pick(parts, source.split, str(source.file), source.option)
        inner = _table(value[name], source._replace(split=""), depth + 1)
        return inner and _Rows(inner.rows, (*inner.words, f"its part {plain(name)}"))
    if _is_objects(value):
        if _keyed_by_column(value):
            return _by_column(value)
        return _inside(value, source, depth) or _Rows(value.items(), ("a JSON object of objects",))
    return _columns(value, source.file) or _inside(value, source, depth)


def _columns(value: Mapping[str, Json], file: Path) -> _Rows | None:
    """The rows of an object of columns; None for other objects.

    Raises:
        InputError: the columns differ in length.
    """
    columns = {key: item for key, item in value.items() if isinstance(item, list)}
    tables = [_is_rows(column) for column in columns.values()]
    if len(columns) < len(value) or all(tables):
        return None
    if len({len(column) for column in columns.values()}) == 1:
        cells = zip(*columns.values(), strict=True)
        rows: list[Json] = [dict(zip(columns, row, strict=True)) for row in cells]
        return _without_keys(rows, "a JSON object of columns")
    if not any(tables) and [] not in columns.values():
        counts = ", ".join(f"{plain(key)} {len(column)}" for key, column in list(columns.items())[:6])
        raise InputError(f"{file}: holds columns of different lengths ({counts}): correct it")
    return None


def _inside(value: Mapping[str, Json], source: _Source, depth: int) -> _Rows | None:
    """The rows of the only table inside an object."""
    lists = [key for key, item in value.items() if _is_list(item)]
    filled = [key for key in lists if value[key]] or lists
    if len(filled) > 1:
        filled = [key for key in filled if _is_name(key, _WRAPPERS)] or filled
    if len(filled) > 1:
        raise InputError(
            f"{source.file}: holds the lists {listed(filled)}: save the one that has the rows in a file of its own"
        )
    if filled:
        rows = value[filled[0]]
        assert isinstance(rows, list)
        pages = [
            row["row"]
            for row in rows
            if isinstance(row, dict) and "row_idx" in row and isinstance(row.get("row"), dict)
        ]
        # the dataset viewer of the Hub returns pages of {"row_idx": …, "row": {…}}
        return _without_keys(pages if len(pages) == len(rows) else rows, f"JSON, its list {shown(filled[0])}")
    objects = [(key, item) for key, item in value.items() if isinstance(item, dict) and item]
    if len(objects) == 1 and depth < _DEEPEST and not is_record(objects[0][1]):
        key, item = objects[0]
        inner = _table(item, source, depth + 1)
        return inner and _Rows(inner.rows, (*inner.words, f"inside {shown(key)}"))
    return None


def _is_rows(value: Json) -> TypeGuard[list[dict[str, Json]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _is_list(value: Json) -> bool:
    """Whether a value is a list of objects, also an empty one."""
    return value == [] or _is_rows(value)


def _is_objects(value: Mapping[str, Json]) -> TypeGuard[Mapping[str, dict[str, Json]]]:
    return all(isinstance(item, dict) for item in value.values())


def _has_containers(value: Json) -> bool:
    return isinstance(value, dict) and any(isinstance(item, (dict, list)) for item in value.values())


def _pandas(value: Mapping[str, Json], file: Path) -> _Rows | None:
    """The rows of `to_json` with orient split or table; databases write the former with "rows"."""
    data, names, schema = value.get("data", value.get("rows")), value.get("columns"), value.get("schema")
    if not isinstance(data, list):
        return None
    if isinstance(schema, dict) and isinstance(schema.get("fields"), list):
        index = schema.get("primaryKey") == ["index"]  # the row numbers, not a column of the table
        rows: list[Json] = [
            {key: cell for key, cell in row.items() if key != "index"}
            if index and isinstance(row, dict)
            else row
            for row in data
        ]
        return _without_keys(rows, "pandas' JSON, orient table")
    lists = [row for row in data if isinstance(row, list)]
    if not isinstance(names, list) or len(lists) < len(data):
        return None
    columns = [name for name in names if isinstance(name, str)]
    if not names or len(set(columns)) < len(names):
        return None
    for number, cells in enumerate(lists, 1):
        if len(cells) != len(names):
            raise InputError(
                f"{file}: item {number} has {len(cells)} cells, and there are {len(names)} columns: correct it"
            )
    labels = value.get("index")
    keys = _keys(map(str, labels)) if isinstance(labels, list) and len(labels) == len(data) else None
    return _Rows(
        zip(keys or [None] * len(data), (dict(zip(columns, row, strict=True)) for row in lists), strict=True),
        ("pandas' JSON, orient split",),
    )


def _by_column(value: Mapping[str, Mapping[str, Json]]) -> _Rows:
    labels = list(next(iter(value.values())))
    keys = _keys(labels) or [None] * len(labels)
    rows: list[Json] = [{name: column[label] for name, column in value.items()} for label in labels]
    return _Rows(zip(keys, rows, strict=True), ("pandas' JSON, orient columns",))


def _keys(labels: Iterable[str]) -> list[str | None] | None:
    """The row labels as keys; None if they are only numbers from 0."""
    keys: list[str | None] = list(labels)
    return None if keys == [str(number) for number in range(len(keys))] else keys


def _keyed_by_column(value: Mapping[str, Mapping[str, Json]]) -> bool:
    """Whether the outer keys of an object of objects are the columns, as in pandas' JSON, and not the rows."""
    inner = next(iter(value.values()))
    if not inner or any(other.keys() != inner.keys() for other in value.values()):
        return False
    if all(
        isinstance(cell, dict) and any(_is_name(name, _QUESTIONS) for name in cell) for cell in inner.values()
    ):
        return False  # {"data": {"1": {"question": …}, …}}: rows, not cells
    outside, inside = (any(_is_name(key, _COLUMNS) for key in keys) for keys in (value, inner))
    if outside != inside:
        return outside
    return all(map(str.isdecimal, inner)) and not all(map(str.isdecimal, value))
