"""What this project reads of Lightning's private parts says what it is taken for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader

from medqlora.compat.lightning import validation_or_epoch_end_follows
from medqlora.compat.lightning_callbacks import (
    drop_writer,
    last_batch_of_epoch,
    save_after_epochs,
    settle_validation_progress,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Small(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("score", 1.0)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Watch(Callback):
    """What is expected next after each training batch, and what came."""

    def __init__(self) -> None:
        self.told: list[tuple[bool, bool]] = []
        self.came: list[str] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.told.append((validation_or_epoch_end_follows(trainer), last_batch_of_epoch(trainer)))
        self.came.append("step")

    def on_validation_start(self, *args: Any) -> None:
        self.came.append("validation")

    def on_train_epoch_end(self, *args: Any) -> None:
        self.came.append("end")


def trained(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
        num_sanity_val_steps=0,
        log_every_n_steps=3,
        callbacks=list(callbacks),
        **options,
    )
    trainer.fit(Small(), DataLoader(torch.ones(5, 2)), DataLoader(torch.ones(1, 2)))
    return trainer


def test_a_validation_and_an_epochs_end_are_known_before_they_come(tmp_path: Path) -> None:
    watch = Watch()
    trained(tmp_path, watch, val_check_interval=2, enable_checkpointing=False)
    assert watch.came == ["step", "step", "validation", "step", "step", "validation", "step", "end"]
    assert watch.told == [(False, False), (True, False), (False, False), (True, False), (True, True)]


def test_a_checkpoint_callback_saves_after_epochs_once_it_is_told_to(tmp_path: Path) -> None:
    steps = []
    for told in (False, True):
        saver = ModelCheckpoint(tmp_path / str(told), save_on_train_epoch_end=False)
        if told:
            save_after_epochs(saver)
        trained(tmp_path, saver, limit_val_batches=0)
        steps.append(Path(saver.best_model_path).name)
    assert steps == ["", "epoch=0-step=5.ckpt"]


def test_the_writer_that_was_dropped_is_replaced_at_the_next_use(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, version="run")
    assert drop_writer(logger) is None
    first = logger.experiment
    assert drop_writer(logger) is first
    assert logger.experiment is not first
    first.close()
    logger.experiment.close()


def test_a_checkpoint_before_a_validation_says_that_it_began(tmp_path: Path) -> None:
    trainer = trained(tmp_path, enable_checkpointing=False)
    checkpoint = trainer._checkpoint_connector.dump_checkpoint()
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    settle_validation_progress(checkpoint, validating=True)
    assert progress["total"] == {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    assert set(progress["current"].values()) >= {0}
    progress["total"] = {"ready": 4, "started": 4, "processed": 3, "completed": 3}
    settle_validation_progress(checkpoint, validating=False)
    assert set(progress["total"].values()) == {3}
