"""Reads delimited text: CSV, TSV and Excel's variants. Every cell is text and stays unchanged.

The header and the rows determine the separator; the extension only breaks ties.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from medqlora.data.bad_records import refuse
from medqlora.data.readers.decoding import escaped_byte
from medqlora.data.readers.rows import Part, Row
from medqlora.data.wording import reason, shown
from medqlora.errors import InputError
from medqlora.records import BadRecord

#: extension → default separator; other text has one column
EXTENSIONS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}

_SEPARATORS = (",", ";", "\t", "|")
#: the separator of text with one column
_NO_SEPARATOR = "\x1f"
_WORDS = {"\t": "tab-separated", _NO_SEPARATOR: "one column"}
_SAMPLE = 50  # rows that determine the separator
# Excel's first line, alone or padded with separators to the width of the table
_SEP_LINE = re.compile(r'"?sep=([^\r\n"])"?\1*[ \t]*(?:\r\n|\r|\n)', re.IGNORECASE)


class Dialect(NamedTuple):
    """The CSV dialect of a text.

    Attributes:
        separator: the character between two cells; U+001F for text with one column.
        skipped: the number of lines before the header.
        spaced: a space follows each separator and is not part of a cell.
        quoted: every name in the header is quoted.
    """

    separator: str
    skipped: int = 0
    spaced: bool = False
    quoted: bool = False


def read_delimited(
    file: Path, text: str, skipped: list[BadRecord] | None = None, suffix: str = ".csv"
) -> Part:
    """Reads all rows of a table with a header.

    Args:
        file: for messages.
        text: the file's text.
        skipped: collects the unusable rows, which are left out; None makes them errors.
        suffix: the extension of the file.

    Raises:
        InputError: the text is not a table, or a row and the header differ in their number of cells.
    """
    with _long_cells():
        dialect, text = find_dialect(text, suffix)
        if "\ufeff" in text:
            # concatenated files: the header of the second follows the unterminated last line of the first
            header = text.partition("\n")[0]
            text = text.replace("\ufeff" + header.rstrip("\r"), "\n" + header)
        already = len(skipped or ())
        try:
            return _with_header(file, _tabs(file, text, dialect), dialect, skipped)
        except InputError:
            if '\\"' in text:  # MySQL and Spark escape quotes with a backslash
                with suppress(InputError):
                    part = _with_header(file, _records(file, text, dialect, escaped=True), dialect, None)
                    del (skipped or [])[already:]
                    return part
            raise


@contextmanager
def _long_cells() -> Iterator[None]:
    """Raises csv's cell limit of 128 KiB, which is less than a full text, inside the block."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def read_bare(file: Path, text: str, columns: Sequence[str]) -> list[Row]:
    """Reads all rows of a comma-separated table without a header.

    Raises:
        InputError: the text is not a table, or a row and `columns` differ in length.
    """
    rows = []
    with _long_cells():
        for line, cells in _records(file, text, Dialect(",")):
            if len(cells) != len(columns):
                raise InputError(f"{file}:{line}: {_miscounted(len(cells), f'not {len(columns)}')}")
            rows.append(Row(f"{file}:{line}", line, None, dict(zip(columns, cells, strict=True)), str(file)))
    return rows


def looks_delimited(text: str) -> bool:
    """Whether a text is certainly a table: a header of two or more columns, and each sampled row as wide."""
    with _long_cells():
        dialect, text = find_dialect(text, "")
        return dialect.separator != _NO_SEPARATOR and _agreement(_sample(text, dialect.separator))[0] == 1


def find_dialect(text: str, suffix: str) -> tuple[Dialect, str]:
    """Detects the dialect; returns it with the text from the header on.

    Args:
        text: the text, with or without "sep=;" in its first line.
        suffix: the extension, which breaks ties.
    """
    skipped, separator = 0, ""
    if named := _SEP_LINE.match(text):
        separator, text, skipped = named[1], text[named.end() :], 1
    hint = EXTENSIONS.get(suffix, _NO_SEPARATOR)
    if not separator:
        scores = {}
        for candidate in _SEPARATORS:
            agreeing, width = _agreement(_sample(text, candidate))
            if width > 1:
                scores[candidate] = (agreeing, candidate == hint, width)
        separator = max(scores, key=scores.__getitem__) if scores else hint
    header = next(iter(_sample(text, separator, 1)), [])
    spaced = len(header) > 1 and all(cell.startswith(" ") for cell in header[1:])
    line = next(iter(text.lstrip().splitlines()), "")
    quoted = line.count('"') == 2 * len(header) and line[:1] == line.rstrip()[-1:] == '"'
    return Dialect(separator, skipped, spaced, quoted), text


def _sample(text: str, separator: str, count: int = _SAMPLE) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    records: list[list[str]] = []
    with suppress(csv.Error):
        for cells in islice((cells for cells in reader if any(cell.strip() for cell in cells)), count):
            records.append(cells)  # noqa: PERF402 - an error keeps the rows before it
    return records


