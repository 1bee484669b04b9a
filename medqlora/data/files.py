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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from medqlora.errors import InputError

TEXT_KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
KINDS = (".arrow", ".parquet", *TEXT_KINDS)

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_ABOUT = ("dataset_info.json", "dataset_infos.json", "state.json")  # what `datasets` writes beside the data


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        where: "file:line" (JSONL, CSV, and the row's number for Parquet and Arrow) or "file: key".
        number: the line, or the row counted from 1.
        key: the key that the row has in a JSON object; None elsewhere.
        value: column → value; the values of a CSV are all text.
    """

    where: str
    number: int
    key: str | None
    value: Mapping[str, Any]


def read_rows(path: str, option: str) -> list[Row]:
    """All rows of a data file.

    A JSON file holds a list of objects, or an object of objects (then `key` is set), or, as some tools
    write it, an object a line.

    Args:
        path: a file, or a folder with one.
        option: the option that named it, for messages.

    Raises:
        InputError: no such file, none that can be read, or malformed; names the option or the line.
    """
    rows: list[Row] = []
    for file in data_files(path, option):
        kind = _kind(file)
        if kind in (".parquet", ".arrow"):
            rows += _columnar(file, kind)
        else:
            text = _text(file, option)
            rows += {".json": _json, ".csv": _csv, ".tsv": _csv}.get(kind, _jsonl)(file, text)
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
    place = Path(path).expanduser()
    if not place.exists():
        raise InputError(f"{option}: there is no file {path}: check the path")
    if not place.is_dir():
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
    """The size in bytes and the SHA-256 of each file that `path` means; empty where nothing is there."""
    try:
        files = data_files(path, "")
    except InputError:
        return {}
    result: dict[str, object] = {}
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        result[file.name] = {"bytes": file.stat().st_size, "sha256": digest.hexdigest()}
    return result


def shown(value: object) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _series(file: Path) -> str:
    return _SHARD.sub("", file.stem) + file.suffix


def _kind(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes[-1:] == [".gz"]:
        return suffixes[-2] if suffixes[-2:-1] and suffixes[-2] in TEXT_KINDS else ""
    return suffixes[-1] if suffixes and suffixes[-1] in KINDS else ""


def _text(file: Path, option: str) -> str:
    try:
        data = file.read_bytes()
        if file.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{file}: not a whole gzip file ({error}): download or compress it again") from error
    except OSError as error:
        raise InputError(
            f"{option}: {file} can't be read ({error.strerror}): check its permissions"
        ) from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{file}: this is UTF-16: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{file}:{line}: the byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for index, key in enumerate(keys) if key in keys[:index])
        raise ValueError(f"the key {shown(twice)} stands there twice: remove one")
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON: write null or a number")


def parse_json(text: str) -> Any:
    """JSON as its standard has it: no NaN, no key twice.

    Raises:
        ValueError: says what is wrong; a `json.JSONDecodeError` where the text isn't JSON at all.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _whole(file: Path, text: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}:{error.lineno}: not JSON ({error.msg}, column {error.colno}): correct it"
        ) from error
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error


def _json(file: Path, text: str) -> list[Row]:
    try:
        whole = _whole(file, text)
    except InputError as error:
        cause = error.__cause__
        if isinstance(cause, json.JSONDecodeError) and cause.msg == "Extra data" and cause.lineno > 1:
            return _jsonl(file, text)  # an object a line, whatever the extension says
        raise
    if isinstance(whole, dict) and whole and all(isinstance(value, dict) for value in whole.values()):
        pairs = enumerate(whole.items(), 1)
        return [Row(f"{file}: key {key}", number, key, value) for number, (key, value) in pairs]
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
        if not isinstance(value, dict):
            raise InputError(f"{file}: item {number} is a {_name(value)}: each has to be an object")
        rows.append(Row(f"{file}: item {number}", number, None, value))
    return rows


def _jsonl(file: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 may stand in a string
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{file}:{number}: not JSON ({error.msg}, column {error.colno}): {shown(line[:50])}: correct it"
            ) from error
        except ValueError as error:
            raise InputError(f"{file}:{number}: {error}") from error
        if not isinstance(value, dict):
            raise InputError(f"{file}:{number}: holds a {_name(value)}: each line has to be an object")
        rows.append(Row(f"{file}:{number}", number, None, value))
    return rows


def _csv(file: Path, text: str, columns: Sequence[str] = ()) -> list[Row]:
    separator = "\t" if _kind(file) == ".tsv" else ","
    limit = csv.field_size_limit(2**31 - 1)  # the default of 128 KiB is less than a full text
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        return _csv_rows(file, reader, list(columns))
    finally:
        csv.field_size_limit(limit)


def _csv_rows(file: Path, reader: Any, header: list[str]) -> list[Row]:
    bare = bool(header)
    rows: list[Row] = []
    while True:
        line = reader.line_num + 1  # where the row begins; quoted fields may span lines
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{file}:{line}: not CSV ({error}): check the quotes") from error
        if cells is None:
            return rows
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            twice = next((name for name in header if header.count(name) > 1), None)
            if twice is not None:
                raise InputError(f"{file}:{line}: the column {twice!r} stands there twice: rename one")
            continue
        if len(cells) != len(header):
            due = f"and {len(header)} are due" if bare else f"and the header {len(header)}"
            raise InputError(
                f"{file}:{line}: has {len(cells)} cells, {due}: quote the cells that hold a separator"
            )
        rows.append(Row(f"{file}:{line}", line, None, dict(zip(header, cells, strict=True))))


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
        values = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{file}: not a {kind[1:]} file that can be read ({reason}): save it again"
        ) from error
    return [Row(f"{file}:{number}", number, None, value) for number, value in enumerate(values, 1)]


def _name(value: object) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")
