"""An answer while it is generated: its decision as soon as it is known, then the text piece by piece."""

import queue
import re
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import NamedTuple

from medqlora.inference.answer import Answer
from medqlora.inference.rationale import in_reasoning, split_decision
from medqlora.records import Prediction, Record

#: is called with each part, and with None for a token that adds none
Report = Callable[["AnswerPart | None"], None]
#: words of a text that begins with no decision, after which the scores alone decide what is shown first
_HELD_WORDS = 12
#: letters of a word that is passed on before its end, since some languages put no space between words
LONG_WORD = 40
_LAST_WORD = re.compile(r"\S*\Z")


class AnswerPart(NamedTuple):
    """One part of an answer that is being generated.

    Attributes:
        answer: the answer so far. In the first part its decision is known and `rationale` is empty. The last part has
            the complete answer, which may have become uncertain: the text may contradict the scores at its end.
        text: what this part adds to `answer.rationale`.
        complete: whether this is the last part.
    """

    answer: Answer
    text: str
    complete: bool


class PartsOfAnswer:
    """Makes the parts of an answer from the predictions of `Evaluator.stream`.

    A decision is shown once the labels are scored and the text has stated its own, or has begun without one. Words are
    passed on whole, since the rest of a word may change what the text says.

    Args:
        record: the question.
        answer: makes the answer of a prediction.
        report: is called with each part, and with None for a prediction that adds none.
    """

    def __init__(self, record: Record, answer: Callable[[Prediction], Answer], report: Report) -> None:
        self._record = record
        self._answer = answer
        self._report = report
        self._shown: Answer | None = None

    def so_far(self, prediction: Prediction) -> None:
        """Reports what has become known with a prediction whose text may go on."""
        self._report(None)  # also where nothing is new: the consumer may have left
        text = _whole_words(prediction.text or "")
        if in_reasoning(text):
            return
        decision, rationale = split_decision(text, prediction.labels, self._record.options)
        if self._shown is None:
            if prediction.labels and not _is_begun(text, decision, rationale):
                return
            self._show(replace(self._answer(replace(prediction, text=text, parsed=decision)), rationale=""))
        self._extend(rationale)

    def complete(self, answer: Answer) -> None:
        """Reports the last part."""
        if self._shown is None:
            self._show(replace(answer, rationale=""))
        assert self._shown is not None
        text = answer.rationale.removeprefix(self._shown.rationale)
        self._report(AnswerPart(answer, text, complete=True))

    def _show(self, answer: Answer) -> None:
        self._shown = answer
        self._report(AnswerPart(answer, "", complete=False))

    def _extend(self, rationale: str) -> None:
        """Reports what is new in the rationale, where it continues the one that was reported."""
        assert self._shown is not None
        before = self._shown.rationale
        if len(rationale) > len(before) and rationale.startswith(before):
            self._shown = replace(self._shown, rationale=rationale)
            self._report(AnswerPart(self._shown, rationale[len(before) :], complete=False))


def _whole_words(text: str) -> str:
    """The text without its last word, which may go on."""
    match = _LAST_WORD.search(text)
    assert match is not None
    return text if len(match[0]) > LONG_WORD else text[: match.start()]


def _is_begun(text: str, decision: str | None, rationale: str) -> bool:
    """Whether a text has stated its decision, with a word after it, or has begun without one."""
    return bool(rationale) if decision is not None else len(text.split()) >= _HELD_WORDS


class _StoppedError(Exception):
    """The consumer wants no further part."""


def iterate(run: Callable[[Report], None]) -> Generator[AnswerPart, None, None]:
    """The parts that `run` reports, while it runs in a thread of its own.

    Autocast and gradient modes belong to a thread, so the thread that computes is one, whoever takes the parts. Closing
    the iterator ends the generation after its current token. An error of `run` is raised here.
    """
    parts: queue.SimpleQueue[AnswerPart | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def report(part: AnswerPart | None) -> None:
        if stopped.is_set():
            raise _StoppedError
        if part is not None:
            parts.put(part)

    def work() -> None:
        try:
            run(report)
        except BaseException as error:
            parts.put(error)
        else:
            parts.put(None)

    thread = threading.Thread(target=work, name="answer", daemon=True)
    thread.start()
    try:
        while (part := parts.get()) is not None:
            if isinstance(part, BaseException):
                raise part
            yield part
    finally:
        stopped.set()
        thread.join()
