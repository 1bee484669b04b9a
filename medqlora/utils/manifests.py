"""Manifests: the size and SHA-256 of each written file, by which a damaged file is recognized."""

import ctypes
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from medqlora.errors import InputError
from medqlora.utils.digests import file_digest
from medqlora.utils.files import flush, now, write_text

#: the manifest of a folder, in that folder
FOLDER_FILE = "manifest.json"
_NO_USE = "do not use this adapter, or write a new one with `medqlora export`"
_REPEAT = "copy it again, or write it again with `medqlora export --ckpt_path FILE`, a .ckpt of its run"
#: of renameat2(2), Linux
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def difference(path: Path, entry: object) -> str | None:
    """How a file differs from its manifest's entry, for a message; None where it is undamaged.

    Raises:
        OSError: the file can't be read.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("sha256"), str):
        return "its manifest can't be read"
    if not path.is_file():
        return "it is not there"
    size = path.stat().st_size
    if size != entry.get("bytes"):
        return f"it has {size:,} bytes, and was written with {entry.get('bytes')}"
    if file_digest(path)["sha256"] != entry["sha256"]:
        return "its SHA-256 is not the one it was written with"
    return None


def plain_name(name: object) -> bool:
    """Whether `name` is a file name without a path: a manifest may not name a file outside its folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def write_folder_manifest(folder: Path) -> None:
    """Flushes every file of `folder`, then writes `manifest.json` over them; leaves subfolders out.

    Raises:
        OSError: a file can't be read or written.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != FOLDER_FILE)
    for path in files:
        flush(path)
    entries = {path.name: file_digest(path) for path in files}
    write_text(folder / FOLDER_FILE, json.dumps({"written": now(), "files": entries}, indent=2) + "\n")
    flush(folder)


def leaves(path: Path, folder: Path) -> bool:
    """Whether `path`, in `folder`, is a link to something outside.

    The Hub's cache is the one exception: its snapshots are links into its own `blobs`.
    """
    target, inside = path.resolve(), folder.resolve()
    if target.is_relative_to(inside):
        return False
    return inside.parent.name != "snapshots" or target.parent != inside.parent.parent / "blobs"


def check_folder(folder: str | Path, option: str, *, changeable: Iterable[str] = ("README.md",)) -> None:
    """Compares a folder with its manifest; accepts a folder without one, which other tools write.

    Args:
        folder: the adapter's.
        option: what named it, for messages.
        changeable: files that people edit: the card.

    Raises:
        InputError: a file is missing or differs, or the manifest names a file outside.
    """
    path = Path(folder).expanduser()
    manifest = path / FOLDER_FILE
    if not manifest.is_file():
        return
    changeable = frozenset(changeable)
    if leaves(manifest, path):
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
        if leaves(path / name, path):
            raise InputError(f"{option}: {path / name} is a link out of its folder: {_NO_USE}")
        try:
            damage = None if name in changeable else difference(path / name, entry)
        except OSError as error:
            damage = f"it can't be read: {error.strerror}"
        if damage:
            raise InputError(f"{option}: {path / name} is damaged ({damage}): {_REPEAT}")


def put_in_place(new: Path, folder: Path, old: Path) -> None:
    """Renames the folder `new` to `folder`; an earlier `folder` is renamed to `old`.

    Args:
        new: complete and flushed; on the same file system as the others.
        folder: may exist.
        old: does not exist.

    Raises:
        OSError: a folder can't be renamed.
    """
    if folder.is_symlink() and not folder.exists():
        folder.unlink()
    if not folder.exists():
        new.rename(folder)
    elif _exchange(new, folder):  # atomic: `folder` exists at every moment
        new.rename(old)
    else:
        folder.rename(old)
        new.rename(folder)
    flush(folder.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Exchanges two names atomically with renameat2(2), Linux; False where the system or the file system can't."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)
