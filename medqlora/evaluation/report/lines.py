"""The lines of `predictions.jsonl`."""

from collections.abc import Sequence

from medqlora.evaluation.metrics.blocks import decision_of
from medqlora.evaluation.metrics.free_answer import answer_scores
from medqlora.evaluation.metrics.scores import Scores, decided
from medqlora.evaluation.report_data import AnswerLine, PredictionLine, Prior
from medqlora.records import Prediction, Record


def prediction_lines(
    scores: Scores,
    predictions: Sequence[Prediction],
    base: Sequence[Prediction] | None,
    records: Sequence[Record] = (),
) -> list[PredictionLine]:
    """A line of `predictions.jsonl` for each question, in order.

    `logprobs` are the model's own; `probabilities`, `decision` and `confidence` follow the scores'
    normalisation and prior. With `records`, a line has the question and the annotators' decisions (`human`).
    """
    lines: list[PredictionLine] = []
    human = {record.id: dict(record.annotations) for record in records if record.annotations}
    questions = {record.id: record.question for record in records}
    answers = _answers(scores, predictions, scores.more.get("prior"))
    for prediction, answer in zip(predictions, answers, strict=True):
        line: PredictionLine = {"id": prediction.id}
        if prediction.id in questions:
            line["question"] = questions[prediction.id]
        line.update({"gold": prediction.gold, **answer})
        if scores.decided_by != "exact_match":
            line["context_tokens"] = prediction.context_tokens
        lines.append(line)
    if base is not None:
        for line, answer in zip(lines, _answers(scores, base, scores.more.get("base_prior")), strict=True):
            line["base"] = answer
    for line in lines:
        if line["id"] in human and scores.decided_by != "exact_match":
            line["human"] = human[line["id"]]
    return lines


def _answers(scores: Scores, predictions: Sequence[Prediction], prior: Prior | None) -> list[AnswerLine]:
    """One model's answers, compared as the scores compare them."""
    if scores.decided_by == "exact_match":
        return [{"text": one.text, **answer_scores(one)} for one in predictions]
    compared = decided(predictions, scores.more["normalisation"], prior)
    answers: list[AnswerLine] = []
    for one, after in zip(predictions, compared, strict=True):
        decision = decision_of(after, scores.decided_by == "likelihood")
        answers.append(
            {
                "decision": decision,
                "right": decision == one.gold,
                "confidence": after.confidence,
                "probabilities": dict(zip(one.labels, after.probabilities, strict=False)) or None,
                "logprobs": dict(zip(one.labels, one.logprobs, strict=False)) or None,
                "label_mass": one.label_mass if one.logprobs else None,
                "text": one.text,
                "parsed": one.parsed,
            }
        )
    return answers
