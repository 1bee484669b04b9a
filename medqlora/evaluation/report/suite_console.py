"""Several question sets, or several adapters, as a table for the terminal: at most 80 columns."""

from collections.abc import Sequence

from medqlora.evaluation.aggregate_data import (
    Aggregate,
)
from medqlora.evaluation.metrics.suite_scores import Tested, suite_scores
from medqlora.evaluation.report.console import WIDTH, cut
from medqlora.evaluation.report.wording import percent, points, set_name
from medqlora.evaluation.report_data import (
    BaseScores,
)
from medqlora.utils.terminal import printable_line

#: widths of the columns of `suite_table`, 80 in total
_COLUMNS = (17, 6, 7, 13, 7, 7, 17, 6)


def suite_table(tested: Sequence[Tested]) -> str:
    """A line for each set and the macro average last; plain text without a final newline."""
    suite = suite_scores(tested)
    lines = [
        f"{len(tested)} question sets; p: exact McNemar against the base, Holm for {len(tested)} sets",
        _line("question set", "n", "right", "95%", "base", "diff", "95%", "p"),
        "-" * WIDTH,
    ]
    for one in tested:
        scores, base = one.scores, one.scores.base or BaseScores()
        adjusted = suite["mcnemar_p_holm"].get(one.name)
        difference = _difference(base.get("accuracy"), base.get("difference"), base.get("difference_ci95"))
        p = "-" if adjusted is None else "<.001" if adjusted < 0.001 else f"{adjusted:.3f}"
        head = [one.name, scores.n, percent(scores.accuracy), _range(scores.accuracy_ci95)]
        lines.append(_line(*head, *difference, p))
    average = suite["macro_average"]
    difference = _difference(average["base_accuracy"], average["difference"], average["difference_ci95"])
    head = ["macro average", suite["n"], percent(average["accuracy"]), _range(average["accuracy_ci95"])]
    return "\n".join([*lines, "-" * WIDTH, _line(*head, *difference, "")])


def aggregate_table(several: Aggregate) -> str:
    """Each adapter, then the spread of each metric; plain text without a final newline.

    Args:
        several: as `aggregate` returns it.
    """
    name = set_name(several["dataset"], several["split"])
    lines = [
        cut(f"{name}: {several['runs']} adapters on the same {several['n']} questions"),
        f"{'adapter':<40}{'accuracy':>10}{'95%':>15}{'diff':>15}",
        "-" * WIDTH,
    ]
    for row in several["each"]:
        adapter = printable_line(str(row["adapter"] or "none"))
        adapter = adapter if len(adapter) <= 39 else f"...{adapter[-36:]}"
        change = row["difference"]
        difference = "-" if change is None else points(change)
        interval = _range(row["accuracy_ci95"])
        lines.append(f"{adapter:<40}{percent(row['accuracy']):>10}{interval:>15}{difference:>15}")
    if base := several["base"]:
        lines.append(f"{'bare base':<40}{percent(base['accuracy']):>10}{_range(base['accuracy_ci95']):>15}")
    lines += ["-" * WIDTH, f"{'':<20}{'mean':>9}{'sd':>9}{'min':>9}{'max':>9}{'95% of the mean':>24}"]
    for metric in several["metrics"]:
        spread = several[metric]
        values = spread["mean"], spread["sd"], spread["min"], spread["max"]
        numbers = "".join(f"{'-':>9}" if value is None else f"{value:>9.3f}" for value in values)
        low_high = spread["mean_ci95"]
        interval = "-" if low_high is None else f"{low_high[0]:.3f} to {low_high[1]:.3f}"
        lines.append(f"{metric.replace('_', ' '):<20}{numbers}{interval:>24}")
    return "\n".join([*lines, "The spread is over the adapters, not over the questions."])


def _difference(
    base: float | None, difference: float | None, interval: Sequence[float] | None
) -> tuple[str, str, str]:
    if base is None or difference is None or interval is None:
        return "-", "-", "-"
    return percent(base), points(difference), f"[{points(interval[0])}, {points(interval[1])}]"


def _range(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}"


def _line(name: object, *cells: object) -> str:
    first, *widths = _COLUMNS
    named = printable_line(str(name))
    named = named if len(named) < first else f"{named[: first - 4]}..."
    numbers = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return cut(f"{named:<{first}}{numbers}".rstrip())
