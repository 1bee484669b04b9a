"""From the predictions of `predict` to a file that grows as they come, and that can be gone on with."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.artifacts.evaluated_weights import EvaluatedWeights
from medqlora.config.callbacks import AnswersOptions
from medqlora.errors import InputError
from medqlora.inference import (
    Answer,
    Calibration,
    answer_of,
    safe_answer,
)
from medqlora.records import Prediction, Record
from medqlora.safety import (
    SafeReply,
    check_note,
    screen,
)
from medqlora.trainer.stage_start import Stage
from medqlora.utils.cache import hold
from medqlora.utils.console import say


class Answers(Callback):
    """Writes a line a question, in the questions' order, each with the note that it is no medical advice.

    A group of questions is on the disk as soon as it is answered. Run again with the same `path`, it goes on
    after the last whole line.

    Args:
        options: those of `medqlora.config.AnswersOptions`.
    """

    def __init__(self, **options: Any) -> None:
        settings = AnswersOptions(**options)
        self.path = settings.path
        self.note = settings.note
        self._file: TextIO | None = None
        self._release: Callable[[], None] = lambda: None
        self._place = Path()
        self._by = ""
        self._calibration: Calibration | None = None
        self._waiting: list[Record] = []
        self._refused: dict[str, SafeReply] = {}
        self._written = 0
        self._kinds: dict[str, int] = {}

    def check_start(self, trainer: Trainer, module: Any, data: Any, stage: Stage) -> None:
        """Finds out what is left to be asked, and leaves that alone in the data's `test`.

        Args:
            trainer: knows the run's folder.
            module: the QLoRAModule, which knows the weights that answer.
            data: the datamodule, its questions read.
            stage: nothing is done but for "predict".

        Raises:
            InputError: the note is none, or the file holds answers to other questions or by another model.
        """
        if stage != "predict":
            return
        weights: EvaluatedWeights = module.evaluated
        check_note(self.note, "--answers.note")
        self._calibration = weights.calibration
        self._by = _answerer(module, data, weights)
        self._written, self._kinds, self._refused = 0, {}, {}
        self._place = Path(self.path).expanduser() if self.path else _default(trainer)
        try:
            self._release = hold(self._place)
        except BlockingIOError as error:
            raise InputError(
                f"--answers.path: another process is writing {self._place}: wait for it, or name another"
            ) from error
        try:
            self._begin(data)
        except BaseException:
            self._close()
            raise

    def _begin(self, data: Any) -> None:
        asked = [data.records[example.id] for example in data.test]
        done = self._resume(asked)
        self._waiting = asked[done:]
        for question in self._waiting:
            reply = screen(question.question)
            if reply is not None:
                self._refused[question.id] = reply
        left = {question.id for question in self._waiting} - self._refused.keys()
        data.test = [example for example in data.test if example.id in left]
        if done:
            say(f"{self._place} holds {done} answers already: {len(self._waiting)} questions are left")
        if not data.test:  # Lightning calls nothing when there is nothing to predict
            self._finish()

    def _resume(self, asked: Sequence[Record]) -> int:
        """How many answers the file holds; a line that was cut off is taken away."""
        if (
            self._place.exists() and not self._place.is_file()
        ):  # a device may never end, and a pipe never begin
            raise InputError(f"--answers.path: {self._place} is no file: name one")
        try:
            text = self._text()
        except OSError as error:
            raise InputError(
                f"--answers.path: {self._place} can't be written ({error.strerror}): name another"
            ) from error
        whole, end, rest = text.rpartition("\n")
        lines = whole.split("\n") if end else []
        for number, line in enumerate(lines, 1):
            try:
                answer = json.loads(line)
                ident, by = answer["id"], answer["by"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{self._place}:{number}: no answer of `medqlora predict`: name another --answers.path"
                ) from error
            expected = asked[number - 1].id if number <= len(asked) else None
            if ident != expected or by != self._by:
                what = "by another adapter, base or prompt" if ident == expected else "to another question"
                raise InputError(
                    f"{self._place}:{number}: an answer {what}: name another --answers.path, or remove the file"
                )
        if rest and not lines and not (asked and _may_be_of(rest, asked[0])):
            raise InputError(f"{self._place}:1: no answer of `medqlora predict`: name another --answers.path")
        kept = f"{whole}{end}"
        if rest:
            with self._place.open("r+b") as stream:
                stream.truncate(len(kept.encode("utf-8", "surrogateescape")))
        return len(lines)

    def _text(self) -> str:
        """What the file holds; "" where there is none. Raises OSError, too where it could not be written later."""
        held = self._place.exists()
        self._place.parent.mkdir(parents=True, exist_ok=True)
        with self._place.open("a+", encoding="utf-8", errors="surrogateescape") as stream:
            stream.seek(0)
            text = stream.read()
        if not held:
            self._place.unlink()
        return text

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any
    ) -> None:
        module: Any = pl_module
        for prediction in module.answered:
            self._write_up_to(prediction)
        self._flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _write_up_to(self, prediction: Prediction) -> None:
        """Writes the answer, and before it those to questions that the model was not asked."""
        self._write_refused()
        question = self._waiting.pop(0)
        if question.id != prediction.id:  # no assert: python -O would leave it out
            raise RuntimeError(f"question {question.id} was given the answer to {prediction.id}")
        self._write(answer_of(prediction, question, self._calibration, self.note))

    def _write_refused(self) -> None:
        while self._waiting and self._waiting[0].id in self._refused:
            question = self._waiting.pop(0)
            self._write(safe_answer(question, self._refused[question.id], self.note))

    def _write(self, answer: Answer) -> None:
        if self._file is None:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._place.open("a", encoding="utf-8", newline="\n")
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
        self._write_refused()
        self._flush()
        self._close()
        counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in self._kinds.items())
        say(f"{self._written} answers{f' ({counts})' if counts else ''}: {self._place}\n{self.note}")


def _may_be_of(cut: str, question: Record) -> bool:
    """Whether a line that was cut off is the beginning of an answer to the question; what is not, is not ours."""
    begins = (
        json.dumps({"id": question.id, "question": question.question}, ensure_ascii=False)[:-1] + ', "kind": '
    )
    size = min(len(cut.encode("utf-8", "surrogateescape")), len(begins.encode("utf-8")))
    return cut.encode("utf-8", "surrogateescape")[:size] == begins.encode("utf-8")[:size]


def _default(trainer: Trainer) -> Path:
    """`predictions.jsonl` in the run's folder, or the next free name: a test writes a file of that name too."""
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    place, number = folder / "predictions.jsonl", 0
    while place.exists():
        number += 1
        place = folder / f"predictions-{number}.jsonl"
    return place


def _answerer(module: Any, data: Any, weights: EvaluatedWeights) -> str:
    """What decides an answer, in 16 hex digits: the base, the weights, and how it is asked."""
    parts = [
        module.backend.identity(),
        weights.sha256(module.model),
        data.prompt.sha256(module.backend.tokenizer()),
        data.max_prompt_tokens,
        module.max_new_tokens if module.generate else 0,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
