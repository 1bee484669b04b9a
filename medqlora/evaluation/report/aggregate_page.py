"""`aggregate_report.json` and `aggregate.html`: several adapters tested on the same questions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from medqlora.evaluation.aggregate_data import (
    Aggregate,
    AggregateSuite,
    Spread,
)
from medqlora.evaluation.report.files import write_files
from medqlora.evaluation.report.markup import Markup, element, fields, joined, picture, table
from medqlora.evaluation.report.page import page, section
from medqlora.evaluation.report.page_tables import interval_text
from medqlora.evaluation.report.plots import svg
from medqlora.evaluation.report.suite_plots import aggregate_figure
from medqlora.evaluation.report.wording import p_value, percent, points, set_name
from medqlora.evaluation.report_data import (
    Report,
)
from medqlora.evaluation.statistics.aggregation import SPREAD, aggregate

_CAPTION = (
    "Each adapter's accuracy with its 95% interval over questions; the mean with its interval over adapters."
)


def write_aggregate(
    folder: Path, reports: Sequence[Report], run_info: Mapping[str, object] | None = None
) -> dict[str, Path]:
    """Writes `aggregate_report.json` and `aggregate.html`; each file is written aside and renamed.

    Args:
        folder: made when missing; files of an earlier report in it are replaced.
        reports: `test_report.json` of each run, in the order of the page.
        run_info: what is needed to repeat the runs, as plain values; printed in the page.

    Returns:
        File name → path.

    Raises:
        InputError: no reports, or reports of different questions.
        OSError: the folder or a file can't be written.
    """
    several = aggregate(reports)
    return write_files(
        folder,
        {
            "aggregate_report.json": json.dumps(several, indent=2, allow_nan=False) + "\n",
            "aggregate.html": render_aggregate(several, run_info or {}),
        },
    )


def render_aggregate(several: Aggregate, run_info: Mapping[str, object]) -> str:
    """The page of what `aggregate` returned."""
    name = set_name(several["dataset"], several["split"])
    accuracy = several["accuracy"]
    figure = picture(svg(aggregate_figure(several)), f"adapters. {_CAPTION}", _CAPTION, wide=True)
    headline: list[object] = [element("b", percent(accuracy["mean"])), " mean accuracy"]
    if accuracy["sd"] is not None:
        headline.append(
            f", standard deviation {100 * accuracy['sd']:.1f} points over {several['runs']} adapters"
        )
    cautions = ["The spread is over adapters on the same questions, not over questions."]
    if several["base"] and not several["base"]["same_in_all"]:
        cautions.append("The bare base's accuracy is not the same in all reports; the first's is shown.")
    parts = [
        *section("The adapters", _adapters(several)),
        *section("Figure", element("div", figure, class_="figures")),
        *section("Mean and spread", metric_table(several)),
        *section("The question sets", _sets(several.get("suite"))),
        *section("What the numbers mean", fields({"spread": SPREAD})),
        *section("To repeat these runs", fields(run_info)),
    ]
    return page(
        title=f"{name}: {percent(accuracy['mean'])} mean accuracy of {several['runs']} adapters",
        subtitle=f"the same {several['n']} questions for each",
        headline=element("p", *headline, class_="headline"),
        cautions=cautions,
        sections=joined(parts),
    )


def metric_table(several: Aggregate) -> Markup:
    """Mean, standard deviation, interval of the mean, smallest and largest of each metric."""
    rows = [[metric.replace("_", " "), *_numbers(several[metric])] for metric in several["metrics"]]
    return table(["", "mean", "sd", "95% of the mean (t)", "smallest", "largest"], rows)


def _numbers(spread: Spread) -> list[object]:
    sd = "" if spread["sd"] is None else f"{spread['sd']:.4f}"
    interval = "" if spread["mean_ci95"] is None else " to ".join(f"{end:.3f}" for end in spread["mean_ci95"])
    return [f"{spread['mean']:.3f}", sd, interval, f"{spread['min']:.3f}", f"{spread['max']:.3f}"]


def _adapters(several: Aggregate) -> Markup:
    rows: list[list[object]] = []
    for row in several["each"]:
        f1, difference, p = row["macro_f1"], row["difference"], row["mcnemar_p"]
        interval = row["difference_ci95"]
        rows.append(
            [
                row["adapter"] or "none",
                "" if row["seed"] is None else row["seed"],
                percent(row["accuracy"]),
                interval_text(row["accuracy_ci95"]),
                "" if f1 is None else percent(f1),
                "" if difference is None else points(difference),
                "" if interval is None else " to ".join(points(end) for end in interval),
                "" if p is None else p_value(p),
            ]
        )
    base = several["base"]
    if base:
        shown = "" if base["macro_f1"] is None else percent(base["macro_f1"])
        cells = [percent(base["accuracy"]), interval_text(base["accuracy_ci95"]), shown]
        rows.append(["Bare base", "", *cells, "", "", ""])
    head = ["adapter", "seed", "accuracy", "95% interval", "macro-F1", "difference", "95% interval", "p"]
    return table(head, rows)


def _sets(suite: AggregateSuite | None) -> Markup | None:
    """The accuracy on each set over the adapters, and of the macro average."""
    if suite is None:
        return None
    rows: list[list[object]] = [
        [name, of_set["n"], *_numbers(of_set["accuracy"])] for name, of_set in suite["sets"].items()
    ]
    rows.append([element("b", "Macro average"), "", *_numbers(suite["macro_average"])])
    head = ["accuracy on", "n", "mean", "sd", "95% of the mean (t)", "smallest", "largest"]
    return table(head, rows)
