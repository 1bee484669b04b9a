"""The Trainer's plugin for checkpoint files."""

from pathlib import Path
from typing import cast

from lightning.pytorch.plugins.io import TorchCheckpointIO

from medqlora.artifacts.checkpoint_files import (
    MapLocation,
    read_checkpoint,
    remove_checkpoint,
    write_checkpoint,
)


class CheckpointFiles(TorchCheckpointIO):
    """Writes, reads and removes checkpoints with their manifests, see `medqlora.artifacts.checkpoint_files`."""

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Raises OSError where the file can't be written; the old one is unchanged."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MapLocation = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, object]:
        """Raises InputError for a damaged file; runs no pickled code, whatever `weights_only` says."""
        return cast("dict[str, object]", read_checkpoint(Path(path), map_location))

    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(Path(path))
