"""Private parts of Lightning 2.6 that the callbacks need, and typed reads of attributes that it sets late."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def last_batch_of_epoch(trainer: Trainer) -> bool:
    """Whether the training batch that has just ended was the epoch's last."""
    return bool(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)


def save_after_epochs(checkpoint: ModelCheckpoint) -> None:
    """Has a ModelCheckpoint save at the end of each training epoch, not of each validation.

    The constructor's `save_on_train_epoch_end` has no setter in Lightning 2.6, and whether a run validates is known
    after the data were read.
    """
    checkpoint._save_on_train_epoch_end = True


def saves_after_epochs(checkpoint: ModelCheckpoint) -> bool:
    """Whether a ModelCheckpoint saves at the end of each training epoch."""
    return bool(checkpoint._save_on_train_epoch_end)


def settle_validation_progress(checkpoint: Mapping[str, object], *, validating: bool) -> None:
    """Changes the progress of the validation loop in a checkpoint so that Lightning 2.6 resumes it exactly.

    Lightning takes a checkpoint from before a validation for one from after it, and leaves the validation out. It
    begins a validation again where its first batch was interrupted: that state is written. From then on the totals
    name a batch that never ended, and each resume would validate again: in other checkpoints they are evened out.

    Args:
        checkpoint: as Lightning is about to write it.
        validating: the validation is next.
    """
    loops = cast("dict[str, dict[str, dict[str, dict[str, int]]]]", checkpoint["loops"])
    progress = loops["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    if validating:
        none = dict.fromkeys(("ready", "started", "processed", "completed"), 0)
        progress["current"] = dict(none)
        progress["total"] = {**none, "ready": 1, "started": 1}
    else:
        progress["total"] = dict.fromkeys(progress["total"], progress["total"]["completed"])


def has_version(logger: TensorBoardLogger) -> bool:
    """Whether a logger's folder has a name already; asking for `logger.version` would choose one (Lightning 2.6)."""
    return logger._version is not None


def set_version(logger: TensorBoardLogger, name: str) -> None:
    """Names the folder of a logger that has no name yet; Lightning 2.6 takes a name in the constructor alone."""
    logger._version = name


def drop_writer(logger: TensorBoardLogger) -> "SummaryWriter | None":
    """Takes the logger's TensorBoard writer away, so that the next use makes a new one with a new file.

    Lightning 2.6 closes its writer at the run's end alone, and keeps it in `_experiment`.

    Returns:
        The writer; None where there was none.
    """
    writer, logger._experiment = logger._experiment, None
    return writer