def _agreement(records: list[list[str]]) -> tuple[float, int]:
    """The fraction of rows with as many cells as the header, and the number of names in the header."""
    if not records:
        return 0.0, 0
    header, *rows = records
    width = sum(bool(cell.strip()) for cell in header)
    return sum(len(cells) == len(header) for cells in rows) / max(len(rows), 1), width


def _tabs(file: Path, text: str, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """The records; if tab-separated text is invalid with quoting, it is read without.

    The registered TSV format has no quoting, so a quote is an ordinary character:
    https://www.iana.org/assignments/media-types/text/tab-separated-values
    """
    if dialect.separator != "\t":
        return _records(file, text, dialect)
    try:
        return iter(list(_records(file, text, dialect)))
    except InputError:
        unquoted = list(_records(file, text, dialect, quoted=False))
        if any(len(cells) != len(unquoted[0][1]) for _, cells in unquoted):
            raise
        return iter(unquoted)


def _records(
    file: Path, text: str, dialect: Dialect, *, quoted: bool = True, escaped: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The first line of each record, counted from 1, and its cells; blank records are left out."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=dialect.separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
        skipinitialspace=dialect.spaced,
        doublequote=not escaped,
        escapechar="\\" if escaped else None,
    )
    while True:
        line = reader.line_num + 1 + dialect.skipped  # a quoted cell may span lines
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{file}:{line}: not CSV ({reason(error)}): check the quotes") from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, cells


def _with_header(
    file: Path, records: Iterator[tuple[int, list[str]]], dialect: Dialect, skipped: list[BadRecord] | None
) -> Part:
    line, cells = next(records, (1, []))
    header = header_of(cells, f"{file}:{line}")
    if dialect.quoted and header[0]:
        listed = list(records)
        if _has_row_names(header, [cells for _, cells in listed]):
            header = ["", *header]
        records = iter(listed)
    kept, repeated = [], 0
    for line, cells in records:
        why = escaped_byte("".join(cells))
        fitted = _fit(cells, header)
        if why is None and fitted is None:
            why = _miscounted(len(cells), f"and the header {len(header)}")
        if why is not None or fitted is None:
            refuse(InputError(f"{file}:{line}: {why}"), BadRecord(str(file), line, why or ""), skipped)
        elif len(header) > 1 and [cell.strip() for cell in fitted] == header:
            repeated += 1  # concatenated files with headers
        else:
            kept.append((line, fitted))
    rows = named_rows(file, header, kept)
    words = [_WORDS.get(dialect.separator, f"'{dialect.separator}'-separated")]
    if repeated:
        words.append(f"the header appears {'twice' if repeated == 1 else f'{repeated + 1} times'}")
    return Part(rows, tuple(words))


def _has_row_names(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether each row begins with a unique name without a column in the header, as R's `write.table` writes it.

    A quoted header rules out that a separator inside an unquoted text makes the rows longer."""
    names = {cells[0] for cells in rows}
    return (
        len(names) == len(rows) > 0
        and all(len(cells) == len(header) + 1 for cells in rows)
        and any(cells[-1].strip() for cells in rows)
    )


def _miscounted(count: int, expected: str) -> str:
    return f"has {count} cells, {expected}: quote the cells that hold a separator"


def header_of(cells: Sequence[str], where: str) -> list[str]:
    """The names of the columns, without surrounding spaces; "" for a column without a name.

    Raises:
        InputError: a name is repeated, or has bytes that are not UTF-8.
    """
    header = [cell.strip() for cell in cells]
    if broken := escaped_byte("".join(header)):
        raise InputError(f"{where}: {broken}")
    counts = Counter(name for name in header if name)
    if counts and counts.most_common(1)[0][1] > 1:
        raise InputError(
            f"{where}: the column {shown(counts.most_common(1)[0][0])} appears twice: rename one"
        )
    return header


def _fit(cells: list[str], header: list[str]) -> list[str] | None:
    """The row as wide as the header: drops extra empty cells, adds cells of unnamed columns; None if it can't fit."""
    width = len(header)
    if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        return cells[:width]
    if len(cells) < width and not any(header[len(cells) :]):
        return [*cells, *[""] * (width - len(cells))]
    return cells if len(cells) == width else None


def named_rows(file: Path, header: Sequence[str], records: Sequence[tuple[int, Sequence[str]]]) -> list[Row]:
    """Makes rows of cells; columns without a name and without values are left out.

    Args:
        file: for messages.
        header: the column names; "" for a column without a name.
        records: the line of each row, and its cells, as many as names.

    Raises:
        InputError: two columns without a name have values. A single one is pandas' index.
    """
    unnamed = [index for index, name in enumerate(header) if not name]
    filled = [index for index in unnamed if any(cells[index].strip() for _, cells in records)]
    if len(filled) > 1:
        line, value = next((line, cells[filled[1]]) for line, cells in records if cells[filled[1]].strip())
        raise InputError(
            f"{file}:{line}: column {filled[1] + 1} holds {shown(value)} and has no name: give it one in the header"
        )
    columns = [(index, name) for index, name in enumerate(header) if name or index in filled]
    return [
        Row(f"{file}:{line}", line, None, {name: cells[index] for index, name in columns}, str(file))
        for line, cells in records
    ]
