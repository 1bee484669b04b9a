"""Checkpoint files: written aside, flushed, renamed, and checked against their manifest when they are read."""

import contextlib
import hashlib
import json
import os
import zipfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from medqlora.errors import InputError
from medqlora.utils.files import write_text
from medqlora.utils.manifests import difference, digest, flush


class CheckpointFiles(TorchCheckpointIO):
    """How the Trainer writes, reads and removes checkpoints, ModelCheckpoint's and our own.

    Beside `last.ckpt` stands its manifest `last.ckpt.json`. At every moment the name holds a whole file that its
    manifest knows, the old one or the new one. For that the manifest comes first: it names the new file's digest
    and, as `replaces`, the old one's; then one rename puts the new file in the old one's place; then the manifest
    drops `replaces`. Two files can't be renamed at once, and no second copy, link or pointer is needed so.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Raises OSError where it can't be written; what stood there is then as it was."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        clear(target.parent)
        aside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            entry = {
                "file": target.name,
                **_write(checkpoint, aside),
                "step": int(checkpoint.get("global_step", 0)),
                "epoch": int(checkpoint.get("epoch", 0)),
                "written": datetime.now(timezone.utc).isoformat(),
            }
            old = _present(target)
            _write_manifest(target, entry if old is None else {**entry, "replaces": old})
            aside.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise
        flush(target.parent)
        if old is not None:
            with contextlib.suppress(OSError):  # a disk that has just become full: it stays right as it is
                _write_manifest(target, entry)

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Raises InputError for a damaged file; no pickled code is run, whatever `weights_only` says."""
        return read_checkpoint(Path(path), map_location)

    def remove_checkpoint(self, path: Any) -> None:
        target = Path(path)
        target.unlink(missing_ok=True)  # first: a manifest without its file harms nobody
        _manifest(target).unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Takes away what a process that was killed as it wrote left in `checkpoints/`: a run has one at a time."""
    for pattern in (".*.part", ".*.ckpt.json.*"):
        for left in folder.glob(pattern):
            left.unlink(missing_ok=True)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The checkpoint, after a comparison with its manifest.

    Raises:
        InputError: it is damaged; names it, what is wrong, and the newest whole one of its folder.
    """
    why = problem(path)
    if why is None:
        try:
            return dict(torch.load(path, map_location=map_location, weights_only=True))
        except Exception as error:  # a file of another kind raises whatever it happens to look like
            why = f"torch can't read it: {type(error).__name__}"
    other = newest_whole(path.parent, besides=path)
    fix = (
        f"pass {other}, the newest whole one there"
        if other
        else "its folder holds no whole one: leave it out"
    )
    raise InputError(f"--ckpt_path: '{path}' is not a whole checkpoint ({why}): {fix}")


def problem(path: Path) -> str | None:
    """What is wrong with a checkpoint's file; None where it is whole.

    One without a manifest was copied alone, or is older than manifests: torch's files are zip archives, with a
    CRC-32 for each part.
    """
    manifest = _manifest(path)
    try:
        if not manifest.is_file():
            return _archive_problem(path)
        entry = _read_manifest(path)
        if entry is None or entry.get("file") != path.name:
            return f"{manifest.name} beside it can't be read, or is of another file"
        wrong = difference(path, entry)
        if wrong and "replaces" in entry and difference(path, entry["replaces"]) is None:
            return None  # ended between the two renames: the old one, whole
        return wrong
    except OSError as error:
        return f"it can't be read: {error.strerror}"


def newest_whole(folder: Path, besides: Path | None = None) -> Path | None:
    """The whole checkpoint of the latest step in `folder`, and of those the one written last; None without any.

    Args:
        folder: the run's `checkpoints/`.
        besides: one that doesn't count.
    """
    found = [path for path in folder.glob("*.ckpt") if besides is None or path.name != besides.name]
    for path in sorted(found, key=_age, reverse=True):  # the newest is nearly always whole: few are read
        if problem(path) is None:
            return path
    return None


def _age(path: Path) -> tuple[int, str]:
    """Step and time, from the manifest; one without comes last."""
    entry = _read_manifest(path) or {}
    replaced = entry.get("replaces")
    if isinstance(replaced, dict) and difference(path, entry):
        entry = replaced
    step = entry.get("step")
    return (step if isinstance(step, int) else -1, str(entry.get("written", "")))


def step_of(path: Path) -> int | None:
    """The optimizer step that the checkpoint is of, from its manifest; None where that doesn't say."""
    step = _age(path)[0]
    return step if step >= 0 else None


def _manifest(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads(_manifest(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _write_manifest(path: Path, entry: dict[str, Any]) -> None:
    write_text(_manifest(path), json.dumps(entry, indent=2) + "\n")


def _present(target: Path) -> dict[str, Any] | None:
    """The entry of what stands at `target` now; None where there is nothing."""
    if not target.is_file():
        return None
    entry = _read_manifest(target)
    if entry is None or "replaces" in entry:  # from before manifests, or ended between the two renames
        older = entry["replaces"] if entry is not None else {}
        known = entry if entry is not None and difference(target, entry) is None else older
        plain = {key: known[key] for key in ("step", "epoch", "written") if key in known}
        return {**plain, **digest(target)}
    return entry


def _archive_problem(path: Path) -> str | None:
    if not path.is_file():
        return "it is not there"
    try:
        with zipfile.ZipFile(path) as archive:
            return None if archive.testzip() is None else "a part of it fails its CRC-32"
    except (zipfile.BadZipFile, ValueError, EOFError):
        return "the archive is cut off, or none"


class _Hashing:
    """A stream that torch writes to: to the file, and into the digest.

    torch's writer ends the process when a write raises in the middle (it finishes its archive in a destructor), so
    an error is kept until it is done, and what comes after it is dropped.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.error: OSError | None = None

    def write(self, piece: Any) -> int:
        size = memoryview(piece).nbytes
        if self.error is None:
            try:
                self.stream.write(piece)
            except OSError as error:
                self.error = error
        self.sha256.update(piece)
        self.bytes += size
        return size

    def flush(self) -> None: ...


def _write(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """Writes and flushes; the manifest's `bytes` and `sha256`. Raises OSError."""
    with path.open("wb") as stream:
        hashing = _Hashing(stream)
        torch.save(checkpoint, hashing)  # type: ignore[arg-type]
        if hashing.error is not None:
            raise hashing.error
        stream.flush()
        os.fsync(stream.fileno())
    return {"bytes": hashing.bytes, "sha256": hashing.sha256.hexdigest()}
