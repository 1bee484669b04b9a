"""Data files to rows, each of which knows where it stands; what is malformed gets one clear message.

By extension: JSONL (`.jsonl`, `.ndjson`), JSON (`.json`), CSV (`.csv`, `.tsv`), Parquet and Arrow, each of
the first three also with `.gz`. A folder counts as the one data file in it, or as its shards.
"""

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medqlora.data.bad_records import refuse
from medqlora.data.json_text import MalformedError, parse_json
from medqlora.data.wording import plain, reason, shown
from medqlora.errors import InputError
from medqlora.records import BadRecord

TEXT_KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
KINDS = (".arrow", ".parquet", *TEXT_KINDS)

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that is no UTF-8, in text decoded with surrogateescape
_ABOUT = ("dataset_info.json", "dataset_infos.json", "state.json")  # what `datasets` writes beside the data


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        where: "file:line" (JSONL, CSV, and the row's number for Parquet and Arrow) or "file: key".
        number: the line, or the row counted from 1.
        key: the key that the row has in a JSON object; None elsewhere.
        value: column → value; the values of a CSV are all text.
        file: the file alone; "" where the row is from none.
    """

    where: str
    number: int
    key: str | None
    value: Mapping[str, Any]
    file: str = ""


def read_rows(path: str, option: str, skipped: list[BadRecord] | None = None) -> list[Row]:
    """All rows of a data file.

    A JSON file holds a list of objects, or an object of objects (then `key` is set), or, as some tools
    write it, an object a line.

    Args:
        path: a file, or a folder with one.
        option: the option that named it, for messages.
        skipped: takes up the rows that are malformed by themselves (a line that is no JSON or no UTF-8, a
            row with a cell too many), which are then left out. Where the rest of a file can't be told from
            such a row (an open quote, a JSON file that ends too early) it is an error all the same.

    Raises:
        InputError: no such file, none that can be read, or malformed; names the option or the line.
    """
    rows: list[Row] = []
    already = len(skipped or ())
    for file in data_files(path, option):
        kind = _kind(file)
        if kind in (".parquet", ".arrow"):
            rows += _columnar(file, kind)
        else:
            # in one JSON text a byte can't be told from what stands around it
            text = _text(file, option, lenient=skipped is not None and kind != ".json")
            if kind == ".json":
                rows += _json(file, text, skipped)
            elif kind in (".csv", ".tsv"):
                rows += _csv(file, text, skipped=skipped)
            else:
                rows += _jsonl(file, text, skipped)
    if not rows and skipped and len(skipped) > already:
        raise all_bad(path, option, skipped[already:])
    if not rows:
        raise InputError(f"{option}: {path} holds no rows: give a file with data")
    return rows


def read_bare_csv(file: Path, option: str, columns: Sequence[str]) -> list[Row]:
    """All rows of a CSV file without a header.

    Args:
        file: the file.
        option: the option that named it, for messages.
        columns: what its columns are called.

    Raises:
        InputError: it can't be read, or a row has another number of cells.
    """
    return _csv(file, _text(file, option), columns)


def all_bad(path: str, option: str, skipped: Sequence[BadRecord]) -> InputError:
    """The message for a file of which no record could be used."""
    first = skipped[0]
    return InputError(
        f"{option}: none of the {len(skipped):,} records of {path} can be used; the first, "
        f"{first.file}:{first.line}: {first.why}"
    )


def read_json(file: Path, option: str) -> Any:
    """A JSON file as it is, for shapes that are no table.

    Raises:
        InputError: it can't be read, or is not JSON; names the line.
    """
    return _whole(file, _text(file, option))


def data_files(path: str, option: str) -> list[Path]:
    """The files that `path` means: itself, or the data file in the folder, or the shards there.

    Raises:
        InputError: nothing is there, or it isn't clear which file is meant.
    """
    try:
        return _data_files(path, option)
    except (OSError, RuntimeError) as error:  # RuntimeError: a home folder of nobody ("~name")
        why = getattr(error, "strerror", None) or reason(error)
        place = path if path.isprintable() and len(path) < 500 else shown(path)
        raise InputError(
            f"{option}: {place} can't be read ({why}): check the path and its permissions"
        ) from error


def _data_files(path: str, option: str) -> list[Path]:
    place = Path(path).expanduser()
    if not place.exists():
        raise InputError(f"{option}: there is no file {path}: check the path")
    if not place.is_dir():
        if not place.is_file():  # a pipe would be waited for
            raise InputError(f"{option}: {path} is no regular file: write the data to one first")
        if not _kind(place):
            raise InputError(
                f"{option}: {path}: the extension {place.suffix or '(none)'} is not known: "
                f"use one of {', '.join(KINDS)} (.gz after those of text)"
            )
        return [place]
    held = sorted(f for f in place.iterdir() if f.is_file() and _kind(f) and f.name not in _ABOUT)
    held = [file for file in held if not file.name.startswith(".")]
    if len(held) == 1 or (
        held and all(_SHARD.search(file.stem) for file in held) and len({_series(file) for file in held}) == 1
    ):
        return held
    found = (
        f"{len(held)} data files ({', '.join(file.name for file in held[:4])})" if held else "no data file"
    )
    raise InputError(f"{option}: the folder {path} holds {found}: name one file")


def fingerprint(path: str) -> dict[str, object]:
    """The size in bytes and the SHA-256 of each file that `path` means; empty where nothing can be read."""
    result: dict[str, object] = {}
    try:
        for file in data_files(path, ""):
            digest = hashlib.sha256()
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
            result[file.name] = {"bytes": file.stat().st_size, "sha256": digest.hexdigest()}
    except (InputError, OSError):
        return {}
    return result


def _series(file: Path) -> str:
    return _SHARD.sub("", file.stem) + file.suffix


def _kind(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes[-1:] == [".gz"]:
        return suffixes[-2] if suffixes[-2:-1] and suffixes[-2] in TEXT_KINDS else ""
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else ""


def _text(file: Path, option: str, *, lenient: bool = False) -> str:
    """The file's text. `lenient`: bytes that are no UTF-8 become lone surrogates (`_ESCAPED`)."""
    zipped = file.suffix.lower() == ".gz"
    try:
        data = file.read_bytes()
        if zipped:
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{file}: not a whole gzip file ({reason(error)}): download or compress it again"
        ) from error
    except OSError as error:
        raise InputError(
            f"{option}: {file} can't be read ({error.strerror}): check its permissions"
        ) from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{file}: this is UTF-16: save it as UTF-8")
    if data[:2] == b"\x1f\x8b":
        twice = "gzip in gzip: unpack it once" if zipped else "gzip: let its name end in .gz, or unpack it"
        raise InputError(f"{file}: this is {twice}")
    try:
        return data.decode("utf-8-sig", "surrogateescape" if lenient else "strict")
    except UnicodeDecodeError as error:
        # the error's bytes are those behind a BOM
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}:{line}: {_not_utf8(error.object[error.start])}") from error


