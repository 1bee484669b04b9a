"""Numbers and cautions in the words of a report."""

import math
from collections.abc import Mapping, Sequence

from medqlora.evaluation.report_data import MetricValue, Report

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
    low, high = (f"{100 * end:{'+' if signed else ''}.1f}" for end in interval)
    return f"95% interval {low} to {high}"


def p_value(value: float) -> str:
    """0.0213 → "0.021", and "< 0.001" below that."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def smallest_difference(n: int) -> int:
    """The difference in points, rounded up, that a paired comparison of `n` questions detects with 80% power.

    (1.96 + 0.84)·√(discordant share / n) for McNemar's test at 5%, with 15% discordant pairs: 5 for 500.
    """
    return min(100, math.ceil(100 * (1.96 + 0.84) * math.sqrt(_DISCORDANT / n)))


def caution(n: int) -> str:
    """The smallest difference that one run of `n` questions can support."""
    return f"A difference under about {smallest_difference(n)} points can't be claimed from one run of {n}."


def cautions(report: Report) -> list[str]:
    """What to know before reading the scores, in sentences, the most serious first.

    Training on test questions, the limits of the scores, and the result of the comparison with the base model.
    """
    counts = report.get("trained_on_test_questions") or {}
    trained = [
        f"WARNING: it was trained on {sum(of_set.values()):,} test questions of {benchmark}."
        for benchmark, of_set in counts.items()
    ]
    if report["decided_by"] == "exact_match":
        limit = "Shared wording does not show that an answer is right: read the answers."
    else:
        limit = caution(report["n"])
    sample = report.get("sample")
    part = []
    if sample:
        drawn = f"{sample['size']} of {sample['of']} questions (by label, seed {sample['seed']})"
        part = [f"A sample of {drawn}, not the whole set's score."]
    return [*trained, *part, limit, *verdict(report)]


def verdict(report: Report) -> list[str]:
    """The result of the comparison with the base model, in a sentence; nothing without one."""
    base, p = report.get("base"), report.get("mcnemar_p")
    chance = ["The difference from the bare base may be chance."]
    if not base or p is None:
        return []
    if report["decided_by"] == "exact_match":
        low, high = base["token_f1_difference_ci95"]
        if low <= 0 <= high:
            return chance
        side = "higher" if low > 0 else "lower"
        return [f"Its token F1 is {side} than the bare base's, by more than chance explains."]
    low, high = base["difference_ci95"]
    if p >= 0.05 or low <= 0 <= high:
        return chance
    side = "better" if base["difference"] > 0 else "worse"
    shown = "< 0.001" if p < 0.001 else f"= {p:.3f}"
    return [f"Against the bare base it is {side}, by more than chance explains (p {shown})."]


def set_name(dataset: str | None, split: str | None) -> str:
    """The question set in a title, as "PubMedQA, test"."""
    return ", ".join(part for part in (dataset, split) if part) or "test"


#: parts of a metric that are not written as their key is
_PARTS = {"macro_f1": "macro-F1", "mcnemar_p": "McNemar p"}


def metric_rows(
    values: Mapping[str, MetricValue | None], base: Mapping[str, MetricValue | None]
) -> list[tuple[str, str, str]]:
    """Name, value and the base model's value of each registered metric, a row for each part of a mapping."""
    rows = []
    for name, value in values.items():
        of_base = base.get(name)
        parts = value if isinstance(value, dict) else {"": value}
        base_parts = of_base if isinstance(of_base, dict) else {"": of_base}
        for part, number in parts.items():
            title = f"{name}, {_PARTS.get(part, part)}" if part else name
            rows.append((title.replace("_", " "), _number(number), _number(base_parts.get(part))))
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
