"""An answer: what the model decided, how sure it is, and the note; or that it is not sure enough."""

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from medqlora.inference.calibration import Calibration, calibrated_probabilities
from medqlora.inference.rationale import rationale_in
from medqlora.records import Prediction, Record
from medqlora.safety.note import NOTE, check_note
from medqlora.safety.screen import SafeReply
from medqlora.utils.terminal import printable

Kind = Literal["answer", "uncertain", "safe_reply"]
#: the `decision` of an answer that isn't given
UNCERTAIN = "uncertain"
#: narrower than this nothing can be read
NARROWEST = 20


@dataclass(frozen=True)
class Answer:
    """What a person is shown of one question.

    Attributes:
        id, question: the record's.
        kind: `answer`; `uncertain`, where the model isn't sure enough; `safe_reply`, where it was not asked.
        decision: a label; "uncertain"; None for a free answer and a safe reply.
        leaning: the likeliest label of an uncertain answer.
        option_text: for multiple choice, the text of the option that is decided or leaned to.
        confidence: the probability of the likeliest label, 0 to 1; None where labels were not scored.
        probabilities: label → probability; empty where labels were not scored.
        calibrated: whether `confidence` and `probabilities` are to be taken at their word: the share of
            right answers among dev questions of such a confidence.
        calibrated_on: how many dev questions the temperature was fitted on; None where it was not.
        caution: why the confidence is not calibrated, as a clause.
        rationale: what the model wrote after its decision, as it wrote it; of a free answer, all of it.
        reason: why it is uncertain, in a sentence.
        reply: what is said instead of an answer.
        note: what every answer ends with.
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
    rationale: str = ""
    reason: str | None = None
    reply: SafeReply | None = None
    note: str = NOTE

    def __post_init__(self) -> None:
        """Without a note there is no answer.

        Raises:
            InputError: as `check_note`.
        """
        object.__setattr__(self, "note", check_note(self.note, "note"))

    @property
    def text(self) -> str:
        """The whole answer for a reader, a paragraph a line, the note last; without control characters."""
        return "\n\n".join([*self._paragraphs(), self.note])

    def to_json(self) -> dict[str, Any]:
        """Plain values without NaN, each text such that it can be written as UTF-8."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        plain["probabilities"] = dict(self.probabilities) or None
        plain["reply"] = None if self.reply is None else {"kind": self.reply.kind, "text": self.reply.text}
        plain["text"] = self.text
        return {key: _writable(value) for key, value in plain.items()}

    def shown(self, width: int = 80) -> str:
        """`text` for the terminal, wrapped to `width` columns; plain text without a final newline."""
        width = max(width, NARROWEST)
        parts = []
        for part in (*self._paragraphs(), self.note):
            lines = [textwrap.wrap(line, width, break_on_hyphens=False) or [""] for line in part.split("\n")]
            parts.append("\n".join(line for wrapped in lines for line in wrapped))
        return "\n\n".join(parts)

    def _paragraphs(self) -> list[str]:
        """What stands before the note."""
        if self.reply is not None:
            return [self.reply.text]
        parts = []
        if self.decision is not None:
            parts.append(self._headline())
        if self.rationale:
            # of an uncertain answer it must not look like the answer
            lead = "What it wrote: " if self.kind == UNCERTAIN else ""
            parts.append(lead + _harmless(self.rationale))
        return parts or ["The model wrote nothing."]

    def _headline(self) -> str:
        """Decision or leaning, confidence, and the reason."""
        label = self.leaning if self.kind == UNCERTAIN else self.decision
        named = _harmless(label or "") + (f": {_harmless(self.option_text)}" if self.option_text else "")
        sure = self._sureness()
        if self.kind != UNCERTAIN:
            return f"Answer: {named}\n{sure}"
        leaning = f"\nIt leans to {named}" if label else ""
        return f"Uncertain. {_harmless(self.reason or '')}{leaning}{f'{chr(10)}{sure}' if label else ''}"

    def _sureness(self) -> str:
        if self.confidence is None:
            return f"Confidence unknown: {self.caution}"
        told = f"Confidence {_percent(self.confidence)}, "
        if self.calibrated:
            return f"{told}calibrated on {self.calibrated_on} questions"
        return f"{told}not calibrated: {self.caution}"


