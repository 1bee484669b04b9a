"""Reads the rows of a path: resolves and unpacks the files, detects the format, and describes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medqlora.data.readers import columnar, tables, workbooks
from medqlora.data.readers.compression import unpack
from medqlora.data.readers.decoding import decode
from medqlora.data.readers.json_rows import SUFFIXES, parse_whole, read_json_rows
from medqlora.data.readers.paths import data_files, is_packed, kind_of, part_words
from medqlora.data.readers.rows import Part, ReadOptions, Row, Table
from medqlora.data.readers.sniffing import HEAD, json_begins, reject_non_data, signature
from medqlora.data.readers.splits import split_of
from medqlora.data.wording import plain
from medqlora.errors import InputError
from medqlora.records import BadRecord
from medqlora.utils.types import Json


def read_rows(path: str, option: str, skipped: list[BadRecord] | None = None) -> list[Row]:
    """Reads all rows of a file of a published data set.

    Like `read_table`, without guesses, because they are not reported: text that is not Unicode is an error, and
    Parquet classes stay numbers.

    Raises:
        InputError: the file is missing, unreadable or malformed; names the option or the line.
    """
    return read_published(path, option, skipped).rows


def read_published(path: str, option: str, skipped: list[BadRecord] | None = None) -> Table:
    """Like `read_rows`, with the description of the format."""
    return _read(path, option, skipped, _Mode(guess=False))


def read_table(
    path: str, option: str, skipped: list[BadRecord] | None = None, options: ReadOptions | None = None
) -> Table:
    """Reads all rows of a data file, with the description of its format.

    Args:
        path: a file, or a folder with a file, its shards or its splits.
        option: the option that named it, for messages. Its last word selects the split if there are several:
            train, dev or test.
        skipped: collects malformed rows (a line that is not JSON or not UTF-8, a row with too many cells), which
            are left out. Faults that make the rest of the file ambiguous (an open quote, a truncated JSON file)
            are always errors.
        options: the user's options for the file; None if there are none, so that messages suggest none.

    Raises:
        InputError: the file is missing, unreadable or malformed; names the option or the line.
    """
    return _read(path, option, skipped, _Mode(guess=True, options=options))


def read_bare_csv(file: Path, option: str, columns: Sequence[str]) -> list[Row]:
    """Reads all rows of a CSV file without a header.

    Args:
        file: the file.
        option: the option that named it, for messages.
        columns: the names of its columns.

    Raises:
        InputError: the file is unreadable, or a row has a different number of cells.
    """
    return tables.read_bare(file, _text(file, option), columns)


def read_json(file: Path, option: str) -> Json:
    """Reads a JSON file that is not a table.

    Raises:
        InputError: the file is unreadable or not JSON; names the line.
    """
    return parse_whole(file, _text(file, option))


def all_bad(path: str, option: str, skipped: Sequence[BadRecord]) -> InputError:
    """The error for a file without a usable record."""
    first = skipped[0]
    return InputError(
        f"{option}: none of the {len(skipped):,} records of {path} can be used; the first, "
        f"{first.file}:{first.line}: {first.why}"
    )


class _Mode(NamedTuple):
    """How the caller reads a file.

    Attributes:
        guess: accept cp1252 if it is likely, and class names for class numbers; the user sees a remark.
        options: the user's options for the file; None if there are none.
    """

    guess: bool
    options: ReadOptions | None = None


class _Content(NamedTuple):
    """A file's unpacked bytes, its name without compression, and the terms for `Table.remark`."""

    data: bytes
    name: str
    words: tuple[str, ...] = ()


def _read(path: str, option: str, skipped: list[BadRecord] | None, mode: _Mode) -> Table:
    already = len(skipped or ())
    files = data_files(path, option, split_of(option))
    parts = [_file(file, option, skipped, mode) for file in files]
    rows = [row for part in parts for row in part.rows]
    if len(parts) > 1:  # each shard numbers its rows from 1, and ids consist of keys and numbers
        rows = [
            row if row.key is not None else row._replace(key=f"{shard}.{row.number}")
            for shard, part in enumerate(parts, 1)
            for row in part.rows
        ]
    if not rows and skipped and len(skipped) > already:
        raise all_bad(path, option, skipped[already:])
    if not rows:
        raise InputError(f"{option}: {path} holds no rows: give a file with data")
    words = dict.fromkeys(word for part in parts for word in part.words)
    count = f"{len(rows):,} {'row' if len(rows) == 1 else 'rows'}"
    remark = ", ".join([count, *part_words(files, path), *words])
    return Table(rows, f"{plain(Path(path).name or path)}: {remark}")


