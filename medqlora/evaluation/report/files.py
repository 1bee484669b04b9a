"""The files of a test run: `test_report.json`, `predictions.jsonl`, `predictions_official.json`, `report.html`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from medqlora.evaluation.metrics.blocks import decision_of
from medqlora.evaluation.metrics.checks import in_order_of, matched_records
from medqlora.evaluation.metrics.free_answer import answer_scores
from medqlora.evaluation.metrics.scores import Scores, decided
from medqlora.evaluation.report.page import render
from medqlora.evaluation.report_data import AnswerLine, PredictionLine, Prior
from medqlora.evaluation.verification import Verification
from medqlora.records import Prediction, Record
from medqlora.utils.files import write_text

#: an unparsed answer in `predictions_official.json`: no label, so it counts as wrong
UNPARSED = "unparsed"


def write_report(
    folder: Path,
    scores: Scores,
    predictions: Sequence[Prediction],
    records: Sequence[Record],
    base: Sequence[Prediction] | None = None,
    run_info: Mapping[str, object] | None = None,
    live: Verification | None = None,
) -> dict[str, Path]:
    """Writes `test_report.json`, `predictions.jsonl`, `predictions_official.json` and `report.html`.

    Each file is written aside and renamed, so a reader never sees a partial file.

    Args:
        folder: made when missing; files of an earlier report in it are replaced.
        scores: `score` of these predictions, records and base.
        predictions: one a question, in the order of the files' lines.
        records: the questions.
        base: the base model's predictions, if compared.
        run_info: what is needed to repeat the run, as plain values (`command`, `versions`, `prompt`, …);
            printed in the page, escaped.
        live: of an exported model, the comparison with the live adapter.

    Returns:
        File name → path.

    Raises:
        OSError: the folder or a file can't be written.
        ValueError: the arguments don't belong together.
    """
    base = base_in_order(scores, predictions, records, base)
    contents = {
        "test_report.json": json.dumps(scores.to_json(), indent=2, allow_nan=False) + "\n",
        "predictions.jsonl": "".join(
            f"{json.dumps(line)}\n" for line in prediction_lines(scores, predictions, base, records)
        ),
        "predictions_official.json": json.dumps(official_predictions(scores, predictions), indent=1) + "\n",
        "report.html": render(scores, predictions, records, base, run_info or {}, live),
    }
    return write_files(folder, contents)


def base_in_order(
    scores: Scores,
    predictions: Sequence[Prediction],
    records: Sequence[Record],
    base: Sequence[Prediction] | None,
) -> list[Prediction] | None:
    """`base` in the order of the predictions.

    Raises:
        ValueError: the arguments don't belong together.
    """
    matched_records(predictions, records)
    if len(predictions) != scores.n:
        raise ValueError(f"{len(predictions)} predictions, but scores of {scores.n}")
    return None if base is None else in_order_of(predictions, base)


def write_files(folder: Path, contents: Mapping[str, str]) -> dict[str, Path]:
    """Writes texts under their names, each aside and renamed; name → path.

    Raises:
        OSError: the folder or a file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, content in contents.items():
        write_text(folder / name, content)
        paths[name] = folder / name
    return paths


def prediction_lines(
    scores: Scores,
    predictions: Sequence[Prediction],
    base: Sequence[Prediction] | None,
    records: Sequence[Record] = (),
) -> list[PredictionLine]:
    """A line of `predictions.jsonl` for each question, in order.

    `logprobs` are the model's own; `probabilities`, `decision` and `confidence` follow the scores'
    normalisation and prior. With `records`, a line has the annotators' decisions as `human`.
    """
    lines: list[PredictionLine] = []
    human = {record.id: dict(record.annotations) for record in records if record.annotations}
    answers = _answers(scores, predictions, scores.more.get("prior"))
    for prediction, answer in zip(predictions, answers, strict=True):
        line: PredictionLine = {"id": prediction.id, "gold": prediction.gold, **answer}
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


def official_predictions(scores: Scores, predictions: Sequence[Prediction]) -> dict[str, str]:
    """id → decision, the input of PubMedQA's `evaluation.py` (https://github.com/pubmedqa/pubmedqa).

    That script gives the accuracy of `scores` and, where every decision was parsed, the macro-F1. An unparsed
    text is written as `UNPARSED`. The script counts it as wrong and as one more class of F1 0, so its macro-F1
    is then lower than ours.
    """
    lines = prediction_lines(scores, predictions, None)
    free = scores.decided_by == "exact_match"
    return {line["id"]: (line["text"] if free else line["decision"]) or UNPARSED for line in lines}
