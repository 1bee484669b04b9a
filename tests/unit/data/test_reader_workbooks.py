"""Excel workbooks: the right sheet, cells as the text of a CSV, and no silent loss."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from reader_forms import ROWS, workbook

from medqlora.data.readers import ReadOptions, read_table
from medqlora.errors import InputError

TRAIN = "--data.source.train"


def put(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def read(path: str, sheet: str | None = None) -> tuple[list[dict], str]:
    rows, remark = read_table(path, TRAIN, None, ReadOptions(sheet=sheet))
    return [dict(row.value) for row in rows], remark


def refused(path: str, sheet: str | None = None) -> str:
    with pytest.raises(InputError) as found:
        read(path, sheet)
    assert str(found.value).isprintable()
    return str(found.value)


def changed_sheet(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A workbook with replaced XML of its first sheet, as other programs write it."""
    stream = io.BytesIO()
    whole = zipfile.ZipFile(io.BytesIO(data))
    with zipfile.ZipFile(stream, "w") as archive:
        for name in whole.namelist():
            old = whole.read(name)
            new = change(old) if name.endswith("sheet1.xml") else old
            assert (new != old) == name.endswith("sheet1.xml")
            archive.writestr(name, new)
    return stream.getvalue()


def test_the_first_or_the_named_sheet_is_read(tmp_path: Path) -> None:
    sheet = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    path = put(tmp_path, "a.xlsx", workbook({"Ward 7": sheet, "Other": [["q", "a"], ["x", "no"]]}))
    rows, remark = read(path)
    assert (rows, remark) == (ROWS, "a.xlsx: 12 rows, Excel, sheet Ward 7 of 2")
    assert read(path, sheet="Other")[0] == [{"q": "x", "a": "no"}]
    assert "--data.source.sheet: " in refused(path, sheet="None such")
    assert "there are Ward 7, Other: give one" in refused(path, sheet="None such")


def test_cells_become_the_text_of_a_csv(tmp_path: Path) -> None:
    import datetime

    cells = [
        (1, "1"), (1.0, "1"), (0.5, "0.5"), (0.1 + 0.2, "0.3"),
        (12345678901, "12345678901"), ("0012", "0012"), ("NA", "NA"),
        (True, "true"), (False, "false"), (None, ""), (datetime.datetime(2024, 1, 31), "2024-01-31"),
        (datetime.datetime(2024, 1, 31, 10, 5), "2024-01-31T10:05:00"), ("a\nb", "a\nb"), ("No", "No"),
    ]  # fmt: skip
    sheet: list[list[object]] = [
        [],
        ["id", "cell", None],
        *([f"r{n}", cell] for n, (cell, _) in enumerate(cells)),
        [],
    ]
    rows, _ = read(put(tmp_path, "a.xlsx", workbook({"S": sheet})))
    assert rows == [{"id": f"r{n}", "cell": text} for n, (_, text) in enumerate(cells)]


def test_a_formula_without_a_saved_value_is_an_error_rather_than_an_empty_cell(tmp_path: Path) -> None:
    path = put(tmp_path, "a.xlsx", workbook({"S": [["q", "a"], ["x", "yes"], ["y", '=IF(1>0,"yes","no")']]}))
    assert "sheet S, row 3: the formula" in refused(path)
    path = put(tmp_path, "a.xlsx", workbook({"S": [["q", "a"], ["x", "yes"], ['="y"', '="no"']]}))
    assert "sheet S, row 3: the formula" in refused(path)


def test_a_formula_whose_saved_value_is_an_empty_text_is_an_empty_cell(tmp_path: Path) -> None:
    data = changed_sheet(
        workbook({"S": [["q", "a"], ["x", '=""'], ["y", "no"]]}),
        lambda xml: re.sub(
            rb'<c r="B2"([^>]*)><f>""</f><v ?/?>(</v>)?</c>', rb'<c r="B2" t="str"><f>""</f><v></v></c>', xml
        ),
    )
    assert read(put(tmp_path, "a.xlsx", data))[0] == [{"q": "x", "a": ""}, {"q": "y", "a": "no"}]


def test_sheets_named_for_splits_are_selected_by_option(tmp_path: Path) -> None:
    path = put(tmp_path, "a.xlsx", workbook({"Train": [["q"], ["x"]], "Test": [["q"], ["y"]]}))
    assert read(path)[0] == [{"q": "x"}]
    assert read_table(path, "--data.source.test").rows[0].value == {"q": "y"}
    with pytest.raises(InputError, match="holds the parts Train, Test, and none of them is a dev set"):
        read_table(path, "--data.source.dev")
    assert read(path, sheet="Test")[0] == [{"q": "y"}]


def test_a_hidden_sheet_is_not_the_first(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(workbook({"lists": [["x"]], "Ward": [["q", "a"], ["x", "no"]]})))
    book["lists"].sheet_state = "hidden"
    book.save(tmp_path / "a.xlsx")
    rows, remark = read(str(tmp_path / "a.xlsx"))
    assert (rows, remark) == ([{"q": "x", "a": "no"}], "a.xlsx: 1 row, Excel, sheet Ward of 2")


def test_a_wrong_dimension_does_not_truncate_a_sheet(tmp_path: Path) -> None:
    """Some programs write a dimension of one cell."""
    data = changed_sheet(
        workbook({"S": [["q", "a"], ["x", "no"], ["y", "yes"]]}),
        lambda xml: xml.replace(b'<dimension ref="A1:B3"', b'<dimension ref="A1:A1"'),
    )
    assert read(put(tmp_path, "a.xlsx", data))[0] == [{"q": "x", "a": "no"}, {"q": "y", "a": "yes"}]
