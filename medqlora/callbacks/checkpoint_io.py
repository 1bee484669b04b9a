"""The Trainer's plugin for checkpoint files."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from medqlora.artifacts.checkpoint_files import (
    MapLocation,
    read_checkpoint,
    remove_checkpoint,
    write_checkpoint,
)


class CheckpointFiles(TorchCheckpointIO):
    """Writes, reads and removes checkpoints with their manifests, see `medqlora.artifacts.checkpoint_files`.

    A save inside `behind()` returns as soon as the state is copied to the host: hashing, writing and flushing an 8B's
    250 MB take a second, in which training or validation goes on. One save at most is being written; every other use of
    the plugin waits for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._writer: ThreadPoolExecutor | None = None
        self._written: Future[None] | None = None
        self._behind = False

    @contextlib.contextmanager
    def behind(self) -> Iterator[None]:
        """Saves in the block are written in the background; `settle` tells how that ended."""
        self._behind = True
        try:
            yield
        finally:
            self._behind = False

    def settle(self) -> None:
        """Waits for the save in the background.

        Raises:
            OSError: the file couldn't be written; the old one is unchanged.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Raises OSError where the file, or the one before it, can't be written; the old one is unchanged."""
        self.settle()
        if not self._behind:
            write_checkpoint(checkpoint, Path(path))
            return
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        state = cast("Mapping[str, object]", _on_host(checkpoint, {}))
        self._written = self._writer.submit(write_checkpoint, state, Path(path))

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
        self.settle()
        remove_checkpoint(Path(path))

    def teardown(self) -> None:
        """Waits for the save in the background; whoever asked for it has settled it, so its error is told already."""
        with contextlib.suppress(OSError):
            self.settle()
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None


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
