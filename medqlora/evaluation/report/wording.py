"""Numbers and cautions in the words of a report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

NOT_ADVICE = (
    "Not medical advice. These scores describe answers to examination-like questions; they do not show that "
    "the model is safe or useful in the care of patients. Consult a healthcare professional."
)
#: share of discordant pairs between two similar models, for `smallest_difference`
_DISCORDANT = 0.15


def percent(value: float) -> str:
    """0.748 → "74.8%"."""
    return f"{100 * value:.1f}%"


def points(value: float) -> str:
    """0.031 → "+3.1"; percentage points."""
    return f"{100 * value:+.1f}"


def span(interval: Sequence[float], *, signed: bool = False) -> str:
    """[0.708, 0.784] → "95% interval 70.8 to 78.4"."""
    low, high = (f"{100 * one:{'+' if signed else ''}.1f}" for one in interval)
    return f"95% interval {low} to {high}"


def p_value(value: float) -> str:
    """0.0213 → "0.021"; what is smaller than can be shown is said so."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def smallest_difference(n: int) -> int:
    """The difference in points, rounded up, that a paired comparison of `n` questions finds 4 times in 5.

    (1.96 + 0.84)·√(discordant share / n) for McNemar's test at 5%, with 15% discordant pairs: 5 for 500.
    """
    return min(100, math.ceil(100 * (1.96 + 0.84) * math.sqrt(_DISCORDANT / n)))


def caution(n: int) -> str:
    """What one run of `n` questions can't show."""
    return f"A difference under about {smallest_difference(n)} points can't be claimed from one run of {n}."


def cautions(report: Mapping[str, Any]) -> list[str]:
    """What a reader has to know of a report first, the gravest first, a sentence each: test questions among what was
    learned, what the scores can't show, and what the comparison with the base shows."""
    counts = report.get("trained_on_test_questions") or {}
    trained = [
        f"WARNING: it was trained on {sum(of_set.values()):,} test questions of {benchmark}."
        for benchmark, of_set in counts.items()
    ]
    if report["decided_by"] == "exact_match":
        limit = "Shared wording does not show that an answer is right: read the answers."
    else:
        limit = caution(report["n"])
    return [*trained, limit, *verdict(report)]


def verdict(report: Mapping[str, Any]) -> list[str]:
    """What the comparison with the base shows, in a sentence; nothing without one."""
    if report.get("base") and report["decided_by"] == "exact_match":
        low, high = report["base"]["token_f1_difference_ci95"]
        if low > 0 or high < 0:
            side = "higher" if low > 0 else "lower"
            return [f"Its token F1 is {side} than the bare base's, by more than chance explains."]
        return ["The difference from the bare base may be chance."]
    base, p = report.get("base"), report.get("mcnemar_p")
    if not base or p is None:
        return []
    low, high = base["difference_ci95"]
    if p < 0.05 and (low > 0 or high < 0):
        side = "better" if base["difference"] > 0 else "worse"
        shown = "< 0.001" if p < 0.001 else f"= {p:.3f}"
        return [f"Against the bare base it is {side}, by more than chance explains (p {shown})."]
    return ["The difference from the bare base may be chance."]
