"""Keeps a run's `run.json` true: running, finished, failed or interrupted, and the best score."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.artifacts.runs import RUN_FILE, RunRecord
from medqlora.callbacks.adapter_checkpoint import saver_of
from medqlora.errors import InputError
from medqlora.utils.console import say
from medqlora.utils.files import now
from medqlora.utils.interrupts import Interrupted


class RunRecorder(Callback):
    """Writes the record when a fit starts and when it ends, well or not.

    A run that was ended by wrong input leaves no record: it never ran.
    """

    def __init__(self) -> None:
        self.record: RunRecord | None = None
        self._folder: str | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # asked once, while all processes are here: the first one tells the others
        self._folder = trainer.log_dir
        backend: Any = pl_module.backend
        self.record = RunRecord("fit", "running", backend.base, backend.identity())
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.record is None:
            return
        saver = saver_of(trainer)
        # a resumed run that had no step left comes here without `on_train_end`; and a run that says it is
        # finished has its adapter
        saver.finish(trainer, pl_module)
        if saver.best_model_score is not None:
            self.record.best = {str(saver.monitor): float(saver.best_model_score)}
        self.record.state, self.record.finished = "finished", now()
        self._end(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.record is None or isinstance(exception, InputError):
            return
        stopped = isinstance(exception, (Interrupted, KeyboardInterrupt))
        self.record.state, self.record.finished = "interrupted" if stopped else "failed", now()
        self.record.error = None if stopped else f"{type(exception).__name__}: {exception}".splitlines()[0]
        self._end(trainer)

    def _end(self, trainer: Trainer) -> None:
        """Writes how the run ended; a full disk hides no error, and takes no adapter back."""
        try:
            self._write(trainer)
        except OSError as error:
            say(
                f"No room for {RUN_FILE} in {self._folder} ({error.strerror}): it says 'running' of a run that is "
                f"{self.record.state if self.record else 'over'}: make room on that disk"
            )

    def _write(self, trainer: Trainer) -> None:
        if self.record is not None and trainer.is_global_zero and self._folder:
            self.record.write(Path(self._folder))
