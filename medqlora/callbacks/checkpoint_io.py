"""The Trainer's plugin for checkpoint files."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from medqlora.artifacts.checkpoint_files import (
    MapLocation,
    read_checkpoint,
    remove_checkpoint,
    write_checkpoint,
)


class Behind:
    """Writes in the background, one after another; after one that fails, the others of the group are left out.

    Attributes:
        saved: the state of each checkpoint of the group, on the host, by its path.
        error: of the write that failed; None before, and without one.
    """

    def __init__(self, writer: ThreadPoolExecutor) -> None:
        self.saved: dict[Path, Mapping[str, object]] = {}
        self.error: Exception | None = None
        self._writer = writer
        self._writes: list[Future[None]] = []

    def add(self, write: Callable[[], None]) -> None:
        """Queues a write behind all others of the plugin."""
        self._writes.append(self._writer.submit(self._run, write))

    def outcome(self) -> Exception | None:
        """Waits for the group; the error of the write that failed, None without one."""
        for each in self._writes:
            each.result()
        return self.error

    def wait(self) -> None:
        """Waits for the group; raises the error of the write that failed."""
        if error := self.outcome():
            raise error

    def _run(self, write: Callable[[], None]) -> None:
        if self.error is None:
            try:
                write()
            except Exception as error:
                self.error = error


class CheckpointFiles(TorchCheckpointIO):
    """Writes, reads and removes checkpoints with their manifests, see `medqlora.artifacts.checkpoint_files`.

    In a block of `behind()` a save returns as soon as the state is copied to the host: to hash, write and flush the
    250 MB of an 8B's takes about a second, in which training or validation goes on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._writer: ThreadPoolExecutor | None = None
        self._group: Behind | None = None

    @contextlib.contextmanager
    def behind(self) -> Iterator[Behind]:
        """Saves and removals in the block are done in the background; the group's `wait` tells how that ended."""
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
        self._group = Behind(self._writer)
        try:
            yield self._group
        finally:
            self._group = None

    def settle(self) -> None:
        """Waits for all that is written in the background; each group keeps its own error."""
        if self._writer is not None:
            self._writer.submit(int).result()  # its one thread works in order

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Raises OSError where the file can't be written, outside of `behind`; the old one is unchanged."""
        if self._group is None:
            self.settle()
            write_checkpoint(checkpoint, Path(path))
            return
        state = cast("Mapping[str, object]", _on_host(checkpoint, {}))
        self._group.saved[Path(path)] = state
        self._group.add(partial(write_checkpoint, state, Path(path)))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MapLocation = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, object]:
        """Raises InputError for a damaged file; runs no pickled code, whatever `weights_only` says."""
        self.settle()
        return cast("dict[str, object]", read_checkpoint(Path(path), map_location))

    def remove_checkpoint(self, path: str | Path) -> None:
        if self._group is None:
            self.settle()
            remove_checkpoint(Path(path))
        else:
            self._group.add(partial(remove_checkpoint, Path(path)))

    def teardown(self) -> None:
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None


def behind(trainer: Trainer) -> AbstractContextManager[Behind | None]:
    """A block whose saves are written in the background.

    None, and saves that are done when they return, with another plugin than `CheckpointFiles`, and with a logger that
    takes files away at each save, such as those of Weights & Biases and MLflow.
    """
    files = trainer.strategy.checkpoint_io
    takes_files = any(type(logger).after_save_checkpoint not in _TAKES_NONE for logger in trainer.loggers)
    if not isinstance(files, CheckpointFiles) or takes_files:
        return contextlib.nullcontext()
    return files.behind()


#: what a logger that does nothing at a save has
_TAKES_NONE = (Logger.after_save_checkpoint, TensorBoardLogger.after_save_checkpoint)


class PendingWrites:
    """Groups of writes in the background, and what follows each: where it is done, and where it fails."""

    def __init__(self) -> None:
        self._groups: list[tuple[Behind, Callable[[], None], Callable[[OSError], None]]] = []

    @contextlib.contextmanager
    def saving(
        self, trainer: Trainer, written: Callable[[], None], failed: Callable[[OSError], None]
    ) -> Iterator[Behind | None]:
        """A block of `behind`.

        Args:
            trainer: its plugin writes.
            written: called as soon as it is known that all is on the disk: here or in `settle`.
            failed: called instead where it isn't, with the error.
        """
        try:
            with behind(trainer) as group:
                yield group
        except OSError as error:
            failed(error)
            return
        if group is None:
            written()
        else:
            self._groups.append((group, written, failed))

    def settle(self) -> None:
        """Waits for all groups; what is on the disk is known before the first failure is told.

        Raises:
            Exception: the first that a `failed` raised, after all were called, or an error that is no OSError.
        """
        # a signal may end the waiting: the groups are kept until then
        outcomes = [(group.outcome(), written, failed) for group, written, failed in self._groups]
        self._groups = []
        for error, written, _ in outcomes:
            if error is None:
                written()
        told = [_tell(failed, error) for error, _, failed in outcomes if error is not None]
        if raised := [error for error in told if error is not None]:
            raise raised[0]


def _tell(failed: Callable[[OSError], None], error: Exception) -> Exception | None:
    """What `failed` raises at an error; one that is no OSError itself."""
    if not isinstance(error, OSError):
        return error
    try:
        failed(error)
    except Exception as raised:
        return raised
    return None


def _on_host(value: object, storages: dict[int, torch.UntypedStorage]) -> object:
    """A copy that later training doesn't change: containers, and tensors on the host that share memory as before.

    Args:
        value: nested dicts, lists and tuples of tensors and plain values.
        storages: the copies so far, by the storage's address; a storage that several tensors view is copied once.
    """
    if isinstance(value, Tensor):
        source = value.detach().untyped_storage()
        key = source.data_ptr()
        if key not in storages or not key:
            storages[key] = source.clone() if source.device.type == "cpu" else source.cpu()
        empty = torch.empty(0, dtype=value.dtype)
        return empty.set_(storages[key], value.storage_offset(), value.size(), value.stride())
    if isinstance(value, dict):
        copied = copy.copy(value)  # keeps the kind of dict
        copied.update((key, _on_host(each, storages)) for key, each in value.items())
        return copied
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_on_host(each, storages) for each in value)
    return value
