"""Resumable checkpoints of the adapter, and the best one as a folder that PEFT loads."""

import copy
import math
import os
import shutil
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from medqlora.artifacts import curve
from medqlora.artifacts.adapter_export import export_adapter
from medqlora.artifacts.checkpoint import KEY
from medqlora.artifacts.checkpoint_files import read_checkpoint
from medqlora.artifacts.validated import LOWER_IS_BETTER, default_monitor
from medqlora.config.callbacks import CheckpointOptions
from medqlora.errors import InputError
from medqlora.records import Encoded
from medqlora.training.checks.options import check_monitor
from medqlora.training.stage_start import Stage
from medqlora.utils.console import say
from medqlora.utils.manifests import disk_full, put_in_place, write_folder_manifest

#: what a save that failed leaves as it was
_KEPT = (
    "best_k_models",
    "best_model_path",
    "best_model_score",
    "current_score",
    "kth_best_model_path",
    "kth_value",
    "last_model_path",
)


class AdapterCheckpoint(ModelCheckpoint):
    """Keeps the best and the newest checkpoint, and exports the best adapter as `<run>/adapter/`.

    A checkpoint holds the adapter, the optimizer's state and where the run stands, not the base: a few
    times the adapter's size. The adapter is exported whenever it becomes the best, so that a run that is
    ended early leaves one too.

    Args:
        options: those of `medqlora.config.CheckpointOptions`.

    Raises:
        InputError: a number is out of its range.
    """

    def __init__(self, **options: Any) -> None:
        settings = CheckpointOptions(**options)
        settings.check()
        monitor, mode, dirpath = settings.monitor, settings.mode, settings.dirpath
        save_top_k, every_n_train_steps = settings.save_top_k, settings.every_n_train_steps
        #: whether the validation questions decide the monitor, in `choose_monitor`
        self._chooses = monitor is None
        #: whether the loss decides between equal scores: the first checkpoints' token F1 is often 0
        self._breaks_ties = False
        self._loss = math.inf
        #: val/loss of each checkpoint that is kept, by its path
        self._losses: dict[str, float] = {}
        monitor = monitor or "val/accuracy"
        super().__init__(
            dirpath=dirpath,
            filename="epoch{epoch}-step{step}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode=mode or ("min" if monitor in LOWER_IS_BETTER else "max"),
            save_top_k=save_top_k,
            # at the validation itself: Lightning would wait for the epoch's end, and a run that ends in
            # between would have no best adapter
            save_on_train_epoch_end=False,
        )
        self.every_n_steps = every_n_train_steps
        #: where the best adapter was written; None before the first
        self.adapter_folder: Path | None = None
        self._exported: str | None = None
        #: the step of the newest checkpoint of this process; None before the first
        self.newest_step: int | None = None
        self._newest: tuple[int, bool] | None = None
        self._validating = False
        self._own_folder = dirpath is None
        self._stage = "fit"

    def choose_monitor(self, dev: Sequence[Encoded], *, written: bool) -> str | None:
        """Settles the score of a monitor that is null.

        Args:
            dev: the validation questions.
            written: the model also writes its answers.

        Returns:
            A line to say where it is not `val/accuracy`; None else, and the second time.
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

    def check_start(self, trainer: Trainer, module: Any, data: Any, stage: Stage) -> None:
        """Settles a monitor that is null.

        Raises:
            InputError: the validation doesn't give the monitor, or `dirpath` can't be written.
        """
        if stage == "fit" and not self._own_folder:
            _check_folder(Path(str(self.dirpath)))
        if stage != "fit" or not data.dev:
            return
        if line := self.choose_monitor(data.dev, written=module.generate):
            say(line)
        check_monitor(str(self.monitor), data, module.generate)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module: Any = pl_module
        if stage == "fit" and not module.data.dev:
            # nothing is validated: the newest checkpoint is the one that is kept
            self.monitor, self._save_on_train_epoch_end = None, True
        self._stage = stage
        super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "losses": dict(self._losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what the best checkpoints are, as files of this run's folder, wherever that lies now.

        A checkpoint's paths are not followed out of it: the file at one of them is removed one day.
        """
        if self._stage != "fit":  # `test --ckpt_path` keeps no checkpoints of its own
            return
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            inside = folder / Path(path).name
            return str(inside) if path and inside.is_file() else ""

        best = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        best.pop("", None)
        self._losses = {here(path): loss for path, loss in state_dict.get("losses", {}).items() if here(path)}
        named = {name: here(state_dict.get(name, "")) for name in ("best_model_path", "kth_best_model_path")}
        state = {**state_dict, **named, "best_k_models": best, "dirpath": self.dirpath}
        if not named["best_model_path"]:
            state["best_model_score"] = None
        state["last_model_path"] = here(state_dict.get("last_model_path", ""))
        super().load_state_dict(state)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        module: Any = pl_module
        module.flush_metrics()  # what the steps before it logged has to be in TensorBoard's files first
        checkpoint["curve"] = curve.positions(trainer.loggers)
        # what `medqlora export` needs beside the weights, without the base
        checkpoint["export"] = {
            "peft_config": _plain(module.model.peft_config["default"].to_dict()),
            "parameters": list(module.parameter_counts),
        }
        # Lightning 2.6 takes a checkpoint from before a validation for one from after it, and would leave the
        # validation out. What it knows is one in whose first batch it was interrupted: it begins again. From then
        # on its totals tell of a batch that never ended, and each resume would validate again: they are evened.
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        if self._validating:
            none = dict.fromkeys(("ready", "started", "processed", "completed"), 0)
            progress["current"] = dict(none)
            progress["total"] = {**none, "ready": 1, "started": 1}
        else:
            progress["total"] = dict.fromkeys(progress["total"], progress["total"]["completed"])

    def epoch_or_validation_is_next(self, trainer: Trainer) -> bool:
        """Whether more belongs to this step: Lightning can't resume between a step and what follows it.

        A checkpoint from there would go on with the next step, without the validation and the epoch's end.
        """
        loop: Any = trainer.fit_loop.epoch_loop
        return bool(
            loop.batch_progress.is_last_batch or loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        # Lightning's own `every_n_train_steps` would rank these steps by the score of an older validation
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due and not self.epoch_or_validation_is_next(trainer):
            self.save_newest(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A validation can take longer than what ends a run waits for: its steps are kept before it."""
        # Lightning would resume a checkpoint of the last step as a run that is done
        ended = 0 <= trainer.max_steps <= trainer.global_step
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not ended:
            self._validating = True
            try:
                self.save_newest(trainer)
            finally:
                self._validating = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.save_newest(trainer)
            self._export_if_new(trainer, pl_module, self.best_model_path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.save_newest(trainer)
        self._export_if_new(trainer, pl_module, self.best_model_path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self.save_newest(trainer)
        self.finish(trainer, pl_module)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exports what is to be exported at the end; does nothing where that is done."""
        # a run that ends before its first validation has no best: its newest weights are what there is
        self._export_if_new(trainer, pl_module, self.best_model_path or self.last_model_path)

    def file_exists(self, filepath: Any, trainer: Trainer) -> bool:
        # in a run's own folder a file of this epoch and step is of an attempt that was interrupted: no "-v1"
        return not self._own_folder and super().file_exists(filepath, trainer)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the newest weights are kept; where the loss breaks ties, also for an equal score at a lower loss."""
        if super().check_monitor_top_k(trainer, current):
            return True
        worst = self.best_k_models.get(self.kth_best_model_path)
        if not self._breaks_ties or current is None or worst is None:
            return False
        return bool(current == worst) and self._loss < self._losses.get(self.kth_best_model_path, math.inf)

    def _choose_among_equals(self) -> None:
        """Notes the newest checkpoint's loss, and makes the one of the lowest loss the best of those that tie."""
        kept = {path: self._losses.get(path, self._loss) for path in self.best_k_models}
        self._losses = kept
        if self._breaks_ties and self.best_model_path in kept:
            best = self.best_k_models[self.best_model_path]
            equal = [path for path, score in self.best_k_models.items() if bool(score == best)]
            self.best_model_path = min(equal, key=kept.__getitem__)

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Any]) -> None:
        self._loss = float(monitor_candidates.get("val/loss", math.inf))
        before = {name: copy.copy(getattr(self, name)) for name in _KEPT}
        try:
            super()._save_topk_checkpoint(trainer, monitor_candidates)
        except OSError as error:
            self._tell_full(error)
            for name, value in before.items():
                setattr(self, name, value)
        else:
            self._choose_among_equals()

    def save_newest(self, trainer: Trainer) -> None:
        """Brings `last.ckpt` up to date, unless it is of this step already, and of after its validation."""
        place = (trainer.global_step, self._validating)
        if trainer.fast_dev_run or self._newest == place:  # type: ignore[attr-defined]
            return
        path = Path(str(self.dirpath)) / "last.ckpt"
        before, self.last_model_path = self.last_model_path, str(path)
        try:
            trainer.save_checkpoint(path)
        except OSError as error:
            self.last_model_path = before
            self._tell_full(error)
        else:
            self._newest, self.newest_step = place, trainer.global_step

    def _tell_full(self, error: OSError) -> None:
        """Raises `error` again where something else than room is missing."""
        if not disk_full(error):
            raise error
        kept = (
            "no checkpoint stands yet"
            if self.newest_step is None
            else f"that of step {self.newest_step} is kept"
        )
        say(
            f"No room for a checkpoint in {self.dirpath} ({error.strerror}): {kept}, training goes on, and the next "
            "save tries again: make room on that disk"
        )

    def _export_if_new(self, trainer: Trainer, pl_module: Any, best: str) -> None:
        """Exports the weights of the checkpoint `best` when it is a new one.

        They are read from its file: the weights in memory may be those of a later step.
        """
        run = Path(trainer.log_dir or trainer.default_root_dir)  # asked by all processes: the first one tells
        if not trainer.is_global_zero or not best or best == self._exported:
            return
        try:
            self.export(pl_module, run, Path(best))
        except OSError as error:
            if not disk_full(error):
                raise
            shutil.rmtree(run / ".adapter.new", ignore_errors=True)
            say(
                f"No room for the adapter in {run} ({error.strerror}): training goes on; make room, and write it "
                f"with `medqlora export --ckpt_path {best}`"
            )

    def export(self, pl_module: Any, run: Path, file: Path) -> None:
        """Writes the weights of the checkpoint `file` as `<run>/adapter/`.

        Raises:
            InputError: the checkpoint is damaged.
            OSError: the adapter can't be written; the one that was there is left as it was.
        """
        checkpoint = read_checkpoint(file)
        weights = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
        validation = checkpoint[KEY].get("validation", {})
        value = None if self.best_model_score is None else float(self.best_model_score)
        aside, folder, old = run / ".adapter.new", run / "adapter", run / ".adapter.old"
        for path in (aside, old):
            _remove(path)
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
        write_folder_manifest(aside)
        put_in_place(aside, folder, old)
        _remove(old)
        self._exported, self.adapter_folder = str(file), folder


def _check_folder(folder: Path) -> None:
    """Raises InputError for a folder that can't be made or written; leaves none that was not there."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
        for path in missing:
            path.rmdir()
    except OSError as error:
        raise InputError(
            f"--checkpoint.dirpath {folder}: it can't be made ({error.strerror}): name another folder"
        ) from error
    if not writable:
        raise InputError(f"--checkpoint.dirpath {folder}: it can't be written: name another folder")


def _remove(path: Path) -> None:
    """Takes a folder away; of a link, which somebody made to keep `adapter/` elsewhere, the link alone."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def saver_of(trainer: Trainer) -> AdapterCheckpoint:
    """Ours: `trainer.checkpoint_callback` is the first there is, which may be one that the user added."""
    return next(one for one in trainer.callbacks if isinstance(one, AdapterCheckpoint))  # type: ignore[attr-defined]


def _plain(value: Any) -> Any:
    """PEFT's configuration with neither sets nor enumerations, which a checkpoint without pickle can't hold."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value.value) if isinstance(value, Enum) else value
