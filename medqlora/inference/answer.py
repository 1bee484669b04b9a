"""An answer: the decision, its confidence, and the note; or that the model is not sure enough."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from medqlora.evaluation.parsing.decisions import parse_decision
from medqlora.inference.calibration import Calibration
from medqlora.inference.rationale import rationale_in
from medqlora.inference.training_scope import TrainingScope
from medqlora.records import YES_NO_MAYBE, Prediction, Record, softmax
from medqlora.safety.note import NOTE, check_note
from medqlora.safety.screen import SafeReply
from medqlora.utils.terminal import printable
from medqlora.utils.types import Json

Kind = Literal["answer", "uncertain", "safe_reply"]
#: the `decision` of an uncertain answer
UNCERTAIN = "uncertain"
#: least columns of a readable text
NARROWEST = 20


@dataclass(frozen=True)
class Answer:
    """The answer to one question, as a person is shown it.

    Attributes:
        id, question: the record's.
        kind: `answer`; `uncertain`, where the model is not sure enough; `safe_reply`, where the question did not reach
            the model.
        decision: a label; "uncertain"; None for a free answer and a safe reply.
        leaning: the likeliest label of an uncertain answer.
        option_text: for multiple choice, the text of the option of `decision` or `leaning`.
        confidence: probability of the likeliest label, 0 to 1; None where labels were not scored.
        probabilities: label → probability; empty where labels were not scored.
        calibrated: whether `confidence` is the share of right answers among validation questions of that confidence.
        calibrated_on: number of validation questions that the temperature was fitted on; None where it was not.
        caution: why the confidence is not calibrated, as a clause.
        warning: what a reader has to know of the adapter, as a sentence: that it was trained on invented data.
        rationale: the generated text after its decision, unchanged; of a free answer, the whole text.
        reason: why the answer is uncertain, as a sentence.
        reply: the fixed reply in place of an answer.
        note: text that every answer ends with.
    """

    id: str
    question: str
    kind: Kind
    decision: str | None = None
    leaning: str | None = None
    option_text: str | None = None
    confidence: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    calibrated: bool = False
    calibrated_on: int | None = None
    caution: str | None = None
    warning: str | None = None
    rationale: str = ""
    reason: str | None = None
    reply: SafeReply | None = None
    note: str = NOTE

    def __post_init__(self) -> None:
        """Raises InputError for an empty note, see `check_note`."""
        object.__setattr__(self, "note", check_note(self.note, "note"))

    @property
    def text(self) -> str:
        """The answer as paragraphs, the note last; without control characters."""
        return "\n\n".join([*self._paragraphs(), self.note])

    def to_json(self) -> dict[str, Json]:
        """Plain values without NaN, with texts that can be written as UTF-8."""
        plain: dict[str, Json] = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["probabilities"] = dict(self.probabilities) or None
        plain["reply"] = None if self.reply is None else {"kind": self.reply.kind, "text": self.reply.text}
        plain["text"] = self.text
        return {key: _writable(value) for key, value in plain.items()}

    def shown(self, width: int = 80, *, complete: bool = True) -> str:
        """`text` wrapped to `width` columns, without a final newline.

        Args:
            width: columns.
            complete: False leaves out the note, of an answer whose text may go on.
        """
        width = max(width, NARROWEST)
        parts = []
        for part in (*self._paragraphs(complete), *([self.note] if complete else ())):
            lines = [textwrap.wrap(line, width, break_on_hyphens=False) or [""] for line in part.split("\n")]
            parts.append("\n".join(line for wrapped in lines for line in wrapped))
        return "\n\n".join(parts)

    def _paragraphs(self, complete: bool = True) -> list[str]:
        """The paragraphs before the note."""
        if self.reply is not None:
            return [self.reply.text]
        parts = []
        if self.decision is not None:
            parts.append(self._headline())
        if self.warning is not None:
            parts.append(self.warning)
        if self.rationale:
            # the text of an uncertain answer must not look like the answer
            lead = "Generated text: " if self.kind == UNCERTAIN else ""
            parts.append(lead + _harmless(self.rationale))
        elif self.decision is None and complete:
            parts.append("The generated text is empty.")
        return parts

    def _headline(self) -> str:
        """Decision or leaning, confidence, and the reason."""
        label = self.leaning if self.kind == UNCERTAIN else self.decision
        named = _harmless(label or "") + (f": {_harmless(self.option_text)}" if self.option_text else "")
        if self.kind != UNCERTAIN:
            return f"Answer: {named}\n{self._confidence_line()}"
        reason = f"Uncertain. {_harmless(self.reason or '')}"
        return f"{reason}\nThe model leans to {named}\n{self._confidence_line()}" if label else reason

    def _confidence_line(self) -> str:
        if self.confidence is None:
            return f"Confidence unknown: {self.caution}"
        if self.calibrated:
            return f"Confidence {_percent(self.confidence)}, calibrated on {self.calibrated_on} questions"
        return f"Confidence {_percent(self.confidence)}, not calibrated: {self.caution}"


def answer_of(
    prediction: Prediction,
    record: Record,
    calibration: Calibration | None = None,
    note: str = NOTE,
    scope: TrainingScope | None = None,
) -> Answer:
    """The answer to one question: the decision, where the model is sure enough of it.

    An answer is uncertain where the calibrated confidence is below the threshold, where the generated text states
    another decision than the likeliest label, where there is no decision, or where the question is far from those of
    the training. Without a calibration on the same labels the confidence is the model's own, and is marked so.

    Args:
        prediction: as it is compared (see `evaluation.decided`), like those of the calibration.
        record: its question.
        calibration: saved with the adapter; None without one.
        note: text that the answer ends with.
        scope: what the adapter was trained on; None where that is not known.

    Raises:
        ValueError, InputError: the prediction is of another question; the note is empty, see `check_note`.
    """
    if prediction.id != record.id:
        raise ValueError(f"the prediction is of question {prediction.id}, the record is {record.id}")
    rationale = rationale_in(prediction.text or "", prediction.labels, record.options)
    scope = scope or TrainingScope()
    answer = Answer(
        record.id, record.question, "answer", warning=scope.warning, rationale=rationale, note=note
    )
    far = scope.doubts(record)
    if not prediction.labels:
        return _doubted(answer, far)
    if not all(math.isfinite(value) for value in prediction.logprobs):
        return _doubted(answer, ["the model's scores of the possible answers are not finite numbers"])
    caution = _caution(prediction, calibration, far=bool(far))
    if calibration is not None and not calibration.covers(prediction):
        calibration = None
    probabilities = softmax(prediction.logprobs, calibration.temperature if calibration else 1.0)
    confidence = max(probabilities, default=None)
    decision = prediction.decision if prediction.logprobs else prediction.parsed
    answer = replace(
        answer,
        decision=decision,
        option_text=record.options.get(decision or "") or None,
        confidence=confidence,
        probabilities=dict(zip(prediction.labels, probabilities, strict=False)),
        calibrated=caution is None,
        calibrated_on=calibration.n if calibration and caution is None else None,
        caution=caution,
    )
    doubts = ["no decision could be read from the generated text"]
    if decision is not None:
        doubts = _doubts(prediction, record, decision, confidence, calibration)
    return _doubted(answer, [*far, *doubts])


def safe_answer(record: Record, reply: SafeReply, note: str = NOTE) -> Answer:
    """The fixed reply to a question that does not reach the model, see `screen`.

    Raises:
        InputError: the note is empty, see `check_note`.
    """
    return Answer(id=record.id, question=record.question, kind="safe_reply", reply=reply, note=note)


def _doubted(answer: Answer, doubts: Sequence[str]) -> Answer:
    """The answer as an uncertain one, for the reasons `doubts`; unchanged without any."""
    if not doubts:
        return answer
    leaning = answer.decision
    return replace(answer, kind="uncertain", decision=UNCERTAIN, leaning=leaning, reason=_sentence(doubts))


def _caution(prediction: Prediction, calibration: Calibration | None, *, far: bool) -> str | None:
    """Why the confidence is not calibrated, as a clause; None where it is."""
    if not prediction.logprobs:
        return "the possible answers were not scored"
    if far:
        return "the question is unlike those of the training"
    if calibration is None:
        return "no calibration was saved with the adapter"
    if not calibration.covers(prediction):
        return "the calibration was made for other answers than these"
    return calibration.caution


def _doubts(
    prediction: Prediction,
    record: Record,
    decision: str,
    confidence: float | None,
    calibration: Calibration | None,
) -> list[str]:
    """Why the scores or the text make the answer uncertain, a clause each; empty where they don't."""
    doubts = []
    if calibration is not None and confidence is not None and confidence < calibration.threshold:
        allowed = f"{calibration.target_risk:.0%} wrong"
        if calibration.threshold > 1:
            doubts.append(f"on the validation questions no confidence was enough for at most {allowed}")
        else:
            shown, least = _percent(confidence), _percent(calibration.threshold)
            below = "just below" if shown == least else f"below {least},"
            doubts.append(
                f"its confidence of {shown} is {below} the least for at most {allowed} on the validation questions"
            )
    said = prediction.parsed or _other_decision(prediction)
    option = record.options.get(decision, "")
    if said is not None and said not in (decision, option.casefold()):
        scored = repr(decision) if not option else f"{decision!r} ({option})"
        doubts.append(f"the generated text says {said!r}, the scores say {scored}")
    return doubts


def _other_decision(prediction: Prediction) -> str | None:
    """Yes, no or maybe, where the text states that and the possible answers are others; else None.

    An adapter that learned yes and no goes on saying them when it is given options.
    """
    if not prediction.text or set(YES_NO_MAYBE) <= set(prediction.labels):
        return None
    return parse_decision(prediction.text, YES_NO_MAYBE)


def _sentence(clauses: Sequence[str]) -> str:
    joined = ", and ".join(clauses)
    return f"{joined[0].upper()}{joined[1:]}."


def _percent(value: float) -> str:
    """0.834 → "83%"; never "100%"."""
    return "more than 99%" if value > 0.99 else f"{100 * value:.0f}%"


def _harmless(text: str) -> str:
    """The text without control characters, which could steer a terminal; line breaks stay."""
    return printable("\n".join(line.expandtabs(4) for line in text.splitlines()))


def _writable(value: Json) -> Json:
    """The value without lone surrogates, which UTF-8 can't encode."""
    if isinstance(value, dict):
        return {_encodable(key): _writable(item) for key, item in value.items()}
    return _encodable(value) if isinstance(value, str) else value


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
