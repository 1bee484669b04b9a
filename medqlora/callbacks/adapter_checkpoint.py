"""Resumable checkpoints of the adapter, and the best one as a folder that PEFT loads."""

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from medqlora.artifacts import curve
from medqlora.artifacts.adapter_folder import write_adapter
from medqlora.artifacts.checkpoint_files import SavedCheckpoint, read_checkpoint
from medqlora.artifacts.run_folder import LAST_CHECKPOINT
from medqlora.artifacts.validated import LOWER_IS_BETTER, default_monitor
from medqlora.callbacks.adapter_contents import ChosenBy, adapter_contents, export_record
from medqlora.callbacks.attached import qlora_module, run_folder
from medqlora.callbacks.checkpoint_io import Behind, PendingWrites
from medqlora.callbacks.kept_checkpoints import restored
from medqlora.callbacks.no_room import check_result, tell_adapter, tell_checkpoint
from medqlora.compat.lightning import fast_dev_run, validation_or_epoch_end_follows
from medqlora.compat.lightning_callbacks import (
    last_batch_of_epoch,
    save_after_epochs,
    saves_after_epochs,
    settle_validation_progress,
)
from medqlora.config.callbacks import CheckpointOptions
from medqlora.datamodule import PubMedQADataModule
from medqlora.errors import InputError
from medqlora.module import QLoRAModule
from medqlora.records import Encoded
from medqlora.trainer.stage_start import Stage
from medqlora.training.checks.options import check_monitor
from medqlora.utils.cache import why_not_writable
from medqlora.utils.console import say

#: what a failed save must not change
_KEPT = (
    "_losses",
    "best_k_models",
    "best_model_path",
    "best_model_score",
    "current_score",
    "kth_best_model_path",
    "kth_value",
)


