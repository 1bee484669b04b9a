"""The progress of a run: one line for the whole fit, or for all questions of an evaluation.

It reads no number from the device: tensors that are logged with `prog_bar=True` would cost a device sync at each
refresh.
"""

import math
import time
from collections.abc import Sequence
from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from medqlora.callbacks.attached import qlora_module
from medqlora.compat.lightning import validations_left
from medqlora.config.callbacks import ProgressOptions
from medqlora.data.batching.loader import EvalBatch, EvalLoader
from medqlora.utils.console import say
from medqlora.utils.progress import Bar, Watcher, duration, start
from medqlora.utils.run_length import total_steps
from medqlora.utils.screen import SCREEN

#: an estimate is said of an evaluation that takes longer, in seconds
_LONG_S = 60.0
_TITLES = {"validate": "Validation", "test": "Test", "predict": "Answers"}


class StepProgress(ProgressBar, Watcher):
    """The line of the whole run: steps, time left, loss, learning rate, tokens/s, validation accuracy.

    It moves with each micro-batch of a step and each question of an evaluation. Without a terminal it is a plain line
    now and then.

    Args:
        values, options: those of `medqlora.config.ProgressOptions`.
    """

    def __init__(self, *values: object, **options: object) -> None:
        settings = ProgressOptions(*values, **options)  # type: ignore[arg-type]  # checked where the options are read
        super().__init__()
        self.refresh_rate = settings.refresh_rate
        self.leave = settings.leave
        self._enabled = True
        self._fit: Bar | None = None
        self._questions: AskedQuestions | None = None
        self._own: Bar | None = None
        #: seconds of the steps so far and of the validations so far, without what comes between
        self._step_s = self._validation_s = 0.0
        self._steps = self._validations = 0
        self._began_s = 0.0

    @property
    def is_disabled(self) -> bool:
        """Whether nothing is shown."""
        return not self._enabled or self.refresh_rate <= 0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not self.is_disabled:
            qlora_module(pl_module).watcher = self

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        return {name: f"{value:.4g}" for name, value in qlora_module(pl_module).shown.items()}

    # ---- the fit ---------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_disabled:
            return
        total = total_steps(trainer, qlora_module(pl_module).data.epoch_steps)
        self._step_s = self._validation_s = 0.0
        self._steps = self._validations = 0
        self._fit = start("Training", total, "steps")
        self._fit.begin_at(trainer.global_step)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._began_s = time.monotonic()

    def step(self, tokens: int, of_tokens: int) -> None:
        if self._fit is not None and of_tokens:
            self._fit.update(self._trainer_step + tokens / of_tokens)

    @property
    def _trainer_step(self) -> int:
        return int(self.trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._step_s += time.monotonic() - self._began_s
        self._steps += 1
        bar = self._fit
        if bar is None or (trainer.global_step % self.refresh_rate and trainer.global_step != bar.total):
            return
        bar.expect(self._left_s(trainer, bar))
        bar.update(trainer.global_step, self._fit_note(trainer, pl_module))

    def _left_s(self, trainer: Trainer, bar: Bar) -> float | None:
        """Seconds until the end: the steps and the validations that are left, each at its mean so far."""
        steps_left = max(0, (bar.total or 0) - trainer.global_step)
        left = self._step_s / self._steps * steps_left
        if self._validations:
            left += self._validation_s / self._validations * validations_left(trainer, steps_left)
        return left

    def _fit_note(self, trainer: Trainer, pl_module: LightningModule) -> str:
        epochs = trainer.max_epochs
        epoch = f"epoch {trainer.current_epoch + 1}" + (f"/{epochs}" if epochs and epochs > 0 else "")
        values = [f"{name} {value}" for name, value in self.get_metrics(trainer, pl_module).items()]
        return ", ".join([epoch, *values])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fit is not None and self.leave:
            SCREEN.keep(self._fit.line() if SCREEN.is_terminal else self._fit.plain_line())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fit is not None:
            self._fit.close()
            self._fit = None

    # ---- evaluation ------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, "validate", trainer.val_dataloaders)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, "test", trainer.test_dataloaders)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, "predict", trainer.predict_dataloaders)

    def _begin(self, trainer: Trainer, kind: Literal["validate", "test", "predict"], loaders: object) -> None:
        self._began_s = time.monotonic()
        if self.is_disabled or trainer.sanity_checking:
            return
        listed = loaders if isinstance(loaders, list) else [loaders]
        batches = [batch for loader in listed if isinstance(loader, EvalLoader) for batch in loader.batches]
        # of a fit's validations the first alone: the line has the time of the others
        self._questions = AskedQuestions(kind, batches, says=self._fit is None or self._validations == 0)
        if self._fit is None:
            self._own = start(_TITLES[kind], self._questions.count, "questions")

    def questions(self, count: float) -> None:
        """Called within a group: so many of its questions are finished, parts of a question included."""
        asked = self._questions
        if asked is None:
            return
        asked.within(count)
        if self._own is not None:
            self._own.update(asked.done, share=asked.share)
        elif self._fit is not None:
            note = f"validating {math.floor(asked.done):,}/{asked.count:,} questions"
            self._fit.update(self._fit.done, note, share=self._fit.share)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: EvalBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._group_ended(batch)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def _group_ended(self, batch: EvalBatch) -> None:
        if self._questions is None:
            return
        estimate = self._questions.group_ended(batch)
        if estimate is not None:
            say(estimate)
        self.questions(0.0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._questions is not None and self._fit is not None:
            self._fit.draw()
            self._validation_s += time.monotonic() - self._began_s
            self._validations += 1
            self._fit.expect(self._left_s(trainer, self._fit) if self._steps else None)
            self._fit.update(trainer.global_step, self._fit_note(trainer, pl_module))
        self._end_questions()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All questions are answered; intervals and plots take their time."""
        if self._own is not None:
            self._own.close()
            self._own = start("Scores and report")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.test_loop.verbose:  # Lightning prints a table now; the commands' own report still follows
            self._end_questions()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_questions()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()
        qlora_module(pl_module).watcher = Watcher()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the line, so that the error's message gets one of its own."""
        self._close()

    def _end_questions(self) -> None:
        self._questions = None
        if self._own is not None:
            self._own.close()
            self._own = None

    def _close(self) -> None:
        self._end_questions()
        if self._fit is not None:
            self._fit.close()
            self._fit = None


class AskedQuestions:
    """The questions of one evaluation in this process, and what their first group says of the time for all.

    Args:
        kind: of the evaluation.
        batches: its groups, in their order.
        says: whether an estimate of a long evaluation is to be said.
    """

    def __init__(self, kind: str, batches: Sequence[EvalBatch], *, says: bool) -> None:
        self._title = _TITLES[kind]
        self._says = says
        self._began = time.monotonic()
        self.count = sum(len(batch.examples) for batch in batches)
        self._tokens = sum(map(_tokens, batches))
        self._ended = self._ended_tokens = 0
        self._current = iter(batches)
        self._group = next(self._current, None)
        self.done = 0.0

    @property
    def share(self) -> float:
        """The finished share of the work, by tokens: the longest questions come first."""
        if not self._tokens:
            return 1.0
        size = len(self._group.examples) if self._group is not None else 0
        inside = (self.done - self._ended) / size * _tokens(self._group) if self._group and size else 0
        return (self._ended_tokens + inside) / self._tokens

    def within(self, count: float) -> None:
        """So many questions of the present group are finished."""
        self.done = self._ended + count

    def group_ended(self, batch: EvalBatch) -> str | None:
        """Counts a whole group; the estimate after the first one, where the rest takes long."""
        first = self._ended == 0
        self._ended += len(batch.examples)
        self._ended_tokens += _tokens(batch)
        self._group = next(self._current, None)
        self.done = self._ended
        passed = time.monotonic() - self._began
        whole = passed / max(self.share, 1e-9)
        if not first or not self._says or self.done >= self.count or whole < _LONG_S:
            return None
        return (
            f"{self._title}: about {duration(whole)} for {self.count:,} questions (the first {self._ended} took "
            f"{duration(passed)})"
        )


def _tokens(batch: EvalBatch | None) -> int:
    return 0 if batch is None else sum(len(example.prompt) for example in batch.examples)
