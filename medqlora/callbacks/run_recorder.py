"""The state of a run in `run.json`: running, finished, failed or interrupted, and the best score."""

import contextlib
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.artifacts.run_folder import RunFolder
from medqlora.artifacts.runs import RunRecord
from medqlora.callbacks.answers import Answers
from medqlora.callbacks.attached import qlora_module, saver_of
from medqlora.callbacks.sessions import best_scores, log_session
from medqlora.compat.lightning import callbacks_of
from medqlora.errors import InputError
from medqlora.models.adapters import read_adapter
from medqlora.utils.console import say
from medqlora.utils.files import now
from medqlora.utils.interrupts import Interrupted


class RunRecorder(Callback):
    """Writes the record when a fit or a `predict` starts and when it ends.

    A run that ended by wrong input has no record: it never ran.
    """

    def __init__(self) -> None:
        self.record: RunRecord | None = None
        self._folder: RunFolder | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("fit", trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        answers = next((one for one in callbacks_of(trainer) if isinstance(one, Answers)), None)
        self._begin("predict", trainer, pl_module, None if answers is None else str(answers.output))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.record is not None:
            self.record.state, self.record.finished = "finished", now()
            self._end(trainer)

    def _begin(
        self, command: str, trainer: Trainer, pl_module: LightningModule, answers: str | None = None
    ) -> None:
        # all processes are here: the first one broadcasts the name
        folder = trainer.log_dir
        self._folder = None if folder is None else RunFolder(Path(folder))
        backend = qlora_module(pl_module).backend
        self.record = RunRecord(command, "running", backend.base, backend.identity(), answers=answers)
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        saver_of(trainer).settle(trainer)  # before the users' callbacks, which may read the checkpoints

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.record is None:
            return
        saver = saver_of(trainer)
        # a resumed run without a step left comes here without `on_train_end`, and a finished run has its adapter
        saver.finish(trainer, pl_module)
        saver.check_result(trainer)
        if saver.best_model_score is not None:
            self.record.best = {str(saver.monitor): float(saver.best_model_score)}
        self.record.state, self.record.finished = "finished", now()
        self._end(trainer)
        if trainer.is_global_zero and saver.adapter_folder is not None:
            _log_session(trainer, saver.adapter_folder)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.record is None or isinstance(exception, InputError):
            return
        stopped = isinstance(exception, (Interrupted, KeyboardInterrupt))
        self.record.state, self.record.finished = "interrupted" if stopped else "failed", now()
        self.record.error = None if stopped else f"{type(exception).__name__}: {exception}".splitlines()[0]
        self._end(trainer)

    def _end(self, trainer: Trainer) -> None:
        """Writes how the run ended; a full disk hides no other error, and the adapter stays."""
        try:
            self._write(trainer)
        except OSError as error:
            assert self._folder is not None
            say(
                f"No room for {self._folder.record_file.name} in {self._folder.path} ({error.strerror}): it says "
                f"'running' of a run that is {self.record.state if self.record else 'over'}: make room on that disk"
            )

    def _write(self, trainer: Trainer) -> None:
        if self.record is not None and trainer.is_global_zero and self._folder is not None:
            self.record.write(self._folder.path)


def _log_session(trainer: Trainer, adapter: Path) -> None:
    """The run's row in TensorBoard's HPARAMS; none where the adapter was taken away meanwhile."""
    with contextlib.suppress(InputError):
        record = read_adapter(str(adapter))
        log_session(trainer.loggers, "fit", str(adapter), record, best_scores(record), trainer.global_step)