def _not_utf8(byte: int) -> str:
    return f"the byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"


def _escaped_byte(text: str) -> str | None:
    """What is wrong with text that was decoded leniently; None where nothing is."""
    found = _ESCAPED.search(text)
    return None if found is None else _not_utf8(ord(found[0]) - 0xDC00)


def _whole(file: Path, text: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}:{error.lineno}: not JSON ({error.msg}, column {error.colno}): correct it"
        ) from error
    except MalformedError as error:
        place = file if error.line is None else f"{file}:{error.line}"
        raise InputError(f"{place}: {error}") from error


def _json(file: Path, text: str, skipped: list[BadRecord] | None) -> list[Row]:
    try:
        whole = _whole(file, text)
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, json.JSONDecodeError) and cause.msg == "Extra data" and cause.lineno > 1:
            return _jsonl(file, text, skipped)  # an object a line, whatever the extension says
        raise
    if isinstance(whole, dict) and whole and all(isinstance(value, dict) for value in whole.values()):
        pairs = enumerate(whole.items(), 1)
        return [
            Row(f"{file}: key {plain(key)}", number, key, value, str(file)) for number, (key, value) in pairs
        ]
    if (
        isinstance(whole, dict)
        and whole
        and not any(isinstance(value, (dict, list)) for value in whole.values())
    ):
        whole = [whole]  # one row by itself
    if not isinstance(whole, list):
        kind = "an empty object" if whole == {} else f"a JSON {_name(whole)}"
        if isinstance(whole, dict) and whole:
            key = next(key for key, value in whole.items() if not isinstance(value, dict))
            kind = f"an object whose {shown(key)} is a {_name(whole[key])}"
        raise InputError(f"{file}: holds {kind}: give a list of objects, or an object of objects")
    rows = []
    for number, value in enumerate(whole, 1):
        where = f"{file}: item {number}"
        if isinstance(value, dict):
            rows.append(Row(where, number, None, value, str(file)))
        else:
            why = f"is a {_name(value)}: each has to be an object"
            refuse(InputError(f"{where} {why}"), BadRecord(str(file), number, why), skipped)
    return rows


