"""Unpacks compressed files that hold one file: .gz, .bz2, .xz, .zst and .zip."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from medqlora.data.wording import listed, plain, reason
from medqlora.errors import InputError

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")

#: maximum unpacked size in bytes; all of it is held in memory, and data sets of text are far smaller
LARGEST = 4 << 30
#: above `LARGE` bytes, the maximum ratio of unpacked to packed size; the ratio of text is about 10
LARGE, STEEPEST = 256 << 20, 1000

_BLOCK = 1 << 20
_STREAMS: dict[str, Callable[[io.BytesIO], io.BufferedIOBase]] = {
    ".gz": lambda packed: gzip.GzipFile(fileobj=packed),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
_NAMES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard", ".zip": "zip"}


class Unpacked(NamedTuple):
    """The content of a compressed file.

    Attributes:
        data: the bytes.
        name: the name in the archive, or the file name without its last extension.
    """

    data: bytes
    name: str


def unpack(file: Path, option: str) -> Unpacked:
    """Unpacks the only file in a compressed file.

    Args:
        file: the file; its extension is one of `SUFFIXES`.
        option: the option that named it, for messages.

    Raises:
        InputError: the file is unreadable, damaged or too large, or holds no file or several.
    """
    kind = file.suffix.lower()
    try:
        packed = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{option}: {file} can't be read ({error.strerror}): check its permissions"
        ) from error
    try:
        if kind == ".zip":
            return _zip(file, packed)
        if kind == ".zst":
            data = _zstandard(file, packed)
        else:
            data = _read(_STREAMS[kind](io.BytesIO(packed)), len(packed), file)
    except (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        raise damaged(file, error) from error
    return Unpacked(data, file.stem)


def damaged(file: Path, error: BaseException) -> InputError:
    """The error for a compressed file that can't be unpacked."""
    return InputError(
        f"{file}: not a whole {_NAMES[file.suffix.lower()]} file ({reason(error)}): download or compress it again"
    )


def check_size(unpacked: int, packed: int, file: Path) -> None:
    """Checks the unpacked size in bytes.

    Raises:
        InputError: the file unpacks to more than a data set can have.
    """
    if unpacked > LARGEST:
        raise InputError(
            f"{file}: unpacks to more than {LARGEST / (1 << 30):g} GiB: unpack it and split it, or take fewer rows"
        )
    if unpacked > LARGE and unpacked > packed * STEEPEST:
        raise InputError(
            f"{file}: unpacks to more than {STEEPEST:,} times its size, which no data set does: check its source"
        )


def _read(stream: io.BufferedIOBase | IO[bytes], packed: int, file: Path) -> bytes:
    blocks, size = [], 0
    with stream:
        while block := stream.read(_BLOCK):
            blocks.append(block)
            size += len(block)
            check_size(size, packed, file)
    return b"".join(blocks)


def _zstandard(file: Path, packed: bytes) -> bytes:
    import zstandard

    blocks, size, start = [], 0, 0
    try:
        while start < len(packed):
            # `zstd --long=31` needs 2 GiB. zstandard's stream reader accepts a truncated frame, so it is not used
            frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            while not frame.eof and start < len(packed):
                # a few bytes may expand to megabytes: small steps keep the size check effective
                block = frame.decompress(packed[start : start + 1024])
                start += 1024
                blocks.append(block)
                size += len(block)
                check_size(size, len(packed), file)
            if not frame.eof:
                raise EOFError("the file is truncated")
            start = min(start, len(packed)) - len(frame.unused_data)
    except zstandard.ZstdError as error:
        raise damaged(file, error) from error
    return b"".join(blocks)


def _zip(file: Path, packed: bytes) -> Unpacked:
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            # without the files that macOS and Windows add
            members = [
                member
                for member in archive.infolist()
                if not member.is_dir()
                and not member.filename.startswith("__MACOSX/")
                and Path(member.filename).name not in (".DS_Store", "Thumbs.db", "desktop.ini")
            ]
            if len(members) != 1:
                names = listed([member.filename for member in members][:4])
                content = f"{len(members)} files ({names})" if members else "no file"
                raise InputError(f"{file}: holds {content}: unpack it and name one file")
            (member,) = members
            if member.flag_bits & 1:
                raise InputError(f"{file}: {plain(member.filename)} has a password: unpack it first")
            check_size(member.file_size, len(packed), file)
            with archive.open(member) as stream:
                return Unpacked(_read(stream, len(packed), file), Path(member.filename).name)
    except InputError:
        raise
    except (zipfile.BadZipFile, RuntimeError, LookupError, UnicodeError) as error:
        raise damaged(file, error) from error
