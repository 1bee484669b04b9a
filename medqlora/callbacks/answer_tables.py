"""The answers of `predict` as a table, `.csv` or `.parquet`: written once, when the last answer is there.

Until then the answers grow in a file of lines beside it, from which an interrupted run goes on.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.callbacks.answers_file import NO_ANSWER, check_answer
from medqlora.errors import InputError
from medqlora.records import Record
from medqlora.utils.files import replacing
from medqlora.utils.types import Json

if TYPE_CHECKING:
    import pyarrow as pa

#: endings of tables; every other name is a file of lines
TABLES = (".csv", ".parquet")
_NUMBERS = {"confidence": "float64", "calibrated_on": "int64", "calibrated": "bool_"}
_PROBABILITY = "probability "


def is_table(path: Path) -> bool:
    """Whether answers go to `path` as a table."""
    return path.suffix.lower() in TABLES


def growing_file(path: Path) -> Path:
    """The file of lines in which the answers grow: `path` itself, or beside a table one of its own."""
    return path.with_name(f"{path.name}.partial.jsonl") if is_table(path) else path


def answered_rows(path: Path, questions: Sequence[Record], by: str) -> int:
    """The number of answers in a finished table; 0 where there is none, or where an interrupted run goes on.

    Raises:
        InputError: the file is no table of answers, or one to other questions or by another model.
    """
    if not path.exists() or growing_file(path).exists():
        return 0
    rows = _read(path)
    for number, row in enumerate(rows, 1):
        expected = questions[number - 1].id if number <= len(questions) else None
        check_answer(row.get("id"), row.get("by"), f"{path}: row {number}", expected, by)
    if len(rows) < len(questions):
        raise InputError(
            f"--answers.path: {path} holds {len(rows)} of the {len(questions)} answers, and a table is written once: "
            "name another, or remove the file"
        )
    return len(rows)


def write_table(lines: Path, path: Path) -> None:
    """Writes the table from the file of lines, which is then removed; a reader never sees a part of it.

    A label's probability has a column of its own, and so have the parts of a fixed reply.

    Raises:
        OSError: it can't be written; the lines stay.
    """
    with lines.open(encoding="utf-8") as stream:
        rows = [_flat(json.loads(line)) for line in stream]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    # probabilities last: a set of options differs from question to question
    columns.sort(key=lambda name: name.startswith(_PROBABILITY))
    with replacing(path) as out:
        if path.suffix.lower() == ".csv":
            out.write(_csv(rows, columns).encode("utf-8"))
        else:
            import pyarrow.parquet as pq

            pq.write_table(_arrow(rows, columns), out)
    lines.unlink()


def _flat(line: Mapping[str, Json]) -> dict[str, Json]:
    """An answer with a column for each value."""
    row: dict[str, Json] = {}
    for name, value in line.items():
        if name == "probabilities":
            row |= {f"{_PROBABILITY}{label}": share for label, share in _parts(value).items()}
        elif name == "reply":
            row |= {f"reply_{part}": _parts(value).get(part) for part in ("kind", "text")}
        else:
            row[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
    return row


def _parts(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _csv(rows: Iterable[Mapping[str, Json]], columns: Sequence[str]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(name) for name in columns]
        writer.writerow(
            "" if cell is None else str(cell).lower() if isinstance(cell, bool) else cell for cell in cells
        )
    return out.getvalue()


def _arrow(rows: Sequence[Mapping[str, Json]], columns: Sequence[str]) -> "pa.Table":
    import pyarrow as pa

    def column(name: str) -> "pa.Array":
        values = [row.get(name) for row in rows]
        number = "float64" if name.startswith(_PROBABILITY) else _NUMBERS.get(name)
        if number is not None:
            return pa.array(values, type=getattr(pa, number)())
        found = pa.array(values)
        return found.cast(pa.string()) if pa.types.is_null(found.type) else found

    return pa.table({name: column(name) for name in columns})


def _read(path: Path) -> list[dict[str, object]]:
    """The ids and the models of a table.

    Raises:
        InputError: it can't be read, or lacks these columns.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8", newline="") as stream:
                rows: list[dict[str, object]] = [dict(row) for row in csv.DictReader(stream)]
        else:
            import pyarrow.parquet as pq

            rows = pq.read_table(path, columns=["id", "by"]).to_pylist()
    except (OSError, ValueError, KeyError, csv.Error) as error:  # Arrow's errors are ValueErrors and OSErrors
        raise InputError(f"{path}: {NO_ANSWER}") from error
    if not rows or not {"id", "by"} <= rows[0].keys():
        raise InputError(f"{path}: {NO_ANSWER}")
    return rows
