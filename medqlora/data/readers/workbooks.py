"""Reads one sheet of an Excel workbook (.xlsx); its first row that is not empty is the header.

Cells become text as in a CSV export: whole numbers without ".0", ISO 8601 dates, true and false. openpyxl reads
the file; a formula has the value that Excel saved for it.
"""

import datetime
import io
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from medqlora.data.readers import compression
from medqlora.data.readers.rows import Part, ReadOptions
from medqlora.data.readers.splits import pick, split_named
from medqlora.data.readers.tables import header_of, named_rows
from medqlora.data.wording import listed, plain, reason, shown
from medqlora.errors import InputError

if TYPE_CHECKING:
    from openpyxl.cell import Cell
    from openpyxl.cell.read_only import EmptyCell, ReadOnlyCell

SUFFIXES = (".xlsx", ".xlsm")

#: rows of a sheet: https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3
_MOST_ROWS = 1_048_576

#: number and values of each row; a value is a text, number, boolean, date, time or formula, or None
_Records: TypeAlias = list[tuple[int, list[object]]]


def read_workbook(
    file: Path, data: bytes, split: str = "", option: str = "", options: ReadOptions | None = None
) -> Part:
    """Reads all rows of one sheet.

    Args:
        file: for messages.
        data: the bytes of the workbook.
        split: the split to select if every sheet is named for one; "" for the first sheet.
        option: the option that named the file, for messages.
        options: may name the sheet; otherwise the first visible sheet is read. None if the caller has no such
            option, so that messages suggest none.

    Raises:
        InputError: the file is not a workbook, or the sheet is missing or has no table.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            compression.check_size(sum(member.file_size for member in archive.infolist()), len(data), file)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{file}: this is not an Excel workbook ({reason(error)}): save it as .xlsx"
        ) from error
    try:
        choice = _Choice(options.sheet if options else None, split, str(file), option)
        names, name, records, empty = _cells(data, choice, formulas=False)
        formulas = _cells(data, choice, formulas=True).records if empty else records
    except InputError:
        raise
    except Exception as error:  # openpyxl raises various errors for invalid XML
        raise InputError(
            f"{file}: not an Excel workbook that can be read ({reason(error)}): save it again"
        ) from error
    where = f"{file}: sheet {plain(name)}, row"
    _check_formulas(where, records, formulas)
    texts = [(number, [_text(value) for value in cells]) for number, cells in records]
    texts = [(number, cells) for number, cells in texts if any(cell.strip() for cell in cells)]
    if not texts:
        fix = ", or name another with --data.source.sheet" if options else ""
        raise InputError(f"{file}: the sheet {plain(name)} is empty: put the table there{fix}")
    width = max(len(cells) for _, cells in texts)
    texts = [(number, [*cells, *[""] * (width - len(cells))]) for number, cells in texts]
    (number, first), *rest = texts
    words = f"sheet {plain(name)}" if len(names) == 1 else f"sheet {plain(name)} of {len(names)}"
    return Part(named_rows(file, header_of(first, f"{where} {number}"), rest), ("Excel", words))


class _Sheet(NamedTuple):
    """One sheet of a workbook.

    Attributes:
        names: the names of all sheets.
        name: the name of this sheet.
        records: the rows that are not empty, with their numbers counted from 1.
        empty: whether a cell has no value; it may have a formula.
    """

    names: list[str]
    name: str
    records: _Records
    empty: bool


class _Choice(NamedTuple):
    """The requested sheet or split, and the file and option for messages."""

    sheet: str | None
    split: str
    file: str
    option: str

    def of(self, names: list[str], visible: list[str]) -> str:
        """The name of the chosen sheet.

        Raises:
            InputError: the requested sheet or split is missing, or the split is ambiguous.
        """
        if not names or (self.sheet is not None and self.sheet not in names):
            raise InputError(
                f"--data.source.sheet: {self.file} has no sheet {shown(self.sheet)}; there are {listed(names)}: "
                "give one"
            )
        if self.sheet is not None:
            return self.sheet
        if self.split and len(visible) > 1 and all(map(split_named, visible)):
            return pick(visible, self.split, self.file, self.option)
        return (visible or names)[0]


def _cells(data: bytes, choice: _Choice, *, formulas: bool) -> _Sheet:
    """The chosen sheet, with the saved values of formulas or with the formulas."""
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl warns about ignored styles and input validation
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=not formulas)
        try:
            names = [sheet.title for sheet in book.worksheets]
            visible = [sheet.title for sheet in book.worksheets if sheet.sheet_state == "visible"]
            chosen = book.worksheets[names.index(choice.of(names, visible))]
            chosen.reset_dimensions()  # a wrong size in the file would truncate the sheet
            records: _Records = []
            empty = False
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


def _value(cell: "Cell | ReadOnlyCell | EmptyCell") -> object:
    """A cell's value; "" for a formula with an empty text as saved value, where openpyxl returns None."""
    return "" if cell.value is None and cell.data_type == "str" else cell.value


def _check_formulas(where: str, values: _Records, formulas: _Records) -> None:
    """Rejects formulas without a saved value, which would silently become empty cells."""
    saved = dict(values)
    for number, cells in formulas:
        for index, formula in enumerate(cells):
            value = saved.get(number, [])[index : index + 1]
            if formula is not None and value in ([], [None]):
                text = formula if isinstance(formula, str) else getattr(formula, "text", "of several cells")
                raise InputError(
                    f"{where} {number}: the formula {shown(text)} has no saved value: open the file in Excel and "
                    "save it, or give the values"
                )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, float):
        return format(value, ".15g")  # Excel's precision: 0.1 + 0.2 is 0.3
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    # line ends as programs other than Excel write them
    return str(value).replace("_x000D_\n", "\n").replace("_x000D_", "\n")
