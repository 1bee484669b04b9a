"""Detects the format of a file by its first bytes, independent of its name."""

from pathlib import Path
from typing import NamedTuple

from medqlora.errors import InputError

#: number of bytes that `reject_non_data` and `signature` need
HEAD = 1024


class Signature(NamedTuple):
    """A kind of binary file.

    Attributes:
        kind: the extension of the format; "" for formats that are not supported.
        what: the name of the format, for messages.
        fix: the advice if the file has a wrong extension.
    """

    kind: str
    what: str
    fix: str


def _packed(kind: str, what: str) -> Signature:
    return Signature(kind, what, f"let its name end in {kind}, or unpack it")


def _named(kind: str, what: str) -> Signature:
    return Signature(kind, what, f"let its name end in {kind}")


_SAVE = "save the rows as CSV or JSON lines"
_UNPACK = "unpack it and name the file that holds the rows"
_STARTS = (
    (b"\x1f\x8b", _packed(".gz", "gzip")),
    (b"BZh", _packed(".bz2", "bzip2")),
    (b"\xfd7zXZ\x00", _packed(".xz", "xz")),
    (b"\x28\xb5\x2f\xfd", _packed(".zst", "Zstandard")),
    (b"PK\x03\x04", _packed(".zip", "a zip archive")),
    (b"PK\x05\x06", _packed(".zip", "a zip archive")),
    (b"PAR1", _named(".parquet", "Parquet")),
    (b"ARROW1", _named(".arrow", "Arrow")),
    (b"\xff\xff\xff\xff", _named(".arrow", "Arrow")),  # the stream format, which `datasets` writes
    (b"%PDF", Signature("", "a PDF document", _SAVE)),
    # encrypted .xlsx files use the same container
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        Signature("", "an old or encrypted Excel workbook", "save it as .xlsx without a password"),
    ),
    (b"7z\xbc\xaf\x27\x1c", Signature("", "a 7z archive", _UNPACK)),
    (b"Rar!", Signature("", "a RAR archive", _UNPACK)),
    (b"SQLite format 3\x00", Signature("", "an SQLite database", _SAVE)),
    (b"\x89HDF", Signature("", "an HDF5 file", _SAVE)),
    (b"\x93NUMPY", Signature("", "a NumPy file", _SAVE)),
    (b"\x80\x04\x95", Signature("", "a Python pickle, which is never loaded", _SAVE)),
    (b"\x80\x05\x95", Signature("", "a Python pickle, which is never loaded", _SAVE)),
)
_TAR = Signature("", "a tar archive", _UNPACK)
WORKBOOK = _named(".xlsx", "an Excel workbook")
#: file names that identify a zip archive's format
_ARCHIVES = (
    (b"xl/workbook.xml", WORKBOOK),
    (b"xl/workbook.bin", Signature("", "a binary Excel workbook", "save it as .xlsx")),
    (b"word/document.xml", Signature("", "a Word document", _SAVE)),
    (b"opendocument.spreadsheet", Signature("", "an OpenDocument spreadsheet", "save it as .xlsx or CSV")),
)
#: names of the first file in a workbook
_OFFICE = (b"[Content_Types].xml", b"docProps/", b"xl/", b"_rels/")
_LFS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body")


def signature(data: bytes) -> Signature | None:
    """The format of a binary file; None if the file may be text.

    Args:
        data: the file, or its first `HEAD` bytes.
    """
    if data[257:262] == b"ustar":
        return _TAR
    outer = next((kind for start, kind in _STARTS if data.startswith(start)), None)
    if outer is None or outer.kind != ".zip":
        return outer
    inner = next((kind for name, kind in _ARCHIVES if name in data), None)
    return WORKBOOK if inner is None and data[30:].startswith(_OFFICE) else inner or outer


def reject_non_data(data: bytes, file: Path) -> None:
    """Rejects files that failed downloads leave in place of the data.

    Args:
        data: the file, or its first `HEAD` bytes.
        file: for messages.

    Raises:
        InputError: the file is a Git LFS pointer, an HTML page or XML.
    """
    start = data[:HEAD].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_LFS):
        raise InputError(
            f"{file}: this is a Git LFS pointer, not the data: run git lfs pull in its repository, or download "
            "the file itself"
        )
    if start.startswith(_HTML) or (start.startswith((b"<!--", b"<?xml")) and b"<html" in start):
        raise InputError(
            f"{file}: this is an HTML page, not the data: download the file itself (on GitHub its raw address)"
        )
    if start.startswith(b"<?xml"):
        raise InputError(f"{file}: this is XML: {_SAVE}")


def json_begins(text: str) -> bool:
    """Whether a text begins as JSON: with an object, or with a list of objects, lists or strings."""
    start = text[:HEAD].lstrip()
    return start[:1] == "{" or (start[:1] == "[" and start[1:].lstrip()[:1] in ("{", "[", '"', "]", ""))
