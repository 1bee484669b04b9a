"""Excel workbooks (.xlsx) to rows: one sheet, whose first row with anything in it is the header.

Cells become the text that a CSV of the sheet would hold: whole numbers without ".0", dates as ISO 8601 has
them, true and false. openpyxl reads the file; formulas count with the value that Excel saved for them.
"""

import datetime
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

from medqlora.data.readers import compression
from medqlora.data.readers.rows import Part
from medqlora.data.readers.tables import header_of, named_rows
from medqlora.data.wording import listed, plain, reason, shown
from medqlora.errors import InputError

SUFFIXES = (".xlsx", ".xlsm")

_MOST_ROWS = (
    1_048_576  # of a sheet: https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3
)


def read_workbook(file: Path, data: bytes, sheet: str | None) -> Part:
    """All rows of one sheet.

    Args:
        file: for messages.
        data: the workbook.
        sheet: the sheet's name; the first when None.

    Raises:
        InputError: no workbook, no such sheet, or no table in it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            compression.check_size(sum(one.file_size for one in archive.infolist()), len(data), file)
    except zipfile.BadZipFile as error:
        raise InputError(f"{file}: this is no Excel workbook ({reason(error)}): save it as .xlsx") from error
    try:
        names, name, records = _cells(data, sheet, formulas=False)
        if records and any(value is None for _, cells in records for value in cells):
            _, _, formulas = _cells(data, sheet, formulas=True)
        else:
            formulas = records
    except _NoSheetError as error:
        raise InputError(
            f"--data.source.sheet: {file} has no sheet {shown(sheet)}; there are {listed(error.names)}: give one"
        ) from error
    except Exception as error:  # openpyxl raises whatever the XML in the archive brings up
        raise InputError(
            f"{file}: not an Excel workbook that can be read ({reason(error)}): save it again"
        ) from error
    place = f"{file}: sheet {plain(name)}, row"
    _check_formulas(place, records, formulas)
    texts = [(number, [_text(value) for value in cells]) for number, cells in records]
    texts = [(number, cells) for number, cells in texts if any(cell.strip() for cell in cells)]
    if not texts:
        raise InputError(f"{file}: the sheet {plain(name)} is empty: name another with --data.source.sheet")
    width = max(len(cells) for _, cells in texts)
    texts = [(number, [*cells, *[""] * (width - len(cells))]) for number, cells in texts]
    (number, first), *rest = texts
    words = f"sheet {plain(name)}" if len(names) == 1 else f"sheet {plain(name)} of {len(names)}"
    return Part(named_rows(file, header_of(first, f"{place} {number}"), rest), ("Excel", words))


class _NoSheetError(Exception):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names


def _cells(
    data: bytes, sheet: str | None, *, formulas: bool
) -> tuple[list[str], str, list[tuple[int, list[Any]]]]:
    """The names of the sheets, the one that is read, and its rows: their number and the values."""
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl tells of what it leaves out: styles, checks of input
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=not formulas)
        try:
            names = [one.title for one in book.worksheets]
            if not names or (sheet is not None and sheet not in names):
                raise _NoSheetError(names)
            chosen = book.worksheets[0 if sheet is None else names.index(sheet)]
            chosen.reset_dimensions()  # what the file says of its size is wrong in some, and would cut it
            records = []
            for number, cells in enumerate(chosen.iter_rows(values_only=True), 1):
                if number > _MOST_ROWS:
                    raise ValueError(f"it has more than {_MOST_ROWS:,} rows")
                if any(value is not None for value in cells):
                    records.append((number, list(cells)))
        finally:
            book.close()
    return names, chosen.title, records


def _check_formulas(
    place: str, values: list[tuple[int, list[Any]]], formulas: list[tuple[int, list[Any]]]
) -> None:
    """A formula without a saved value would be an empty cell, in silence."""
    saved = dict(values)
    for number, cells in formulas:
        for index, formula in enumerate(cells):
            value = saved.get(number, [])[index : index + 1]
            if isinstance(formula, str) and formula.startswith("=") and value in ([], [None]):
                raise InputError(
                    f"{place} {number}: the formula {shown(formula)} has no saved value: open the file in Excel and "
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
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    # a line end as other programs than Excel write it
    return str(value).replace("_x000D_\n", "\n").replace("_x000D_", "\n")
