"""Several test runs of one experiment (seeds, folds), put together without hiding any."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from medqlora.errors import InputError

#: what is aggregated, of those that a report has
METRICS = ("accuracy", "macro_f1", "ece", "brier", "nll", "aurc", "unparsed_fraction")


def aggregate(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation, smallest, largest and each value of every metric.

    Args:
        reports: `Scores.to_json()` of runs on the same questions. The spread is between the runs (other
            seeds, other folds); that the questions are a sample too is said by each run's own interval.

    Returns:
        `runs`, `dataset`, `split`, `n`, and metric → `mean`, `sd` (n - 1 in the denominator; None for one
        run), `min`, `max`, `each` (in the order of `reports`). A metric that some report lacks is left out.

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
    }
    for metric in METRICS:
        each = [report.get(metric) for report in reports]
        values = [float(value) for value in each if value is not None]
        if len(values) == len(reports):
            whole[metric] = {
                "mean": statistics.fmean(values),
                "sd": statistics.stdev(values) if len(values) > 1 else None,
                "min": min(values),
                "max": max(values),
                "each": values,
            }
    return whole


def macro_average(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The mean accuracy over datasets (name → report), each dataset counting the same, and each.

    Raises:
        InputError: no reports.
    """
    if not reports:
        raise InputError("no test reports to average: give at least one dataset")
    each = {name: float(report["accuracy"]) for name, report in reports.items()}
    return {"macro_average_accuracy": statistics.fmean(each.values()), "accuracy": each}
