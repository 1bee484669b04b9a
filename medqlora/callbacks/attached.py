"""The module, the data and the checkpoint callback of a Trainer, with their types."""

from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import LightningModule, Trainer

from medqlora.artifacts.run_folder import RunFolder
from medqlora.compat.lightning import callbacks_of
from medqlora.module import QLoRAModule

if TYPE_CHECKING:
    from medqlora.callbacks.adapter_checkpoint import AdapterCheckpoint


def qlora_module(pl_module: LightningModule) -> QLoRAModule:
    """The module as a QLoRAModule.

    Raises:
        TypeError: it is another module.
    """
    if not isinstance(pl_module, QLoRAModule):
        raise TypeError(f"this callback belongs to a QLoRAModule, not to a {type(pl_module).__name__}")
    return pl_module


def run_folder(trainer: Trainer) -> RunFolder:
    """The run's folder. All processes call it: the first one broadcasts the name."""
    return RunFolder(Path(trainer.log_dir or trainer.default_root_dir))


def saver_of(trainer: Trainer) -> "AdapterCheckpoint":
    """The Trainer's AdapterCheckpoint; `trainer.checkpoint_callback` may be one that the user added."""
    from medqlora.callbacks.adapter_checkpoint import AdapterCheckpoint

    return next(callback for callback in callbacks_of(trainer) if isinstance(callback, AdapterCheckpoint))
