"""The same twelve records in every supported format, for the tests of the readers."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from typing import Any

ROWS: list[dict[str, str]] = [
    {
        "id": f"q{n}",
        "question": f"Does naïve drug {n}, 5 µg; given «daily», help Ménière's disease?",
        "contexts": f'We gave it to {n} adults.\nIt "worked" in 30%|40%; p < 0.01.',
        "answer": ("yes", "no", "NA")[n % 3],
        "code": f"00{n}",
    }
    for n in range(12)
]


def table(rows: list[dict[str, str]], separator: str = ",", end: str = "\r\n") -> str:
    """Delimited text with the necessary quotes."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=separator, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def lines(rows: list[dict[str, Any]]) -> str:
    """JSON lines, one object per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def workbook(sheets: dict[str, list[list[object]]]) -> bytes:
    """A workbook with these sheets."""
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def _dump(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _pandas(orient: str) -> str:
    import pandas as pd

    return str(pd.DataFrame(ROWS).to_json(orient=orient, force_ascii=False))  # type: ignore[call-overload]


_COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}

#: name → JSON text of the twelve records
JSON: dict[str, Callable[[], str]] = {
    "lines": lambda: lines(ROWS),
    "list": lambda: _dump(ROWS),
    "pretty list": lambda: _dump(ROWS, 2),
    "pretty objects": lambda: "\n".join(_dump(row, 2) for row in ROWS),
    "objects without line ends": lambda: "".join(map(_dump, ROWS)),
    "objects on two lines": lambda: "".join(map(_dump, ROWS[:7])) + "\r\n" + "\r".join(map(_dump, ROWS[7:])),
    "data": lambda: _dump({"version": "1.0", "data": ROWS}),
    "any list, pretty": lambda: _dump({"ward": "7", "cases seen": ROWS, "errors": []}, 2),
    "list two levels down": lambda: _dump({"meta": "x", "result": {"total": 12, "hits": ROWS}}),
    "columns": lambda: _dump(_COLUMNS),
    "viewer": lambda: _dump(
        {
            "features": [{"feature_idx": 0, "name": "id"}],
            "rows": [{"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(ROWS)],
        }
    ),
    "pandas records": lambda: _pandas("records"),
    "pandas columns": lambda: _pandas("columns"),
    "pandas index": lambda: _pandas("index"),
    "pandas split": lambda: _pandas("split"),
    "pandas table": lambda: _pandas("table"),
    "splits": lambda: _dump({"info": "x", "train": ROWS, "validation": ROWS[:2], "test": ROWS[2:3]}),
    "splits of columns": lambda: _dump(
        {"train": _COLUMNS, "test": {name: [one[0]] for name, one in _COLUMNS.items()}}
    ),
}


def _zip(data: bytes, name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
        archive.writestr("__MACOSX/._" + name, b"\x00")
    return stream.getvalue()


def _zstandard(data: bytes, name: str) -> bytes:
    import zstandard

    half = len(data) // 2  # two frames, as from `cat a.zst b.zst`
    return zstandard.compress(data[:half]) + zstandard.compress(data[half:])


#: extension → bytes and the name inside, compressed
COMPRESSED: dict[str, Callable[[bytes, str], bytes]] = {
    ".gz": lambda data, name: gzip.compress(data),
    ".bz2": lambda data, name: bz2.compress(data),
    ".xz": lambda data, name: lzma.compress(data),
    ".zst": _zstandard,
    ".zip": _zip,
}

#: name → encoded text; texts of code pages ("cp…") use only letters that the page has
ENCODED: dict[str, Callable[[str], bytes]] = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16 LE with a mark": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "UTF-16 BE with a mark": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 LE": lambda text: text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: text.encode("utf-16-be"),
    "cp1252": lambda text: text.encode("cp1252"),
    "latin-1": lambda text: text.encode("latin-1"),
}
