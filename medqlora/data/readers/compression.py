"""Compressed files of one file each: .gz, .bz2, .xz, .zst and .zip."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

from medqlora.data.wording import listed, plain, reason
from medqlora.errors import InputError

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")

#: bytes that a file may unpack to; a data set of text is far below, and all of it is held in memory
LARGEST = 4 << 30
#: from this size on, a file may not unpack to more than `STEEPEST` times its bytes: text shrinks to a tenth
LARGE, STEEPEST = 256 << 20, 1000

_BLOCK = 1 << 20
_NAMES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard", ".zip": "zip"}


class Unpacked(NamedTuple):
    """What a compressed file holds.

    Attributes:
        data: the bytes.
        name: the name of the file inside: the archive's own where it has one, else the name without its
            last extension.
    """

    data: bytes
    name: str


def unpack(file: Path, option: str) -> Unpacked:
    """The one file in a compressed file.

    Args:
        file: the file; its extension is one of `SUFFIXES`.
        option: the option that named it, for messages.

    Raises:
        InputError: it can't be read, is damaged, holds no file or several, or unpacks to more than can be meant.
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
            held = io.BytesIO(packed)
            stream: gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
            if kind == ".gz":
                stream = gzip.GzipFile(fileobj=held)
            elif kind == ".bz2":
                stream = bz2.BZ2File(held)
            else:
                stream = lzma.LZMAFile(held)  # noqa: SIM115
            data = _read(stream, len(packed), file)
    except (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        raise damaged(file, error) from error
    return Unpacked(data, file.stem)


def damaged(file: Path, error: BaseException) -> InputError:
    """The message for a compressed file that can't be unpacked."""
    return InputError(
        f"{file}: not a whole {_NAMES[file.suffix.lower()]} file ({reason(error)}): download or compress it again"
    )


def check_size(unpacked: int, packed: int, file: Path) -> None:
    """
    Raises:
        InputError: the file unpacks to more bytes than a data set has.
    """
    if unpacked > LARGEST:
        raise InputError(
            f"{file}: unpacks to more than {LARGEST / (1 << 30):g} GiB: unpack it and split it, or take fewer rows"
        )
    if unpacked > LARGE and unpacked > packed * STEEPEST:
        raise InputError(
            f"{file}: unpacks to more than {STEEPEST:,} times its size, as no data set does: check where it is from"
        )


def _read(stream: IO[bytes] | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile, packed: int, file: Path) -> bytes:
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
            # 2 GiB: what `zstd --long=31` writes. The stream reader of the package takes a cut frame for whole
            frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            while not frame.eof and start < len(packed):
                # a few bytes may stand for megabytes, so they come in small steps
                block = frame.decompress(packed[start : start + 1024])
                start += 1024
                blocks.append(block)
                size += len(block)
                check_size(size, len(packed), file)
            if not frame.eof:
                raise EOFError("it ends too early")
            start = min(start, len(packed)) - len(frame.unused_data)
    except zstandard.ZstdError as error:
        raise damaged(file, error) from error
    return b"".join(blocks)


def _zip(file: Path, packed: bytes) -> Unpacked:
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            # what macOS and Windows add beside the files
            members = [
                member
                for member in archive.infolist()
                if not member.is_dir()
                and not member.filename.startswith("__MACOSX/")
                and Path(member.filename).name not in (".DS_Store", "Thumbs.db", "desktop.ini")
            ]
            if len(members) != 1:
                names = listed([member.filename for member in members][:4])
                found = f"{len(members)} files ({names})" if members else "no file"
                raise InputError(f"{file}: holds {found}: unpack it and name one file")
            (member,) = members
            if member.flag_bits & 1:
                raise InputError(f"{file}: {plain(member.filename)} has a password: unpack it first")
            check_size(member.file_size, len(packed), file)
            with archive.open(member) as stream:
                return Unpacked(_read(stream, len(packed), file), Path(member.filename).name)
    except InputError:
        raise
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        KeyError,
        IndexError,
        UnicodeError,
    ) as error:
        raise damaged(file, error) from error