def _jsonl(file: Path, text: str, skipped: list[BadRecord] | None) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 may stand in a string
        if not line.strip():
            continue
        value: Any = None
        why = _escaped_byte(line)
        try:
            value = parse_json(line) if why is None else None
        except json.JSONDecodeError as error:
            why = f"not JSON ({error.msg}, column {error.colno}): {shown(line[:50])}: correct it"
        except MalformedError as error:
            why = str(error)
        if why is None and not isinstance(value, dict):
            why = f"holds a {_name(value)}: each line has to be an object"
        if why is None:
            rows.append(Row(f"{file}:{number}", number, None, value, str(file)))
        else:
            refuse(InputError(f"{file}:{number}: {why}"), BadRecord(str(file), number, why), skipped)
    return rows


def _csv(
    file: Path, text: str, columns: Sequence[str] = (), skipped: list[BadRecord] | None = None
) -> list[Row]:
    separator = "\t" if _kind(file) == ".tsv" else ","
    limit = csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a full text
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        return _csv_rows(file, reader, list(columns), skipped)
    finally:
        csv.field_size_limit(limit)


def _csv_rows(file: Path, reader: Any, header: list[str], skipped: list[BadRecord] | None) -> list[Row]:
    bare = bool(header)
    rows: list[Row] = []
    while True:
        line = reader.line_num + 1  # where the row begins; quoted fields may span lines
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{file}:{line}: not CSV ({reason(error)}): check the quotes") from error
        if cells is None:
            return rows
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            if broken := _escaped_byte("".join(header)):
                raise InputError(f"{file}:{line}: {broken}")
            if len(set(header)) < len(header):
                twice = Counter(header).most_common(1)[0][0]
                raise InputError(f"{file}:{line}: the column {shown(twice)} stands there twice: rename one")
            continue
        why = _escaped_byte("".join(cells))
        if why is None and len(cells) != len(header):
            due = f"and {len(header)} are due" if bare else f"and the header {len(header)}"
            why = f"has {len(cells)} cells, {due}: quote the cells that hold a separator"
        if why is None:
            row = dict(zip(header, cells, strict=True))
            rows.append(Row(f"{file}:{line}", line, None, row, str(file)))
        else:
            refuse(InputError(f"{file}:{line}: {why}"), BadRecord(str(file), line, why), skipped)


def _columnar(file: Path, kind: str) -> list[Row]:
    import pyarrow as pa
    import pyarrow.ipc
    import pyarrow.parquet

    try:
        if kind == ".parquet":
            table = pyarrow.parquet.ParquetFile(file).read()
        else:
            with pa.memory_map(str(file)) as source:
                try:
                    table = pyarrow.ipc.open_file(source).read_all()
                except pa.ArrowInvalid:  # `datasets` writes the stream format
                    source.seek(0)
                    table = pyarrow.ipc.open_stream(source).read_all()
        # offsets that point outside of the file would be followed: pyarrow 26 dies of it (SIGSEGV)
        table.validate(full=True)
        values = table.to_pylist()
    except Exception as error:  # pyarrow raises ones of its own, and of Python's whatever a value brings up
        raise InputError(
            f"{file}: not a {kind[1:]} file that can be read ({reason(error)}): save it again"
        ) from error
    return [Row(f"{file}:{number}", number, None, value, str(file)) for number, value in enumerate(values, 1)]


def _name(value: object) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
