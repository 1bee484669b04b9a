"""The files of a test on several question sets."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from medqlora.evaluation.metrics.suite_scores import Tested, suite_scores
from medqlora.evaluation.report.context import Context
from medqlora.evaluation.report.files import (
    base_in_order,
    official_predictions,
    write_files,
)
from medqlora.evaluation.report.lines import prediction_lines
from medqlora.evaluation.report.suite_page import render_suite
from medqlora.evaluation.report_data import Report

#: the set with an official scoring script
_OFFICIAL = "PubMedQA"


def write_suite(
    folder: Path,
    tested: Sequence[Tested],
    run_info: Mapping[str, object] | None = None,
    context: Context = Context(),  # noqa: B008  # a NamedTuple does not change
) -> dict[str, Path]:
    """Writes the files of `write_report` for two or more sets that one loaded model was tested on.

    `test_report.json` has the first set's keys and `suite` (see `suite_scores`); a line of
    `predictions.jsonl` names its set under `dataset`; `predictions_official.json` is PubMedQA's where that is
    among the sets, else the first's.

    Args:
        folder: made when missing; files of an earlier report in it are replaced.
        tested: the run's own set first.
        run_info: what is needed to repeat the run, as plain values; printed in the page.
        context: the header's facts and the training curves.

    Returns:
        File name → path.

    Raises:
        OSError: the folder or a file can't be written.
        ValueError: fewer than two sets, two of one name, or a set whose parts don't belong together.
    """
    tested = [
        one._replace(base=base_in_order(one.scores, one.predictions, one.records, one.base)) for one in tested
    ]
    suite = suite_scores(tested)
    report: Report = {**tested[0].scores.to_json(), "suite": suite}
    lines = [
        {"dataset": one.name, **line}
        for one in tested
        for line in prediction_lines(one.scores, one.predictions, one.base, one.records)
    ]
    official = next((one for one in tested if one.scores.dataset == _OFFICIAL), tested[0])
    decisions = official_predictions(official.scores, official.predictions)
    return write_files(
        folder,
        {
            "test_report.json": json.dumps(report, indent=2, allow_nan=False) + "\n",
            "predictions.jsonl": "".join(f"{json.dumps(line)}\n" for line in lines),
            "predictions_official.json": json.dumps(decisions, indent=1) + "\n",
            "report.html": render_suite(tested, suite, run_info or {}, context),
        },
    )
