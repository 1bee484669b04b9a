"""Manifests: the size and SHA-256 of what was written, so that a damaged file is told from a whole one.

A file is written aside, flushed to the disk and renamed into place; a manifest beside it says what it has to be.
"""

import ctypes
import errno
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medqlora.errors import InputError
from medqlora.utils.files import now, write_text

#: of a folder, in it
FOLDER_FILE = "manifest.json"
#: the disk, the quota or the largest size allowed for a file is used up
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def disk_full(error: BaseException) -> bool:
    """Whether nothing but room is missing."""
    return isinstance(error, OSError) and error.errno in _FULL


def digest(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: `bytes`, and `sha256` in hexadecimal.

    Raises:
        OSError: it can't be read.
    """
    found = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            found.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": found.hexdigest()}


def difference(path: Path, entry: Any) -> str | None:
    """How the file differs from its manifest's entry, for a message; None where it is whole."""
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
        return "its manifest can't be read"
    if not path.is_file():
        return "it is not there"
    size = path.stat().st_size
    if size != entry.get("bytes"):
        return f"it has {size:,} bytes, and was written with {entry.get('bytes')}"
    if digest(path)["sha256"] != entry["sha256"]:
        return "its SHA-256 is not the one it was written with"
    return None


def plain_name(name: Any) -> bool:
    """Whether `name` is a file's name and no path: what a manifest names may not leave its folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def flush(path: Path) -> None:
    """Brings a file, or a folder's list of names, to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():
            return  # Windows opens no folders
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # a file system without
            raise
    finally:
        os.close(handle)


def write_folder_manifest(folder: Path) -> None:
    """Flushes every file of `folder`, then writes `manifest.json` over them; folders in it are left out."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != FOLDER_FILE)
    for path in files:
        flush(path)
    entries = {path.name: digest(path) for path in files}
    write_text(folder / FOLDER_FILE, json.dumps({"written": now(), "files": entries}, indent=2) + "\n")
    flush(folder)


def leaves(path: Path, folder: Path) -> bool:
    """Whether what stands at `path`, in `folder`, is a link to something outside.

    The Hub's cache is the one place where that is right: its snapshots are links into its own `blobs`.
    """
    target, inside = path.resolve(), folder.resolve()
    if target.is_relative_to(inside):
        return False
    return inside.parent.name != "snapshots" or target.parent != inside.parent.parent / "blobs"


def check_folder(folder: str | Path, option: str, *, changeable: Iterable[str] = ("README.md",)) -> None:
    """Checks a folder against its manifest; one without was made elsewhere, or before there were any.

    Args:
        folder: the adapter's.
        option: what named it, for messages.
        changeable: files that people write in: the card.

    Raises:
        InputError: a file is missing or is not what was written, or the manifest names one outside.
    """
    place = Path(folder).expanduser()
    manifest = place / FOLDER_FILE
    if not manifest.is_file():
        return
    changeable = frozenset(changeable)
    if leaves(manifest, place):
        raise InputError(f"{option}: {manifest} is a link out of its folder: {_NO_USE}")
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"].items()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        entries = None
    if entries is None:
        raise InputError(f"{option}: {manifest} can't be read: the folder is damaged; {_REPEAT}")
    for name, entry in entries:
        if not plain_name(name):
            raise InputError(
                f"{option}: {manifest} names {name!r}, which is no file of its folder: {_NO_USE}"
            )
        if leaves(place / name, place):
            raise InputError(f"{option}: {place / name} is a link out of its folder: {_NO_USE}")
        try:
            wrong = None if name in changeable else difference(place / name, entry)
        except OSError as error:
            wrong = f"it can't be read: {error.strerror}"
        if wrong:
            raise InputError(f"{option}: {place / name} is damaged ({wrong}): {_REPEAT}")


_NO_USE = "do not use this adapter, or write a new one with `medqlora export`"
_REPEAT = "copy it again, or write it again with `medqlora export --ckpt_path FILE`, a .ckpt of its run"


def put_in_place(new: Path, folder: Path, old: Path) -> None:
    """Makes the folder `new` to `folder`; what stood there goes.

    Args:
        new: whole and flushed; on the same file system as the others.
        folder: where it belongs; may be there.
        old: a name that is free.
    """
    if folder.is_symlink() and not folder.exists():
        folder.unlink()
    if not folder.exists():
        new.rename(folder)
    elif _exchange(new, folder):  # in one moment, so that `folder` is there at every other
        new.rename(old)
    else:
        folder.rename(old)
        new.rename(folder)
    flush(folder.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Exchanges two names at once: renameat2(2), Linux; False where the system or the file system can't."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0
