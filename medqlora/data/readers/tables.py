"""Delimited text to rows: CSV, TSV and what Excel makes of them. Every cell is text, and stays as it is written.

The separator is found by the header and the rows below it; the file's extension decides between equals only.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from medqlora.data.bad_records import refuse
from medqlora.data.readers.decoding import escaped_byte
from medqlora.data.readers.rows import Part, Row
from medqlora.data.wording import reason, shown
from medqlora.errors import InputError
from medqlora.records import BadRecord

#: extension → the separator that it promises; any other text of one column has none
EXTENSIONS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}

_SEPARATORS = (",", ";", "\t", "|")
_WORDS = {"\t": "tab-separated", "\x1f": "one column"}
_SAMPLE = 50  # rows that decide about the separator
# Excel's first line, by itself or with the separators that pad it to the width of the table
_SEP_LINE = re.compile(r'"?sep=([^\r\n"])"?\1*[ \t]*(?:\r\n|\r|\n)', re.IGNORECASE)


class Dialect(NamedTuple):
    """How a text is cut into cells.

    Attributes:
        separator: the character between two cells; U+001F for a text of one column.
        skipped: the lines before the header.
        spaced: there is a space behind each separator, which belongs to no cell.
        quoted: every name of the header is in quotes.
    """

    separator: str
    skipped: int = 0
    spaced: bool = False
    quoted: bool = False


def read_delimited(
    file: Path, text: str, skipped: list[BadRecord] | None = None, suffix: str = ".csv"
) -> Part:
    """All rows of a table with a header.

    Args:
        file: for messages.
        text: the file's text.
        skipped: takes up the rows that can't be used, which are then left out; without it they are errors.
        suffix: the extension of the text.

    Raises:
        InputError: it is no table, or a row has another number of cells than the header.
    """
    limit = csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a full text
    try:
        dialect, text = find_dialect(text, suffix)
        if "\ufeff" in text:
            # a file whose last line had no end, and the next one's header right behind it
            text = text.replace(
                "\ufeff" + text.partition("\n")[0].rstrip("\r"), "\n" + text.partition("\n")[0]
            )
        already = len(skipped or ())
        try:
            return _with_header(file, _tabs(file, text, dialect), dialect, skipped)
        except InputError:
            if '\\"' not in text:
                raise
            # quotes behind a backslash, as MySQL and Spark write them
            try:
                part = _with_header(file, _records(file, text, dialect, escaped=True), dialect, None)
            except InputError:
                part = None
            if part is None:
                raise
            del (skipped or [])[already:]
            return part
    finally:
        csv.field_size_limit(limit)


def read_bare(file: Path, text: str, columns: Sequence[str]) -> list[Row]:
    """All rows of a comma-separated table without a header.

    Raises:
        InputError: it is no table, or a row has another number of cells than there are `columns`.
    """
    limit = csv.field_size_limit(2**31 - 1)
    rows = []
    try:
        for line, cells in _records(file, text, Dialect(",")):
            if len(cells) != len(columns):
                raise InputError(f"{file}:{line}: {_miscounted(len(cells), f'and {len(columns)} are due')}")
            rows.append(Row(f"{file}:{line}", line, None, dict(zip(columns, cells, strict=True)), str(file)))
    finally:
        csv.field_size_limit(limit)
    return rows


def looks_delimited(text: str) -> bool:
    """Whether a text is a table for sure: a header of two columns or more, and each row as wide as it."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        dialect, text = find_dialect(text, "")
        if dialect.separator == "\x1f":
            return False
        agreeing, _ = _agreement(_sample(text, dialect.separator))
        return agreeing == 1
    finally:
        csv.field_size_limit(limit)


def find_dialect(text: str, suffix: str) -> tuple[Dialect, str]:
    """How the text is cut into cells, and the text from its header on.

    Args:
        text: the text, with "sep=;" in its first line or without.
        suffix: its extension, which decides where the text doesn't.
    """
    skipped, separator = 0, ""
    if named := _SEP_LINE.match(text):
        separator, text, skipped = named[1], text[named.end() :], 1
    hint = EXTENSIONS.get(suffix, "\x1f")
    if not separator:
        scores = {}
        for candidate in _SEPARATORS:
            agreeing, width = _agreement(_sample(text, candidate))
            if width > 1:
                scores[candidate] = (agreeing, candidate == hint, width)
        separator = max(scores, key=scores.__getitem__) if scores else hint
    header = next(iter(_sample(text, separator, 1)), [])
    spaced = len(header) > 1 and all(cell.startswith(" ") for cell in header[1:])
    first = text.lstrip().splitlines()[:1]
    quoted = (
        bool(first)
        and first[0].count('"') == 2 * len(header)
        and first[0][:1] == first[0].rstrip()[-1:] == '"'
    )
    return Dialect(separator, skipped, spaced, quoted), text