def _kind(name: str, data: bytes) -> str:
    """The extension in `name`, or the detected format if the extension is unknown; "" for text."""
    detected = signature(data)
    return kind_of(name) or (detected.kind if detected else "")


def _file(file: Path, option: str, skipped: list[BadRecord] | None, mode: _Mode) -> Part:
    if not is_packed(file):
        start = _bytes(file, option, HEAD)
        reject_non_data(start, file)
        if (kind := _kind(file.name, start)) in columnar.SUFFIXES:
            return columnar.read_columnar(file, kind, class_names=mode.guess)
    data, name, words = _content(file, option)
    kind = _kind(name, data)
    if kind in columnar.SUFFIXES:
        part = columnar.read_columnar(file, kind, data, class_names=mode.guess)
    elif kind in workbooks.SUFFIXES:
        detected = signature(data)
        if detected and detected.kind not in (".zip", *workbooks.SUFFIXES):
            raise InputError(f"{file}: this is {detected.what}: {detected.fix}")
        part = workbooks.read_workbook(file, data, split_of(option), option, mode.options)
    else:
        _check_text(file, data)
        part = _from_text(file, data, kind, option, skipped, mode)
    return Part(part.rows, (*words, *part.words))


def _from_text(
    file: Path, data: bytes, kind: str, option: str, skipped: list[BadRecord] | None, mode: _Mode
) -> Part:
    # an invalid byte inside one JSON value affects all of it
    lenient = skipped is not None and kind != ".json"
    named = mode.options.encoding if mode.options else None
    offer = mode.options is not None
    text, encoding = decode(data, file, encoding=named, guess=mode.guess, lenient=lenient, offer=offer)
    misnamed: tuple[str, ...] = ()
    if json_begins(text) or (kind in SUFFIXES and not tables.looks_delimited(text)):
        part = read_json_rows(file, text, kind, split_of(option), option, skipped)
        misnamed = () if kind in SUFFIXES else (f"though named {kind or 'without an extension'}",)
    else:
        part = tables.read_delimited(file, text, skipped, kind)
        misnamed = (f"though named {kind}",) if kind in SUFFIXES else ()
    unusual = () if encoding == "UTF-8" else (encoding,)
    return Part(part.rows, (part.words[0], *misnamed, *unusual, *part.words[1:]))


def _bytes(file: Path, option: str, count: int = -1) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise InputError(
            f"{option}: {file} can't be read ({error.strerror}): check its permissions"
        ) from error


def _content(file: Path, option: str) -> _Content:
    if not is_packed(file):
        return _Content(_bytes(file, option), file.name)
    reject_non_data(_bytes(file, option, HEAD), file)
    data, name = unpack(file, option)
    reject_non_data(data, file)
    words = (plain(name),) if file.suffix.lower() == ".zip" else ()
    return _Content(data, name, words)


def _check_text(file: Path, data: bytes) -> None:
    """
    Raises:
        InputError: the file has a known binary format.
    """
    detected = signature(data)
    if detected is None:
        return
    what, fix = detected.what, detected.fix
    if is_packed(file) and fix.endswith("or unpack it"):
        what, fix = f"{what} in {file.suffix.lower()[1:]}", "unpack it once"
        if detected.kind == file.suffix.lower() == ".gz":
            what = "gzip in gzip"
    raise InputError(f"{file}: this is {what}: {fix}")


def _text(file: Path, option: str) -> str:
    """The text of a published file, in UTF-8 or another Unicode encoding."""
    data = _content(file, option).data
    reject_non_data(data, file)
    _check_text(file, data)
    return decode(data, file).text
