"""Files that are replaced as a whole: written aside, flushed to the disk, renamed."""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

#: the disk, the quota or the largest file size is used up
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def now() -> str:
    """The time as text, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A stream that becomes the file `path` when the block ends; after an error `path` keeps its old content.

    A reader sees the old file or the new one, never a part. The temporary file has a hidden name beside `path` that
    ends with ".part"; no two writers share one.

    Args:
        path: the file; its folder exists.
        durable: flush the content to the disk before the rename.

    Raises:
        OSError: the file can't be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with aside.open("xb") as stream:
            yield stream
            if durable:
                sync(stream)
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # on a full disk the part would take up room
            aside.unlink()
        raise


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces a text file as `replacing` does: UTF-8, line ends as they are in `text`.

    Raises:
        OSError: the file can't be written.
    """
    with replacing(path, durable=durable) as stream:
        stream.write(text.encode("utf-8"))


def sync(stream: BinaryIO) -> None:
    """Flushes a stream's content to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def flush(path: Path) -> None:
    """Flushes a closed file, or a folder's list of names, to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return  # Windows opens no folders
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # a file system without fsync
            raise
    finally:
        os.close(handle)


def number_of(folder: Path, prefix: str) -> int:
    """N of a folder named `prefix` and N; -1 for another name."""
    number = folder.name.removeprefix(prefix)
    return int(number) if number.isascii() and number.isdigit() else -1


def make_numbered(root: Path, prefix: str) -> Path:
    """Makes the next folder `prefix`N under `root`; two processes at once get a folder each.

    Raises:
        OSError: `root` can't be read, or the folder can't be made.
    """
    taken = (
        number_of(path, prefix) for path in root.iterdir() if path.is_dir() and path.name.startswith(prefix)
    )
    number = max(taken, default=-1) + 1
    while True:
        folder = root / f"{prefix}{number}"
        try:
            folder.mkdir()
        except FileExistsError:  # another process was first
            number += 1
        else:
            return folder


def disk_full(error: BaseException) -> bool:
    """Whether the error says that the disk, a quota or a size limit is used up."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextlib.contextmanager
def disk_errors_of_rust(path: Path) -> Iterator[None]:
    """A block in which safetensors and tokenizers write: they tell an error of the disk as one of their own kind.

    Raises:
        OSError: with the number that their message ends with, "… (os error 28)", and `path`.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
