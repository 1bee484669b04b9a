"""A path to rows: finds the files, unpacks them, sees what they hold, and says how each was understood."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medqlora.data.readers import columnar, tables, workbooks
from medqlora.data.readers.compression import unpack
from medqlora.data.readers.decoding import decode
from medqlora.data.readers.json_rows import SUFFIXES, parse_whole, read_json_rows
from medqlora.data.readers.places import data_files, is_packed, kind_of, part_words
from medqlora.data.readers.rows import Part, ReadOptions, Row, Table
from medqlora.data.readers.sniffing import HEAD, json_begins, signature, tell_disguise
from medqlora.data.readers.splits import split_of
from medqlora.data.wording import plain
from medqlora.errors import InputError
from medqlora.records import BadRecord


def read_rows(path: str, option: str, skipped: list[BadRecord] | None = None) -> list[Row]:
    """All rows of a data file, for a reader of a published data set.

    As `read_table`, but nothing is guessed, since nobody is told: text that is not Unicode is an error, and
    the classes of a Parquet file are the numbers that are stored.

    Raises:
        InputError: no such file, none that can be read, or malformed; names the option or the line.
    """
    return read_published(path, option, skipped).rows


def read_published(path: str, option: str, skipped: list[BadRecord] | None = None) -> Table:
    """As `read_rows`, and how the file was understood."""
    return _read(path, option, skipped, _How(guess=False))


def read_table(
    path: str, option: str, skipped: list[BadRecord] | None = None, options: ReadOptions | None = None
) -> Table:
    """All rows of a data file, and how it was understood.

    Args:
        path: a file, or a folder with one, or with the shards or parts of one.
        option: the option that named it, for messages. Its last word says which part is meant where the file
            has several: train, dev or test.
        skipped: takes up the rows that are malformed by themselves (a line that is no JSON or no UTF-8, a
            row with a cell too many), which are then left out. Where the rest of a file can't be told from
            such a row (an open quote, a JSON file that ends too early) it is an error all the same.
        options: what the user says about the file; None where there are no options for it, and messages
            offer none.

    Raises:
        InputError: no such file, none that can be read, or malformed; names the option or the line.
    """
    return _read(path, option, skipped, _How(guess=True, options=options))


def read_bare_csv(file: Path, option: str, columns: Sequence[str]) -> list[Row]:
    """All rows of a CSV file without a header.

    Args:
        file: the file.
        option: the option that named it, for messages.
        columns: what its columns are called.

    Raises:
        InputError: it can't be read, or a row has another number of cells.
    """
    return tables.read_bare(file, _text(file, option), columns)


def read_json(file: Path, option: str) -> Any:
    """A JSON file as it is, for shapes that are no table.

    Raises:
        InputError: it can't be read, or is not JSON; names the line.
    """
    return parse_whole(file, _text(file, option))


def all_bad(path: str, option: str, skipped: Sequence[BadRecord]) -> InputError:
    """The message for a file of which no record could be used."""
    first = skipped[0]
    return InputError(
        f"{option}: none of the {len(skipped):,} records of {path} can be used; the first, "
        f"{first.file}:{first.line}: {first.why}"
    )


class _How(NamedTuple):
    """What a caller asks of the readers.

    Attributes:
        guess: take what is only likely (cp1252), and class names for their numbers: the user is told.
        options: what the user says about the file; None where nothing can be said.
    """

    guess: bool
    options: ReadOptions | None = None


class _Content(NamedTuple):
    """A file's bytes, and the name that says what they are."""

    data: bytes
    name: str
    words: tuple[str, ...] = ()


def _read(path: str, option: str, skipped: list[BadRecord] | None, how: _How) -> Table:
    already = len(skipped or ())
    files = data_files(path, option, split_of(option))
    parts = [_file(file, option, skipped, how) for file in files]
    rows = [row for part in parts for row in part.rows]
    if len(parts) > 1:  # every shard counts its rows from 1, and ids are made of keys and numbers
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


def _file(file: Path, option: str, skipped: list[BadRecord] | None, how: _How) -> Part:
    kind = kind_of(file.name)
    if not is_packed(file):
        start = _bytes(file, option, HEAD)
        tell_disguise(start, file)
        found = signature(start)
        if kind in columnar.SUFFIXES or (not kind and found and found.kind in columnar.SUFFIXES):
            return columnar.read_columnar(file, kind or (found.kind if found else ""), class_names=how.guess)
    data, name, words = _content(file, option)
    kind = kind_of(name)
    found = signature(data)
    if kind in columnar.SUFFIXES or (not kind and found and found.kind in columnar.SUFFIXES):
        part = columnar.read_columnar(
            file, kind or (found.kind if found else ""), data, class_names=how.guess
        )
    elif kind in workbooks.SUFFIXES or (not kind and found and found.kind in workbooks.SUFFIXES):
        if found and found.kind != ".zip" and found.kind not in workbooks.SUFFIXES:
            raise InputError(f"{file}: this is {found.what}: {found.fix}")
        part = workbooks.read_workbook(file, data, split_of(option), option, how.options)
    else:
        _check_text(file, data)
        part = _from_text(file, data, kind, option, skipped, how)
    return Part(part.rows, (*words, *part.words))


def _from_text(
    file: Path, data: bytes, kind: str, option: str, skipped: list[BadRecord] | None, how: _How
) -> Part:
    # in one JSON text a byte can't be told from what stands around it
    lenient = skipped is not None and kind != ".json"
    named = how.options.encoding if how.options else None
    offer = how.options is not None
    text, encoding = decode(data, file, encoding=named, guess=how.guess, lenient=lenient, offer=offer)
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
    """A file's bytes, unpacked."""
    if not is_packed(file):
        return _Content(_bytes(file, option), file.name)
    packed = _bytes(file, option, HEAD)
    tell_disguise(packed, file)
    data, name = unpack(file, option)
    tell_disguise(data, file)
    words = (plain(name),) if file.suffix.lower() == ".zip" else ()
    return _Content(data, name, words)


def _check_text(file: Path, data: bytes) -> None:
    """
    Raises:
        InputError: it is no text but something else that is known.
    """
    found = signature(data)
    if found is None:
        return
    what, fix = found.what, found.fix
    if is_packed(file) and found.fix.endswith("or unpack it"):
        what, fix = f"{what} in {file.suffix.lower()[1:]}", "unpack it once"
        if found.kind == file.suffix.lower() == ".gz":
            what = "gzip in gzip"
    raise InputError(f"{file}: this is {what}: {fix}")


def _text(file: Path, option: str) -> str:
    """The text of a published file, of which nothing is guessed."""
    data = _content(file, option).data
    tell_disguise(data, file)
    _check_text(file, data)
    return decode(data, file).text