def answer_of(
    prediction: Prediction, record: Record, calibration: Calibration | None = None, note: str = NOTE
) -> Answer:
    """What is said of one question: the decision where the model is sure enough of it.

    It is uncertain where the calibrated confidence is below the threshold, where the text that it wrote
    states another decision than its likeliest, and where it has no decision. Without a calibration that was
    learned on the same decisions, the confidence is the model's own, and is marked so.

    Args:
        prediction: as it is compared (see `evaluation.decided`), like those of the calibration.
        record: its question.
        calibration: what was learned from the dev questions; None where none was saved with the adapter.
        note: what the answer ends with.

    Raises:
        ValueError: the prediction is of another question.
        InputError: the note says nothing, see `check_note`.
    """
    if prediction.id != record.id:
        raise ValueError(f"the prediction is of question {prediction.id}, the record is {record.id}")
    common: dict[str, Any] = {
        "id": record.id,
        "question": record.question,
        "rationale": rationale_in(prediction.text or "", prediction.labels, record.options),
        "note": note,
    }
    if not prediction.labels:
        return Answer(kind="answer", **common)
    if not all(math.isfinite(value) for value in prediction.logprobs):
        no_numbers = "The model's scores of the possible answers are no numbers."
        return Answer(kind="uncertain", decision=UNCERTAIN, reason=no_numbers, **common)
    caution: str | None
    if calibration is not None and not calibration.covers(prediction):
        calibration, caution = None, "the calibration was made for other answers than these"
    else:
        caution = "no calibration was saved with the adapter" if calibration is None else calibration.caution
    probabilities = calibrated_probabilities(prediction, calibration.temperature if calibration else 1.0)
    confidence = max(probabilities, default=None)
    decision = prediction.decision if prediction.logprobs else prediction.parsed
    if not prediction.logprobs:
        caution = "the possible answers were not scored"
    common |= {
        "option_text": record.options.get(decision or "") or None,
        "confidence": confidence,
        "probabilities": dict(zip(prediction.labels, probabilities, strict=False)),
        "calibrated": caution is None,
        "calibrated_on": calibration.n if calibration and caution is None else None,
        "caution": caution,
    }
    reason = _doubt(prediction, decision, confidence, calibration)
    if reason is None:
        return Answer(kind="answer", decision=decision, **common)
    return Answer(kind="uncertain", decision=UNCERTAIN, leaning=decision, reason=reason, **common)


def safe_answer(record: Record, reply: SafeReply, note: str = NOTE) -> Answer:
    """The fixed reply to a question that was not put to the model, see `screen`.

    Raises:
        InputError: the note says nothing, see `check_note`.
    """
    return Answer(id=record.id, question=record.question, kind="safe_reply", reply=reply, note=note)


def _doubt(
    prediction: Prediction, decision: str | None, confidence: float | None, calibration: Calibration | None
) -> str | None:
    """Why it is uncertain, in a sentence; None where it is not."""
    if decision is None:
        return "No decision could be read from what the model wrote."
    doubts = []
    if calibration is not None and confidence is not None and confidence < calibration.threshold:
        allowed = f"{calibration.target_risk:.0%} wrong"
        if calibration.threshold > 1:
            doubts.append(f"on the development questions no confidence was enough for at most {allowed}")
        else:
            sure, least = _percent(confidence), _percent(calibration.threshold)
            below = "just below" if sure == least else f"below {least},"
            doubts.append(
                f"its confidence of {sure} is {below} the least for at most {allowed} on the development questions"
            )
    if prediction.parsed is not None and prediction.parsed != decision:
        doubts.append(f"what the model wrote says {prediction.parsed!r}, its scores say {decision!r}")
    if not doubts:
        return None
    sentence = ", and ".join(doubts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _percent(value: float) -> str:
    """0.834 → "83%"; never 100%, which no model is sure of."""
    return "more than 99%" if value > 0.99 else f"{100 * value:.0f}%"


def _harmless(text: str) -> str:
    """Line breaks stay; other control characters could steer a terminal."""
    return printable("\n".join(line.expandtabs(4) for line in text.splitlines()))


def _writable(value: Any) -> Any:
    """Texts without halves of surrogate pairs, which UTF-8 can't hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_writable(key): _writable(one) for key, one in value.items()}
    return value
