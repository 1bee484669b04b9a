"""Excel workbooks (.xlsx) to rows: one sheet, whose first row with anything in it is the header.

Cells become the text that a CSV of the sheet would hold: whole numbers without ".0", dates as ISO 8601 has
them, true and false. openpyxl reads the file; formulas count with the value that Excel saved for them.
"""

import datetime
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from medqlora.data.readers import compression
from medqlora.data.readers.rows import Part, ReadOptions
from medqlora.data.readers.splits import pick, split_named
from medqlora.data.readers.tables import header_of, named_rows
from medqlora.data.wording import listed, plain, reason, shown
from medqlora.errors import InputError

SUFFIXES = (".xlsx", ".xlsm")

_MOST_ROWS = (
    1_048_576  # of a sheet: https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3
)


def read_workbook(
    file: Path, data: bytes, split: str = "", option: str = "", options: ReadOptions | None = None
) -> Part:
    """All rows of one sheet.

    Args:
        file: for messages.
        data: the workbook.
        split: the part that is asked for, where every sheet is named for one; "" for the first sheet.
        option: the option that named the file, for messages.
        options: names the sheet; else the first is read that isn't hidden. None where there is no option
            for it, and messages offer none.

    Raises:
        InputError: no workbook, no such sheet, or no table in it.
    """
    sheet = options.sheet if options else None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            compression.check_size(sum(one.file_size for one in archive.infolist()), len(data), file)
    except zipfile.BadZipFile as error:
        raise InputError(f"{file}: this is no Excel workbook ({reason(error)}): save it as .xlsx") from error
    try:
        chosen = _Choice(sheet, split, str(file), option)
        names, name, records, empty = _cells(data, chosen, formulas=False)
        formulas = _cells(data, chosen, formulas=True).records if empty else records
    except _NoSheetError as error:
        raise InputError(
            f"--data.source.sheet: {file} has no sheet {shown(sheet)}; there are {listed(error.names)}: give one"
        ) from error
    except InputError:
        raise
    except Exception as error:  # openpyxl raises whatever the XML in the archive brings up
        raise InputError(
            f"{file}: not an Excel workbook that can be read ({reason(error)}): save it again"
        ) from error
    place = f"{file}: sheet {plain(name)}, row"
    _check_formulas(place, records, formulas)
    texts = [(number, [_text(value) for value in cells]) for number, cells in records]
    texts = [(number, cells) for number, cells in texts if any(cell.strip() for cell in cells)]
    if not texts:
        fix = ", or name another with --data.source.sheet" if options else ""
        raise InputError(f"{file}: the sheet {plain(name)} is empty: put the table there{fix}")
    width = max(len(cells) for _, cells in texts)
    texts = [(number, [*cells, *[""] * (width - len(cells))]) for number, cells in texts]
    (number, first), *rest = texts
    words = f"sheet {plain(name)}" if len(names) == 1 else f"sheet {plain(name)} of {len(names)}"
    return Part(named_rows(file, header_of(first, f"{place} {number}"), rest), ("Excel", words))


class _Sheet(NamedTuple):
    """One sheet of a workbook.

    Attributes:
        names: the names of all sheets.
        name: its own.
        records: the number of each row that is not empty, counted from 1, and its values.
        empty: there is a cell without a value, which may hold a formula.
    """

    names: list[str]
    name: str
    records: list[tuple[int, list[Any]]]
    empty: bool


class _Choice(NamedTuple):
    """Which sheet is meant: by its name, or by the part that is asked for; and the words for messages."""

    sheet: str | None
    split: str
    file: str
    option: str

    def of(self, names: list[str], visible: list[str]) -> str:
        """The name of the sheet.

        Raises:
            _NoSheetError: none has the name that is given.
            InputError: the sheets are parts, and none is the one that is asked for.
        """
        if not names or (self.sheet is not None and self.sheet not in names):
            raise _NoSheetError(names)
        if self.sheet is not None:
            return self.sheet
        if self.split and len(visible) > 1 and all(map(split_named, visible)):
            return pick(visible, self.split, self.file, self.option)
        return (visible or names)[0]


class _NoSheetError(Exception):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names


def _cells(data: bytes, choice: _Choice, *, formulas: bool) -> _Sheet:
    """A sheet with the values that Excel saved, or with the formulas in their place."""
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl tells of what it leaves out: styles, checks of input
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=not formulas)
        try:
            names = [one.title for one in book.worksheets]
            visible = [one.title for one in book.worksheets if one.sheet_state == "visible"]
            chosen = book.worksheets[names.index(choice.of(names, visible))]
            chosen.reset_dimensions()  # what the file says of its size is wrong in some, and would cut it
            records, empty = [], False
            for number, row in enumerate(chosen.iter_rows(), 1):
                cells = [_value(cell) for cell in row]
                if number > _MOST_ROWS:
                    raise ValueError(f"it has more than {_MOST_ROWS:,} rows")
                empty = empty or None in cells
                if any(value is not None for value in cells):
                    records.append((number, cells))
        finally:
            book.close()
    return _Sheet(names, chosen.title, records, empty)


def _value(cell: Any) -> Any:
    """A cell's value; openpyxl gives None for a formula whose saved value is an empty text, too."""
    return "" if cell.value is None and cell.data_type == "str" else cell.value


def _check_formulas(
    place: str, values: list[tuple[int, list[Any]]], formulas: list[tuple[int, list[Any]]]
) -> None:
    """A formula without a saved value would be an empty cell, in silence."""
    saved = dict(values)
    for number, cells in formulas:
        for index, formula in enumerate(cells):
            value = saved.get(number, [])[index : index + 1]
            if formula is not None and value in ([], [None]):
                text = formula if isinstance(formula, str) else getattr(formula, "text", "of several cells")
                raise InputError(
                    f"{place} {number}: the formula {shown(text)} has no saved value: open the file in Excel and "
                    "save it, or give the values"
                )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, float):
        return format(value, ".15g")  # the digits that Excel has: 0.1 + 0.2 is 0.3
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    # a line end as other programs than Excel write it
    return str(value).replace("_x000D_\n", "\n").replace("_x000D_", "\n")
