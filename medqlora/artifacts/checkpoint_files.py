"""Checkpoint files: written aside, flushed, renamed, and compared with their manifest when they are read.

Beside `last.ckpt` stands its manifest `last.ckpt.json`. At every moment the name holds a complete file that its
manifest describes, the old one or the new one. For that the manifest comes first: it holds the new file's digest and,
as `replaces`, the old one's. Then one rename replaces the old file. Then the manifest drops `replaces`. Two files
can't be renamed at once; this order needs no second copy, link or pointer.
"""

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypedDict, cast

import torch
from torch import Tensor

from medqlora.artifacts.checkpoint import CheckpointRecord
from medqlora.errors import InputError
from medqlora.utils.digests import FileDigest, file_digest
from medqlora.utils.files import flush, replacing, sync, write_text
from medqlora.utils.manifests import difference

#: a device, or a function that moves a storage, as `torch.load` takes it
MapLocation: TypeAlias = (
    "str | torch.device | dict[str, str] | Callable[[torch.types.Storage, str], torch.types.Storage] | None"
)


class ExportRecord(TypedDict):
    """What an adapter folder needs beside the weights, so that the base model need not be loaded.

    Attributes:
        peft_config: the fields of PEFT's LoraConfig, as plain values.
        parameters: the numbers of trainable and of all parameters.
    """

    peft_config: dict[str, object]
    parameters: list[int]


#: a checkpoint as it is read: Lightning's keys, and this project's
class SavedCheckpoint(TypedDict, total=False):
    state_dict: dict[str, Tensor]
    global_step: int
    epoch: int
    callbacks: dict[str, dict[str, object]]
    loops: dict[str, object]
    optimizer_states: list[dict[str, object]]
    lr_schedulers: list[dict[str, object]]
    curve: dict[str, int]
    export: ExportRecord
    medqlora: CheckpointRecord


def write_checkpoint(checkpoint: Mapping[str, object], path: Path) -> None:
    """Writes a checkpoint and its manifest.

    Raises:
        OSError: the file can't be written; the old one is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent)
    with replacing(path) as stream:
        entry: dict[str, object] = {
            "file": path.name,
            **_write(checkpoint, stream),
            "step": _whole_number(checkpoint.get("global_step")),
            "epoch": _whole_number(checkpoint.get("epoch")),
            "written": datetime.now(timezone.utc).isoformat(),
        }
        old = _present(path)
        _write_manifest(path, entry if old is None else {**entry, "replaces": old})
    flush(path.parent)
    if old is not None:
        with contextlib.suppress(OSError):  # on a disk that became full: the manifest is right as it is
            _write_manifest(path, entry)


def read_checkpoint(path: Path, map_location: MapLocation = "cpu") -> SavedCheckpoint:
    """Reads a checkpoint after a comparison with its manifest; no pickled code is run.

    Raises:
        InputError: the file is damaged; the message names it, the damage, and the newest undamaged one beside it.
    """
    damage = problem(path)
    if damage is None:
        try:
            loaded = dict(torch.load(path, map_location=map_location, weights_only=True))
            return cast(SavedCheckpoint, loaded)
        except Exception as error:  # another kind of file raises whatever it happens to look like
            damage = f"torch can't read it: {type(error).__name__}"
    other = newest_whole(path.parent, besides=path)
    fix = (
        f"pass {other}, the newest whole one there"
        if other
        else "its folder holds no whole one: leave it out"
    )
    raise InputError(f"--ckpt_path: '{path}' is not a whole checkpoint ({damage}): {fix}")


def remove_checkpoint(path: Path) -> None:
    """Removes a checkpoint and its manifest."""
    path.unlink(missing_ok=True)  # first: a manifest without its file does no harm
    _manifest(path).unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Removes what a killed process left of writing into `checkpoints/`: a run has one process that writes."""
    for pattern in (".*.part", ".*.ckpt.json.*"):
        for left in folder.glob(pattern):
            left.unlink(missing_ok=True)


