"""TensorBoard's files at a checkpoint: a resumed run goes on with the curve exactly where the checkpoint was.

TensorBoard's own way, a writer's `purge_step`, drops everything from a step on: what was logged under the
checkpoint's own step, by the validation before it, would be lost and not be logged again.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from medqlora.utils.manifests import flush, plain_name

_PATTERN = "events.out.tfevents.*"


def positions(loggers: Iterable[Any]) -> dict[str, int]:
    """Brings to the disk what was logged so far; the event files and their sizes in bytes."""
    sizes: dict[str, int] = {}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.flush()
            for file in Path(logger.log_dir).glob(_PATTERN):
                flush(file)
                sizes[file.name] = file.stat().st_size
    return sizes


def cut(run: Path, sizes: Mapping[str, int]) -> None:
    """Takes away what was logged after the checkpoint: those steps are run again.

    Args:
        run: the folder with the event files.
        sizes: as `positions` gave them when the checkpoint was written.
    """
    for file in run.glob(_PATTERN):
        if file.name not in sizes:
            file.unlink()
        elif plain_name(file.name) and file.stat().st_size > sizes[file.name] >= 0:
            with file.open("r+b") as stream:
                stream.truncate(sizes[file.name])
