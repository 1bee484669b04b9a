"""The files over several adapters that were tested on the same questions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medqlora.evaluation.report.files import write_files
from medqlora.evaluation.report.markup import (
    Markup,
    element,
    fields,
    joined,
    picture,
    table,
)
from medqlora.evaluation.report.page import page, section
from medqlora.evaluation.report.page_tables import interval_text
from medqlora.evaluation.report.plots import svg
from medqlora.evaluation.report.suite_plots import aggregate_figure
from medqlora.evaluation.report.wording import p_value, percent, points
from medqlora.evaluation.statistics.aggregation import SPREAD, aggregate

_CAPTION = (
    "Each adapter's accuracy with its 95% interval over questions; the mean with its interval over adapters."
)


def write_aggregate(
    folder: Path, reports: Sequence[Mapping[str, Any]], run_info: Mapping[str, Any] | None = None
) -> dict[str, Path]:
    """Writes `aggregate_report.json` and `aggregate.html`; each file is written aside and renamed.

    Args:
        folder: made when missing; files of an earlier report in it are replaced.
        reports: what `test_report.json` of each run says, in the order to show them.
        run_info: what is needed to repeat the runs, as plain values; printed in the page.

    Returns:
        File name → path.

    Raises:
        InputError: no reports, or reports of different questions.
        OSError: the folder or a file can't be written.
    """
    whole = aggregate(reports)
    return write_files(
        folder,
        {
            "aggregate_report.json": json.dumps(whole, indent=2, allow_nan=False) + "\n",
            "aggregate.html": render_aggregate(whole, run_info or {}),
        },
    )


def render_aggregate(whole: Mapping[str, Any], run_info: Mapping[str, Any]) -> str:
    """The page of what `aggregate` returned."""
    name = ", ".join(str(one) for one in (whole["dataset"], whole["split"]) if one) or "test"
    accuracy = whole["accuracy"]
    figure = picture(svg(aggregate_figure(whole)), f"adapters. {_CAPTION}", _CAPTION, wide=True)
    headline: list[object] = [element("b", percent(accuracy["mean"])), " mean accuracy"]
    if accuracy["sd"] is not None:
        headline.append(
            f", standard deviation {100 * accuracy['sd']:.1f} points over {whole['runs']} adapters"
        )
    cautions = ["The spread is over adapters on the same questions, not over questions."]
    if whole["base"] and not whole["base"]["same_in_all"]:
        cautions.append("The bare base's accuracy is not the same in all reports; the first's is shown.")
    parts = [
        *section("The adapters", _adapters(whole)),
        *section("Figure", element("div", figure, class_="figures")),
        *section("Mean and spread", metric_table(whole)),
        *section("The question sets", _sets(whole.get("suite"))),
        *section("What the numbers mean", fields({"spread": SPREAD})),
        *section("To repeat these runs", fields(run_info)),
    ]
    return page(
        title=f"{name}: {percent(accuracy['mean'])} mean accuracy of {whole['runs']} adapters",
        subtitle=f"the same {whole['n']} questions for each",
        headline=element("p", *headline, class_="headline"),
        cautions=cautions,
        sections=joined(parts),
    )


def metric_table(whole: Mapping[str, Any]) -> Markup:
    """Mean, standard deviation, interval of the mean, smallest and largest of each metric."""
    rows = []
    for metric in whole["metrics"]:
        one = whole[metric]
        rows.append([metric.replace("_", " "), *_numbers(one)])
    return table(["", "mean", "sd", "95% of the mean (t)", "smallest", "largest"], rows)


def _numbers(one: Mapping[str, Any]) -> list[object]:
    sd = "" if one["sd"] is None else f"{one['sd']:.4f}"
    interval = "" if one["mean_ci95"] is None else " to ".join(f"{end:.3f}" for end in one["mean_ci95"])
    return [f"{one['mean']:.3f}", sd, interval, f"{one['min']:.3f}", f"{one['max']:.3f}"]


def _adapters(whole: Mapping[str, Any]) -> Markup:
    rows: list[list[object]] = []
    for row in whole["each"]:
        f1, difference, p = row["macro_f1"], row["difference"], row["mcnemar_p"]
        rows.append(
            [
                row["adapter"] or "none",
                "" if row["seed"] is None else row["seed"],
                percent(row["accuracy"]),
                interval_text(row["accuracy_ci95"]),
                "" if f1 is None else percent(f1),
                "" if difference is None else points(difference),
                "" if difference is None else " to ".join(points(end) for end in row["difference_ci95"]),
                "" if p is None else p_value(p),
            ]
        )
    base = whole["base"]
    if base:
        f1 = "" if base["macro_f1"] is None else percent(base["macro_f1"])
        rows.append(
            ["Bare base", "", percent(base["accuracy"]), interval_text(base["accuracy_ci95"]), f1, "", "", ""]
        )
    head = ["adapter", "seed", "accuracy", "95% interval", "macro-F1", "difference", "95% interval", "p"]
    return table(head, rows)


def _sets(suite: Mapping[str, Any] | None) -> Markup | None:
    """The accuracy on each set over the adapters, and of the macro average."""
    if suite is None:
        return None
    rows: list[list[object]] = [
        [name, one["n"], *_numbers(one["accuracy"])] for name, one in suite["sets"].items()
    ]
    rows.append([element("b", "Macro average"), "", *_numbers(suite["macro_average"])])
    head = ["accuracy on", "n", "mean", "sd", "95% of the mean (t)", "smallest", "largest"]
    return table(head, rows)