def problem(path: Path) -> str | None:
    """The damage of a checkpoint's file, for a message; None where it is undamaged.

    A file without a manifest was copied alone, or is older than manifests. torch's files are zip archives, with a
    CRC-32 for each part.
    """
    manifest = _manifest(path)
    try:
        if not manifest.is_file():
            return _archive_problem(path)
        entry = _read_manifest(path)
        if entry is None or entry.get("file") != path.name:
            return f"{manifest.name} beside it can't be read, or is of another file"
        damage = difference(path, entry)
        if damage and "replaces" in entry and difference(path, entry["replaces"]) is None:
            return None  # the save ended between the two renames: this is the old file, undamaged
        return damage
    except OSError as error:
        return f"it can't be read: {error.strerror}"


def newest_whole(folder: Path, besides: Path | None = None) -> Path | None:
    """The undamaged checkpoint of the latest step in `folder`, of several the one written last; None without one.

    Args:
        folder: the run's `checkpoints/`.
        besides: a file to leave out.
    """
    paths = [path for path in folder.glob("*.ckpt") if besides is None or path.name != besides.name]
    for path in sorted(paths, key=_age, reverse=True):  # the newest is nearly always undamaged: few are read
        if problem(path) is None:
            return path
    return None


def step_of(path: Path) -> int | None:
    """The optimizer step of a checkpoint, from its manifest; None where no manifest gives it."""
    step = _age(path)[0]
    return step if step >= 0 else None


def _age(path: Path) -> tuple[int, str]:
    """Step and time, from the manifest; -1 without one."""
    entry: Mapping[str, object] = _read_manifest(path) or {}
    replaced = entry.get("replaces")
    if isinstance(replaced, dict) and difference(path, entry):
        entry = replaced
    step = entry.get("step")
    return (step if isinstance(step, int) else -1, str(entry.get("written", "")))


def _manifest(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_manifest(path: Path) -> dict[str, object] | None:
    try:
        entry = json.loads(_manifest(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _write_manifest(path: Path, entry: Mapping[str, object]) -> None:
    write_text(_manifest(path), json.dumps(entry, indent=2) + "\n")


def _present(path: Path) -> dict[str, object] | None:
    """The manifest's entry of the file that is at `path` now; None where there is no file."""
    if not path.is_file():
        return None
    entry = _read_manifest(path)
    if entry is None or "replaces" in entry:  # older than manifests, or a save ended between the two renames
        older = entry["replaces"] if entry is not None else None
        known = entry if entry is not None and difference(path, entry) is None else older
        known = known if isinstance(known, dict) else {}
        plain = {key: known[key] for key in ("step", "epoch", "written") if key in known}
        return {**plain, **file_digest(path)}
    return entry


def _archive_problem(path: Path) -> str | None:
    if not path.is_file():
        return "it is not there"
    try:
        with zipfile.ZipFile(path) as archive:
            return None if archive.testzip() is None else "a part of it fails its CRC-32"
    except (zipfile.BadZipFile, ValueError, EOFError):
        return "the archive is cut off, or none"


class _HashingStream:
    """A stream for `torch.save` that writes to a file and computes the digest.

    torch's writer ends the process when a write raises: it finishes its archive in a destructor. So an error is kept
    until the save is done, and later writes are dropped.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        size = memoryview(data).nbytes
        if self.error is None:
            try:
                self.stream.write(data)
            except OSError as error:
                self.error = error
        self.sha256.update(data)
        self.bytes += size
        return size

    def flush(self) -> None: ...


def _write(checkpoint: Mapping[str, object], stream: BinaryIO) -> FileDigest:
    """Writes and flushes; the manifest's `bytes` and `sha256`. Raises OSError."""
    hashing = _HashingStream(stream)
    torch.save(checkpoint, cast(BinaryIO, hashing))
    if hashing.error is not None:
        raise hashing.error
    sync(stream)
    return {"bytes": hashing.bytes, "sha256": hashing.sha256.hexdigest()}


def _whole_number(value: object) -> int:
    return value if isinstance(value, int) else 0