def _sample(text: str, separator: str, count: int = _SAMPLE) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    records: list[list[str]] = []
    try:
        for cells in islice((cells for cells in reader if any(cell.strip() for cell in cells)), count):
            records.append(cells)  # noqa: PERF402 - an error keeps what was read before it
    except csv.Error:
        pass
    return records


def _agreement(records: list[list[str]]) -> tuple[float, int]:
    """The share of the rows that have as many cells as the header, and how many names the header has."""
    if not records:
        return 0.0, 0
    header, *rows = records
    width = sum(bool(cell.strip()) for cell in header)
    if not rows:
        return 0.0, width
    return sum(len(cells) == len(header) for cells in rows) / len(rows), width


def _tabs(file: Path, text: str, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """The records; those between tabs are read without quoting where they can't be read with it.

    Many programs write tabs without any quotes, as the registered form of TSV has it, and a quote is itself then:
    https://www.iana.org/assignments/media-types/text/tab-separated-values
    """
    if dialect.separator != "\t":
        return _records(file, text, dialect)
    try:
        return iter(list(_records(file, text, dialect)))
    except InputError:
        plain = list(_records(file, text, dialect, quoted=False))
        if any(len(cells) != len(plain[0][1]) for _, cells in plain):
            raise
        return iter(plain)


def _records(
    file: Path, text: str, dialect: Dialect, *, quoted: bool = True, escaped: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The line where a record begins, counted from 1, and its cells; blank ones are left out."""
    reader: Any = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=dialect.separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
        skipinitialspace=dialect.spaced,
        doublequote=not escaped,
        escapechar="\\" if escaped else None,
    )
    while True:
        line = reader.line_num + 1 + dialect.skipped  # quoted cells may span lines
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
        every = list(records)
        if _has_row_names(header, [cells for _, cells in every]):
            header = ["", *header]
        records = iter(every)
    kept, repeated = [], 0
    for line, cells in records:
        why = escaped_byte("".join(cells))
        fitted = _fit(cells, header)
        if why is None and fitted is None:
            why = _miscounted(len(cells), f"and the header {len(header)}")
        if why is not None or fitted is None:
            refuse(InputError(f"{file}:{line}: {why}"), BadRecord(str(file), line, why or ""), skipped)
        elif len(header) > 1 and [cell.strip() for cell in fitted] == header:
            repeated += 1  # files with headers, one behind the other
        else:
            kept.append((line, fitted))
    rows = named_rows(file, header, kept)
    words = [_WORDS.get(dialect.separator, f"'{dialect.separator}'-separated")]
    if repeated:
        words.append("the header stands there twice" if repeated == 1 else f"{repeated} more headers in it")
    return Part(rows, tuple(words))


def _has_row_names(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether each row begins with a name of its own that the header has no column for, as R's `write.table` has
    it. Where the header is quoted, no text with a separator makes a row longer."""
    names = {cells[0] for cells in rows}
    return (
        len(names) == len(rows) > 0
        and all(len(cells) == len(header) + 1 for cells in rows)
        and any(cells[-1].strip() for cells in rows)
    )


def _miscounted(count: int, due: str) -> str:
    return f"has {count} cells, {due}: quote the cells that hold a separator"


def header_of(cells: Sequence[str], where: str) -> list[str]:
    """The names of the columns, without spaces around them; "" for one without a name.

    Raises:
        InputError: a name stands there twice, or holds bytes that are no UTF-8.
    """
    header = [cell.strip() for cell in cells]
    if broken := escaped_byte("".join(header)):
        raise InputError(f"{where}: {broken}")
    counts = Counter(name for name in header if name)
    if counts and counts.most_common(1)[0][1] > 1:
        raise InputError(
            f"{where}: the column {shown(counts.most_common(1)[0][0])} stands there twice: rename one"
        )
    return header


def _fit(cells: list[str], header: list[str]) -> list[str] | None:
    """A row as wide as the header: empty cells behind it go, and columns without a name may be missing."""
    width = len(header)
    if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
        return cells[:width]
    if len(cells) < width and not any(header[len(cells) :]):
        return [*cells, *[""] * (width - len(cells))]
    return cells if len(cells) == width else None


def named_rows(file: Path, header: Sequence[str], records: Sequence[tuple[int, Sequence[str]]]) -> list[Row]:
    """Rows by the names of their columns; a column without a name and without a value is left out.

    Args:
        file: for messages.
        header: the names; "" for a column without one.
        records: the line of each row, and its cells, as many as names.

    Raises:
        InputError: two columns without a name hold values. One alone is the index that pandas writes.
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
