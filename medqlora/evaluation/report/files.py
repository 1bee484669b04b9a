"""The files of a test run: `test_report.json`, `predictions.jsonl`, `predictions_official.json`, `report.html`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from medqlora.evaluation.metrics.checks import in_order_of, matched_records
from medqlora.evaluation.metrics.scores import Scores
from medqlora.evaluation.report.context import Context
from medqlora.evaluation.report.lines import prediction_lines
from medqlora.evaluation.report.page import render
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
    context: Context = Context(),  # noqa: B008  # a NamedTuple does not change
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
        context: the header's facts and the training curves, see `Context`.
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
        "report.html": render(scores, predictions, records, base, run_info or {}, context, live),
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


def official_predictions(scores: Scores, predictions: Sequence[Prediction]) -> dict[str, str]:
    """id → decision, the input of PubMedQA's `evaluation.py` (https://github.com/pubmedqa/pubmedqa).

    That script gives the accuracy of `scores` and, where every decision was parsed, the macro-F1. An unparsed
    text is written as `UNPARSED`. The script counts it as wrong and as one more class of F1 0, so its macro-F1
    is then lower than ours.
    """
    lines = prediction_lines(scores, predictions, None)
    free = scores.decided_by == "exact_match"
    return {line["id"]: (line["text"] if free else line["decision"]) or UNPARSED for line in lines}
