"""Several test runs of one experiment (seeds, folds): the spread of each metric, and every run."""

import statistics
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Literal

from medqlora.errors import InputError
from medqlora.evaluation.aggregate_data import (
    Aggregate,
    AggregateSuite,
    BaseRow,
    RunRow,
    Spread,
)
from medqlora.evaluation.report_data import (
    MetricName,
    Report,
)
from medqlora.evaluation.statistics.intervals import LEVEL

#: aggregated metrics, where every report has them
METRICS: tuple[MetricName, ...] = (
    *("accuracy", "token_f1", "rouge_l", "macro_f1"),
    *("ece", "brier", "nll", "aurc", "unparsed_fraction"),
)
_COMBINABLE = "only runs on the same questions with the same prompt can be combined"
#: keys that have to be the same in all reports
_SAME: tuple[Literal["dataset", "split", "n", "decided_by", "prompt_sha256"], ...] = (
    *("dataset", "split", "n", "decided_by", "prompt_sha256"),
)
SPREAD = (
    "mean_ci95: Student's t over the runs, for two or more; sd has n - 1 in its denominator. Both are the spread "
    "over runs (seeds, folds) on the same questions, not over questions: each run's own interval is over questions"
)


def aggregate(reports: Sequence[Report]) -> Aggregate:
    """Mean, standard deviation, smallest, largest and each value of every metric.

    Args:
        reports: `Scores.to_json()` of runs on the same questions. The spread is over the runs (other seeds,
            other folds); each run's own interval is over questions.

    Returns:
        `runs`, `dataset`, `split`, `n`, `adapters`, `spread` (what the intervals are over), `base` (the bare
        base's accuracy with interval and macro-F1, once; `same_in_all` says whether every report has that
        accuracy; None unless all compare one), `each` (a run's adapter, seed, accuracy and difference from
        the base with their intervals, and p), `metrics` (the names that follow), and metric → `mean`, `sd` (n
        - 1 in the denominator) and `mean_ci95` (both None for one run), `min`, `max`, `each` (in the order of
        `reports`). A metric that some report lacks is left out; `difference` is the accuracy's from the base.
        Where the reports are of several sets, `suite`: `macro_average` (as a metric) and `sets` (name →
        `aggregate` of that set).

    Raises:
        InputError: no reports, or reports of different questions.
    """
    if not reports:
        raise InputError("no test reports to combine: give at least one")
    first = reports[0]
    for number, report in enumerate(reports, 1):
        for key in _SAME:
            if report.get(key) != first.get(key):
                raise InputError(
                    f"report {number} has {key} {report.get(key)!r}, the first {first.get(key)!r}: {_COMBINABLE}"
                )
    rows = [_run(report) for report in reports]
    several: Aggregate = {
        "runs": len(reports),
        "dataset": first.get("dataset"),
        "split": first.get("split"),
        "n": first["n"],
        "adapters": [report.get("adapter") for report in reports],
        "spread": SPREAD,
        "base": _base(reports),
        "each": rows,
        "metrics": [],
    }
    for metric in METRICS:
        values = [float(report[metric] or 0.0) for report in reports if report.get(metric) is not None]
        if len(values) == len(reports):
            several["metrics"].append(metric)
            several[metric] = spread(values)
    differences = [row["difference"] for row in rows if row["difference"] is not None]
    if len(differences) == len(reports):
        several["metrics"].append("difference")
        several["difference"] = spread(differences)
    if any("suite" in report for report in reports):
        several["suite"] = _suite(reports)
    return several


def spread(values: Sequence[float]) -> Spread:
    """Mean, sd, Student's t interval of the mean, smallest, largest and each of one or more values.

    mean ± t(n - 1)·sd/√n (Student 1908, https://doi.org/10.1093/biomet/6.1.1). The interval is not cut at 0 or
    1: where it passes them, the runs are too few.
    """
    mean = statistics.fmean(values)
    sd = interval = None
    if len(values) > 1:
        from scipy.stats import t

        sd = statistics.stdev(values)
        half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * sd / sqrt(len(values))
        interval = [mean - half, mean + half]
    return {
        "mean": mean,
        "sd": sd,
        "mean_ci95": interval,
        "min": min(values),
        "max": max(values),
        "each": list(values),
    }


def _run(report: Report) -> RunRow:
    base = report.get("base")
    return {
        "adapter": report.get("adapter"),
        "seed": report.get("seed"),
        "accuracy": report["accuracy"],
        "accuracy_ci95": report["accuracy_ci95"],
        "macro_f1": report.get("macro_f1"),
        "difference": base["difference"] if base else None,
        "difference_ci95": base["difference_ci95"] if base else None,
        "mcnemar_p": report.get("mcnemar_p"),
    }


def _base(reports: Sequence[Report]) -> BaseRow | None:
    blocks = [block for block in (report.get("base") for report in reports) if block is not None]
    if len(blocks) < len(reports):
        return None
    first = blocks[0]
    return {
        "accuracy": first["accuracy"],
        "accuracy_ci95": first["accuracy_ci95"],
        "macro_f1": first.get("macro_f1"),
        "macro_f1_ci95": first.get("macro_f1_ci95"),
        "same_in_all": all(block["accuracy"] == first["accuracy"] for block in blocks),
    }


def _suite(reports: Sequence[Report]) -> AggregateSuite:
    names = list(reports[0]["suite"]["sets"]) if "suite" in reports[0] else []
    for number, report in enumerate(reports, 1):
        sets = report["suite"]["sets"] if "suite" in report else {}
        if set(sets) != set(names):
            raise InputError(
                f"report {number} has the question sets {sorted(sets)}, the first {sorted(names)}: {_COMBINABLE}"
            )
    suites = [report["suite"] for report in reports]
    return {
        "macro_average": spread([float(suite["macro_average"]["accuracy"]) for suite in suites]),
        "sets": {name: aggregate([suite["sets"][name] for suite in suites]) for name in names},
    }


def macro_average(reports: Mapping[str, Report]) -> dict[str, float | dict[str, float]]:
    """The mean accuracy over datasets (name → report), each dataset counting the same, and each.

    Raises:
        InputError: no reports.
    """
    if not reports:
        raise InputError("no test reports to average: give at least one dataset")
    each = {name: float(report["accuracy"]) for name, report in reports.items()}
    return {"macro_average_accuracy": statistics.fmean(each.values()), "accuracy": each}
