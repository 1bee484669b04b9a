"""Several test runs of one experiment (seeds, folds), put together without hiding any."""

import statistics
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from medqlora.errors import InputError
from medqlora.evaluation.statistics.intervals import LEVEL

#: what is aggregated, of those that a report has
METRICS = ("accuracy", "token_f1", "rouge_l", "macro_f1", "ece", "brier", "nll", "aurc", "unparsed_fraction")
SPREAD = (
    "mean_ci95: Student's t over the runs, for two or more; sd has n - 1 in its denominator. Both are the spread "
    "over runs (seeds, folds) on the same questions, not over questions: each run's own interval is over questions"
)


def aggregate(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation, smallest, largest and each value of every metric.

    Args:
        reports: `Scores.to_json()` of runs on the same questions. The spread is between the runs (other
            seeds, other folds); that the questions are a sample too is said by each run's own interval.

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
        raise InputError("no test reports to put together: give at least one")
    first = reports[0]
    for place, report in enumerate(reports):
        for key in ("dataset", "split", "n", "decided_by", "prompt_sha256"):
            if report.get(key) != first.get(key):
                raise InputError(
                    f"report {place + 1} has {key} {report.get(key)!r}, the first {first.get(key)!r}: "
                    "only runs on the same questions, asked the same way, can be put together"
                )
    whole: dict[str, Any] = {
        "runs": len(reports),
        "dataset": first.get("dataset"),
        "split": first.get("split"),
        "n": first["n"],
        "adapters": [report.get("adapter") for report in reports],
        "spread": SPREAD,
        "base": _base(reports),
        "each": [_run(report) for report in reports],
        "metrics": [],
    }
    values = {metric: [report.get(metric) for report in reports] for metric in METRICS}
    values["difference"] = [row["difference"] for row in whole["each"]]
    for metric, each in values.items():
        known = [float(value) for value in each if value is not None]
        if len(known) == len(reports):
            whole["metrics"].append(metric)
            whole[metric] = spread(known)
    if any("suite" in report for report in reports):
        whole["suite"] = _suite(reports)
    return whole


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sd, Student's t interval of the mean, smallest, largest and each of one or more values.

    mean ± t(n - 1)·sd/√n (Student 1908, https://doi.org/10.1093/biomet/6.1.1). It is not cut at 0 or 1: an
    interval that leaves them says that the runs are too few.
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


def _run(report: Mapping[str, Any]) -> dict[str, Any]:
    base = report.get("base") or {}
    return {
        **{key: report.get(key) for key in ("adapter", "seed", "accuracy", "accuracy_ci95", "macro_f1")},
        **{key: base.get(key) for key in ("difference", "difference_ci95")},
        "mcnemar_p": report.get("mcnemar_p"),
    }


def _base(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    blocks = [report.get("base") for report in reports]
    first = blocks[0]
    if first is None or None in blocks:
        return None
    keys = ("accuracy", "accuracy_ci95", "macro_f1", "macro_f1_ci95")
    same = all(block is not None and block["accuracy"] == first["accuracy"] for block in blocks)
    return {**{key: first.get(key) for key in keys}, "same_in_all": same}


def _suite(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    suites = [report.get("suite") or {"sets": {}} for report in reports]
    names = list(suites[0]["sets"])
    for place, suite in enumerate(suites):
        if set(suite["sets"]) != set(names):
            raise InputError(
                f"report {place + 1} has the question sets {sorted(suite['sets'])}, the first {sorted(names)}: "
                "only runs on the same questions, asked the same way, can be put together"
            )
    return {
        "macro_average": spread([float(suite["macro_average"]["accuracy"]) for suite in suites]),
        "sets": {name: aggregate([suite["sets"][name] for suite in suites]) for name in names},
    }


def macro_average(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The mean accuracy over datasets (name → report), each dataset counting the same, and each.

    Raises:
        InputError: no reports.
    """
    if not reports:
        raise InputError("no test reports to average: give at least one dataset")
    each = {name: float(report["accuracy"]) for name, report in reports.items()}
    return {"macro_average_accuracy": statistics.fmean(each.values()), "accuracy": each}
