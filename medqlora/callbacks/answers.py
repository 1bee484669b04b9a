"""The answers file of `predict`: it grows with the answers, and a second run continues it."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.artifacts.evaluated_weights import EvaluatedWeights
from medqlora.callbacks.answer_tables import answered_rows, growing_file, is_table, write_table
from medqlora.callbacks.answers_file import answered_lines, check_writable
from medqlora.callbacks.attached import qlora_module, run_folder
from medqlora.config.callbacks import AnswersOptions
from medqlora.datamodule import PubMedQADataModule
from medqlora.errors import InputError
from medqlora.inference import Answer, Calibration, TrainingScope, answer_of, safe_answer
from medqlora.module import QLoRAModule
from medqlora.records import Prediction, Record
from medqlora.safety import SafeReply, check_note, screen
from medqlora.trainer.stage_start import Stage
from medqlora.utils.console import say
from medqlora.utils.locks import hold


class Answers(Callback):
    """Writes a line a question, in the questions' order, each with the note that it is no medical advice.

    A group of questions is on the disk as soon as it is answered. A second run with the same `path` continues after
    the last complete line. A table (`.csv`, `.parquet`) is written from these lines at the end.

    Args:
        values, options: those of `medqlora.config.AnswersOptions`.
    """

    def __init__(self, *values: object, **options: object) -> None:
        settings = AnswersOptions(*values, **options)  # type: ignore[arg-type]  # checked where the options are read
        self.path = settings.path
        self.note = settings.note
        self._file: TextIO | None = None
        self._release: Callable[[], None] = lambda: None
        #: the file that the user asked for
        self.output = Path()
        #: the file in which the lines grow: the same, or beside a table
        self._lines = Path()
        #: identifies the model that answers, in each line
        self._by = ""
        self._calibration: Calibration | None = None
        self._scope: TrainingScope | None = None
        #: the questions without an answer so far, in their order
        self._waiting: list[Record] = []
        #: the fixed replies, by the question's id
        self._replies: dict[str, SafeReply] = {}
        self._written = 0
        self._kinds: dict[str, int] = {}

    def check_start(
        self, trainer: Trainer, module: QLoRAModule, data: PubMedQADataModule, stage: Stage
    ) -> None:
        """Finds the questions without an answer, and keeps those alone in the data's `test`.

        Args:
            trainer: with the run's folder.
            module: with the weights that answer.
            data: the questions, read.
            stage: nothing is done but for "predict".

        Raises:
            InputError: the note is empty, or the file holds answers to other questions or by another model.
        """
        if stage != "predict":
            return
        weights = module.evaluated
        assert weights is not None
        check_note(self.note, "--answers.note")
        self._calibration, self._scope = weights.calibration, weights.scope
        self._by = _answerer(module, data, weights)
        self._written, self._kinds, self._replies = 0, {}, {}
        self.output = Path(self.path).expanduser() if self.path else run_folder(trainer).free_predictions()
        self._lines = growing_file(self.output)
        try:
            self._release = hold(self.output)
        except BlockingIOError as error:
            raise InputError(
                f"--answers.path: another process is writing {self.output}: wait for it, or name another"
            ) from error
        try:
            self._begin(data)
        except BaseException:
            self._close()
            raise

    def _begin(self, data: PubMedQADataModule) -> None:
        questions = [data.records[example.id] for example in data.test]
        check_writable(self.output)
        done = answered_lines(self._lines, questions, self._by)
        if is_table(self.output):
            done = done or answered_rows(self.output, questions, self._by)
        self._waiting = questions[done:]
        for question in self._waiting:
            reply = screen(question.question)
            if reply is not None:
                self._replies[question.id] = reply
        left = {question.id for question in self._waiting} - self._replies.keys()
        data.test = [example for example in data.test if example.id in left]
        if done:
            held = self._lines if self._lines.exists() else self.output
            say(f"{held} holds {done} answers already: {len(self._waiting)} questions are left")
        if not data.test:  # Lightning calls no hook where there is nothing to predict
            self._finish()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, *args: object
    ) -> None:
        for prediction in qlora_module(pl_module).answered:
            self._write_up_to(prediction)
        self._flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _write_up_to(self, prediction: Prediction) -> None:
        """Writes the answer, and before it the fixed replies to earlier questions."""
        self._write_replies()
        question = self._waiting.pop(0)
        if question.id != prediction.id:  # no assert: python -O would leave it out
            raise RuntimeError(f"question {question.id} was given the answer to {prediction.id}")
        self._write(answer_of(prediction, question, self._calibration, self.note, self._scope))

    def _write_replies(self) -> None:
        while self._waiting and self._waiting[0].id in self._replies:
            question = self._waiting.pop(0)
            self._write(safe_answer(question, self._replies[question.id], self.note))

    def _write(self, answer: Answer) -> None:
        if self._file is None:
            self._lines.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._lines.open("a", encoding="utf-8", newline="\n")
        line = {**answer.to_json(), "by": self._by}
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._written += 1
        self._kinds[answer.kind] = self._kinds.get(answer.kind, 0) + 1

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._release()

    def _finish(self) -> None:
        self._write_replies()
        self._flush()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lines != self.output and self._lines.exists():
            write_table(self._lines, self.output)
        self._close()
        counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in self._kinds.items())
        noun = "answer" if self._written == 1 else "answers"
        say(f"{self._written} {noun}{f' ({counts})' if counts else ''}: {self.output}\n{self.note}")


def _answerer(module: QLoRAModule, data: PubMedQADataModule, weights: EvaluatedWeights) -> str:
    """Identifies what decides an answer, in 16 hexadecimal digits: base model, weights, prompt and limits."""
    assert data.prompt is not None
    parts = [
        module.backend.identity(),
        weights.sha256(module.model),
        data.prompt.sha256(module.backend.tokenizer()),
        data.max_prompt_tokens,
        module.max_new_tokens if module.generate else 0,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
