"""Resumable checkpoints of the adapter, and the best one as a folder that PEFT loads."""

import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from medqlora.export import export_adapter
from medqlora.training.checkpoint import KEY


class AdapterCheckpoint(ModelCheckpoint):
    """Keeps the best and the newest checkpoint, and exports the best adapter as `<run>/adapter/`.

    A checkpoint holds the adapter, the optimizer's state and where the run stands, not the base: a few
    times the adapter's size. The adapter is exported whenever it becomes the best, so that a run that is
    ended early leaves one too.

    Args:
        monitor: the validation score that tells which is best; without validation the last one is.
        mode: whether a higher or a lower score is better.
        save_top_k: how many of the best are kept.
        every_n_train_steps: bring `last.ckpt` up to date every so many steps; it also is after each
            validation and at the end.
        dirpath: where to; null for `checkpoints/` in the run's folder.
    """

    def __init__(
        self,
        monitor: str = "val/accuracy",
        mode: Literal["max", "min"] = "max",
        save_top_k: int = 1,
        every_n_train_steps: int | None = None,
        dirpath: str | None = None,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="epoch{epoch}-step{step}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            # at the validation itself: Lightning would wait for the epoch's end, and a run that ends in
            # between would have no best adapter
            save_on_train_epoch_end=False,
        )
        self.every_n_steps = every_n_train_steps
        #: where the best adapter was written; None before the first
        self.adapter_folder: Path | None = None
        self._exported: str | None = None
        self._newest_step = -1
        self._stage = "fit"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and not getattr(pl_module, "data").dev:  # noqa: B009
            # nothing is validated: the newest checkpoint is the one that is kept
            self.monitor, self._save_on_train_epoch_end = None, True
        self._stage = stage
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._stage == "fit":  # `test --ckpt_path` keeps no checkpoints of its own
            super().load_state_dict(state_dict)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        # Lightning's own `every_n_train_steps` would rank these steps by the score of an older validation
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._save_newest(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save_newest(trainer)
            self._export_if_new(trainer, pl_module, self.best_model_path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self._export_if_new(trainer, pl_module, self.best_model_path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self._save_newest(trainer)
        # a run that ends before its first validation has no best: its newest weights are what there is
        self._export_if_new(trainer, pl_module, self.best_model_path or self.last_model_path)

    def _save_newest(self, trainer: Trainer) -> None:
        """Brings `last.ckpt` up to date, unless it is of this step already."""
        if trainer.fast_dev_run or self._newest_step == trainer.global_step:  # type: ignore[attr-defined]
            return
        path = Path(str(self.dirpath)) / "last.ckpt"
        trainer.save_checkpoint(path)
        self.last_model_path, self._newest_step = str(path), trainer.global_step

    def _export_if_new(self, trainer: Trainer, pl_module: Any, best: str) -> None:
        """Exports the weights of the checkpoint `best` when it is a new one.

        They are read from its file: the weights in memory may be those of a later step.
        """
        if not trainer.is_global_zero or not best or best == self._exported:
            return
        run = Path(trainer.log_dir or trainer.default_root_dir)
        checkpoint = torch.load(best, map_location="cpu", weights_only=True)
        weights = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
        validation = checkpoint[KEY].get("validation", {})
        value = None if self.best_model_score is None else float(self.best_model_score)
        aside, folder, old = run / ".adapter.new", run / "adapter", run / ".adapter.old"
        for path in (aside, old):
            shutil.rmtree(path, ignore_errors=True)
        aside.mkdir(parents=True)
        export_adapter(
            pl_module,
            aside,
            state=weights,
            step=checkpoint["global_step"],
            scores=validation.get("scores", {}),
            calibration=validation.get("calibration"),
            best=(self.monitor, value),
        )
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        self._exported, self.adapter_folder = best, folder