class AdapterCheckpoint(ModelCheckpoint):
    """Keeps the best and the newest checkpoint, and exports the best adapter as `<run>/adapter/`.

    A checkpoint holds the adapter, the optimizer's state and the run's position, not the base model: a few times the
    adapter's size. The adapter is exported whenever it becomes the best, so that a run that ends early has one too.

    Args:
        values, options: those of `medqlora.config.CheckpointOptions`.

    Raises:
        InputError: a number is out of its range.
    """

    def __init__(self, *values: object, **options: object) -> None:
        settings = CheckpointOptions(*values, **options)  # type: ignore[arg-type]  # checked where the options are read
        settings.check()
        monitor = settings.monitor or "val/accuracy"
        super().__init__(
            dirpath=settings.dirpath,
            filename="epoch{epoch}-step{step}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode=settings.mode or ("min" if monitor in LOWER_IS_BETTER else "max"),
            save_top_k=settings.save_top_k,
            # at the validation itself: Lightning would wait for the epoch's end, and a run that ends in between
            # would have no best adapter
            save_on_train_epoch_end=False,
        )
        self.every_n_steps = settings.every_n_train_steps
        #: the folder of the best adapter; None before the first export
        self.adapter_folder: Path | None = None
        self._newest_step: int | None = None
        #: whether the validation questions decide the monitor, in `choose_monitor`
        self._chooses = settings.monitor is None
        self._own_folder = settings.dirpath is None
        #: whether the loss decides between equal scores: the token F1 of the first checkpoints is often 0
        self._breaks_ties = False
        self._loss = math.inf
        #: val/loss of each kept checkpoint, by its path
        self._losses: dict[str, float] = {}
        self._exported: str | None = None
        #: the newest checkpoint's step, and whether its validation is next
        self._newest: tuple[int, bool] | None = None
        self._validating = False
        self._pending = PendingWrites()
        #: the group of the newest save of a best checkpoint
        self._best_save: Behind | None = None
        #: the best checkpoints before it, by attribute; and whether its write failed
        self._before: dict[str, object] = {}
        self._undone = False
        self._stage = "fit"
        #: which of "checkpoint" and "adapter" found no room when it was last to be written
        self._lacks: set[str] = set()
        #: whether the run goes on without the file of its best checkpoint
        self._lacks_best = False

    # ---- the start -------------------------------------------------------------------------------

    def choose_monitor(self, dev: Sequence[Encoded], *, written: bool) -> str | None:
        """Chooses the score where the option is null.

        Args:
            dev: the validation questions.
            written: the model also generates answers.

        Returns:
            A line to show where the score is not `val/accuracy`; None otherwise, and the second time.
        """
        if not self._chooses or not dev:
            return None
        chosen = default_monitor(labelled=bool(dev[0].labels), written=written)
        if chosen == self.monitor:
            return None
        self.monitor, self._breaks_ties = chosen, True
        return (
            f"The validation questions have free answers: the best checkpoint is the one of the highest {chosen} "
            "(--checkpoint.monitor names another score)"
        )

    def check_start(
        self, trainer: Trainer, module: QLoRAModule, data: PubMedQADataModule, stage: Stage
    ) -> None:
        """Chooses the score where the option is null.

        Raises:
            InputError: the validation doesn't give the score, or `dirpath` can't be written.
        """
        if stage != "fit":
            return
        if not self._own_folder and (why := why_not_writable(Path(str(self.dirpath)))):
            raise InputError(
                f"--checkpoint.dirpath {self.dirpath}: it can't be made or written ({why}): name another folder"
            )
        if data.dev:
            if line := self.choose_monitor(data.dev, written=module.generate):
                say(line)
            check_monitor(str(self.monitor), data, module.generate)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and not qlora_module(pl_module).data.dev:
            # without validation the newest checkpoint is kept
            self.monitor = None
            save_after_epochs(self)
        self._stage = stage
        super().setup(trainer, pl_module, stage)

    # ---- the callback's state in a checkpoint ----------------------------------------------------

    def state_dict(self) -> dict[str, object]:
        return {**super().state_dict(), "losses": dict(self._losses)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Takes over the undamaged best checkpoints of this run's folder."""
        if self._stage != "fit":  # `test --ckpt_path` keeps no checkpoints of its own
            return
        state, self._losses, missing = restored(state_dict, Path(str(self.dirpath)))
        super().load_state_dict({**state, "dirpath": self.dirpath})
        if missing is not None:
            self._lacks_best = True
            say(f"{missing}: the next validation's is the best so far")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]
    ) -> None:
        module = qlora_module(pl_module)
        module.flush_metrics()  # TensorBoard's files must hold what the steps before it logged
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        for logger in loggers:
            logger.experiment.flush()
        checkpoint["curve"] = curve.positions(Path(logger.log_dir) for logger in loggers)
        checkpoint["export"] = export_record(module)
        settle_validation_progress(checkpoint, validating=self._validating)

    # ---- when a checkpoint is saved --------------------------------------------------------------

    def epoch_or_validation_is_next(self, trainer: Trainer) -> bool:
        """Whether more belongs to this step: Lightning can't resume between a step and what follows it.

        A checkpoint from there would go on with the next step, without the validation and the epoch's end.
        """
        return validation_or_epoch_end_follows(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        # Lightning's own `every_n_train_steps` would rank these steps by the score of an older validation
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due and not self.epoch_or_validation_is_next(trainer):
            self.save_newest(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves before a validation, which can take longer than a signal's sender waits."""
        # Lightning would resume a checkpoint of the last step as a finished run
        ended = 0 <= trainer.max_steps <= trainer.global_step
        self._pending.settle()
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not ended:
            self._validating = True
            try:
                self.save_newest(trainer)
            finally:
                self._validating = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with self._saving_best(trainer):
            super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.save_newest(trainer, behind=self._best_save)
            self._export_if_new(trainer, pl_module, self.best_model_path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if saves_after_epochs(self):  # otherwise the validation's writes are not waited for
            with self._saving_best(trainer):
                super().on_train_epoch_end(trainer, pl_module)
        if last_batch_of_epoch(trainer):
            self.save_newest(trainer)
        self._export_if_new(trainer, pl_module, self.best_model_path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self.settle(trainer)  # a save that found no room is tried again
        self.save_newest(trainer)
        self.finish(trainer, pl_module)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exports the best adapter, unless that is done."""
        self.settle(trainer)
        adapter = run_folder(trainer).adapter
        if self._lacks_best and not self.best_model_path and adapter.is_dir():
            self.adapter_folder = adapter  # of the best checkpoint that was there, or of one before it
            return
        # a run that ends before its first validation has no best checkpoint: the newest weights are exported
        newest = "" if "checkpoint" in self._lacks else self.last_model_path  # or that is of an earlier step
        self._export_if_new(trainer, pl_module, self.best_model_path or newest)
        self._pending.settle()

    def check_result(self, trainer: Trainer) -> None:
        """Tells what of the result found no room on the disk; all processes call it.

        Raises:
            RuntimeError: no adapter of the run's end stands.
        """
        lacks = trainer.strategy.broadcast(self._lacks)
        last = Path(str(self.dirpath)) / LAST_CHECKPOINT
        check_result(lacks, trainer.global_step, last, best=bool(self.best_model_path))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        _ = self.newest_step  # a write that failed is told

    def settle(self, trainer: Trainer) -> None:
        """Waits for the writes; all processes call it, and find the best and the newest checkpoint on the disk."""
        self._pending.settle()
        if trainer.world_size > 1:
            undone, self._newest = trainer.strategy.broadcast((self._undone, self._newest))
            if undone:
                self._take_back()
        self._undone = False

    # ---- the best checkpoints --------------------------------------------------------------------

    def file_exists(self, filepath: str | Path, trainer: Trainer) -> bool:
        # in a run's own folder a file of this epoch and step is of an interrupted attempt: no "-v1"
        return not self._own_folder and super().file_exists(filepath, trainer)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the newest weights are kept; where the loss breaks ties, also for an equal score at a lower loss."""
        if super().check_monitor_top_k(trainer, current):
            return True
        worst = self.best_k_models.get(self.kth_best_model_path)
        if not self._breaks_ties or current is None or worst is None:
            return False
        return bool(current == worst) and self._loss < self._losses.get(self.kth_best_model_path, math.inf)

    @contextlib.contextmanager
    def _saving_best(self, trainer: Trainer) -> Iterator[None]:
        """A block in which Lightning may save a best checkpoint; on a full disk the best ones stay as they were."""
        self.settle(trainer)
        self._loss = float(trainer.callback_metrics.get("val/loss", math.inf))
        self._before = {name: copy.copy(getattr(self, name, None)) for name in _KEPT}

        def failed(error: OSError) -> None:
            self._undone = True
            self._take_back()
            self._report_full(error)

        with self._pending.saving(trainer, lambda: None, failed) as self._best_save:
            yield
            self._choose_among_equals()

    def _take_back(self) -> None:
        """Makes the best checkpoints those of before the last save."""
        for name, value in self._before.items():
            setattr(self, name, copy.copy(value))

    def _choose_among_equals(self) -> None:
        """Notes the newest checkpoint's loss; of equal scores, the one of the lowest loss becomes the best."""
        self._losses = {path: self._losses.get(path, self._loss) for path in self.best_k_models}
        if self._breaks_ties and self.best_model_path in self._losses:
            best = self.best_k_models[self.best_model_path]
            equal = [path for path, score in self.best_k_models.items() if bool(score == best)]
            self.best_model_path = min(equal, key=self._losses.__getitem__)

    # ---- the newest checkpoint -------------------------------------------------------------------

    @property
    def newest_step(self) -> int | None:
        """The step of this process's newest checkpoint on the disk, None before the first; a failed write is told."""
        try:
            self._pending.settle()
        except Exception as error:
            say(f"What was to be written last is not on the disk: {type(error).__name__}: {error}")
        return self._newest_step

    def save_newest(self, trainer: Trainer, behind: Behind | None = None) -> None:
        """Saves `last.ckpt`, unless it is of this step already, and on the same side of its validation.

        With this project's `CheckpointFiles` it is written while the run goes on; `newest_step` waits for it.
        `behind` is the save of the best checkpoint that this state names: where that fails, `last.ckpt` stays as it is.
        Without it all earlier writes are waited for, so that the state names no best checkpoint that failed.
        """
        position = (step := trainer.global_step, self._validating)
        if fast_dev_run(trainer) or self._newest == position:
            return
        if behind is None:
            self._pending.settle()
        path = Path(str(self.dirpath)) / LAST_CHECKPOINT

        def written() -> None:
            self._newest_step = step
            self._lacks.discard("checkpoint")

        def failed(error: OSError) -> None:
            self._lacks.add("checkpoint")
            if self._newest == position:  # no later one has been saved since
                self._newest = None
            self.last_model_path = str(path) if path.is_file() else ""
            if behind is None or error is not behind.error:  # which is reported
                self._report_full(error)

        self._newest, self.last_model_path = position, str(path)
        with self._pending.saving(trainer, written, failed) as group:
            if group is not None and behind is not None:
                group.add(behind.wait)
            trainer.save_checkpoint(path)

    def _report_full(self, error: OSError) -> None:
        tell_checkpoint(error, Path(str(self.dirpath)), self._newest_step)

    # ---- the adapter -----------------------------------------------------------------------------

    def _export_if_new(self, trainer: Trainer, pl_module: LightningModule, best: str) -> None:
        """Exports the weights of the checkpoint `best`, unless that is done.

        They are those of its save, or read from its file: the weights in memory may be of a later step.

        Raises:
            InputError: the checkpoint is damaged.
            OSError: the adapter can't be written, for another reason than a full disk.
        """
        run = run_folder(trainer)
        if not trainer.is_global_zero or not best or best == self._exported:
            return
        module = qlora_module(pl_module)
        value = None if self.best_model_score is None else float(self.best_model_score)
        save, self._best_save = self._best_save, None
        before = self._exported, self.adapter_folder
        state = None if save is None else save.saved.get(Path(best))
        saved = read_checkpoint(Path(best)) if state is None else cast(SavedCheckpoint, state)
        chosen_by = ChosenBy(self.monitor if self.best_model_path else None, value)
        contents = adapter_contents(trainer, module, module.data, saved, chosen_by)

        def write() -> None:
            if save is not None:
                save.wait()  # its writes come before this one
            write_adapter(contents, run.adapter)

        def failed(error: OSError) -> None:
            self._exported, self.adapter_folder = before
            if save is not None and error is save.error:
                return  # the checkpoint itself found no room, which is reported
            self._lacks.add("adapter")
            tell_adapter(error, run.path, best)

        self._exported, self.adapter_folder = best, run.adapter
        with self._pending.saving(trainer, lambda: self._lacks.discard("adapter"), failed) as group:
            write() if group is None else group.add(write)
