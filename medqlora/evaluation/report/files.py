"""Writes what a test run leaves behind."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medqlora.evaluation.metrics.blocks import decision_of
from medqlora.evaluation.metrics.checks import in_order_of, matched_records
from medqlora.evaluation.metrics.scores import Scores, decided
from medqlora.evaluation.report.free_answer_page import answer_scores
from medqlora.evaluation.report.page import render
from medqlora.records import Prediction, Record
from medqlora.utils.files import write_text

#: what `predictions_official.json` says where nothing could be read: no label, so it counts as wrong
UNPARSED = "unparsed"


def write_report(
    folder: Path,
    scores: Scores,
    predictions: Sequence[Prediction],
    records: Sequence[Record],
    base: Sequence[Prediction] | None = None,
    run_info: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Writes `test_report.json`, `predictions.jsonl`, `predictions_official.json` and `report.html`.

    Each file is written aside and renamed, so a reader never meets half of one.

    Args:
        folder: made when missing; files of an earlier report in it are replaced.
        scores: `score` of these predictions, records and base.
        predictions: one a question, in the order of the files' lines.
        records: the questions.
        base: the bare base's predictions, if compared.
        run_info: what is needed to repeat the run, as plain values (`command`, `versions`, `prompt`, …);
            printed in the page. Texts in it are escaped.

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
        "report.html": render(scores, predictions, records, base, run_info or {}),
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
) -> list[dict[str, Any]]:
    """A line of `predictions.jsonl` for each question, in order.

    `logprobs` are as the model gave them; `probabilities`, `decision` and `confidence` follow the scores'
    normalisation and prior. With `records`, what people said of a question stands there too, as `human`.
    """
    if scores.decided_by == "exact_match":
        free = [
            {"id": one.id, "gold": one.gold, "text": one.text, **answer_scores(one)} for one in predictions
        ]
        for line, one in zip(free, base or (), strict=False):
            line["base"] = {"text": one.text, **answer_scores(one)}
        return free
    normalisation = scores.more["normalisation"]
    lines = [
        {"id": one.id, "gold": one.gold, **_answer(one, after, scores), "context_tokens": one.context_tokens}
        for one, after in zip(
            predictions, decided(predictions, normalisation, scores.more["prior"]), strict=True
        )
    ]
    if base is not None:
        compared = decided(base, normalisation, scores.more["base_prior"])
        for line, one, after in zip(lines, base, compared, strict=True):
            line["base"] = _answer(one, after, scores)
    human = {record.id: dict(record.annotations) for record in records if record.annotations}
    for line in lines:
        if line["id"] in human:
            line["human"] = human[line["id"]]
    return lines


def _answer(one: Prediction, compared: Prediction, scores: Scores) -> dict[str, Any]:
    decision = decision_of(compared, scores.decided_by == "likelihood")
    return {
        "decision": decision,
        "right": decision == one.gold,
        "confidence": compared.confidence,
        "probabilities": dict(zip(one.labels, compared.probabilities, strict=False)) or None,
        "logprobs": dict(zip(one.labels, one.logprobs, strict=False)) or None,
        "label_mass": one.label_mass if one.logprobs else None,
        "text": one.text,
        "parsed": one.parsed,
    }


def official_predictions(scores: Scores, predictions: Sequence[Prediction]) -> dict[str, str]:
    """id → decision, the file that PubMedQA's `evaluation.py` takes (https://github.com/pubmedqa/pubmedqa).

    It gives the accuracy of `scores` and, as long as every decision could be read, the macro-F1. A text
    that could not be read is written as `UNPARSED`, which that script counts as wrong and as one more
    class of F1 0, so its macro-F1 is then lower than ours.
    """
    said = "text" if scores.decided_by == "exact_match" else "decision"
    return {line["id"]: line[said] or UNPARSED for line in prediction_lines(scores, predictions, None)}
