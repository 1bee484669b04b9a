"""Several models on the same questions: each one's scores, and its paired comparison with a reference."""

from collections.abc import Mapping, Sequence

from medqlora.evaluation.metrics.suite_scores import holm
from medqlora.evaluation.report_data import PairedRow
from medqlora.evaluation.statistics.intervals import summary
from medqlora.evaluation.statistics.paired import compare

#: from this adjusted p on, a difference may be chance
LEVEL = 0.05
METHOD = "exact McNemar test against the first row, adjusted for the number of rows by Holm 1979"


def side_by_side(
    gold: Sequence[str],
    labels: Sequence[str],
    reference: tuple[str, Sequence[str | None]],
    others: Mapping[str, Sequence[str | None]],
    seed: int = 0,
) -> list[PairedRow]:
    """The reference's row, and then one for each other model.

    Args:
        gold: the right answers.
        labels: all possible decisions.
        reference: name and decisions.
        others: name → decisions.
        seed: of the bootstrap.

    Raises:
        ValueError: the lengths differ, or there are no questions.
    """
    name, decisions = reference
    rows = [_alone(name, gold, decisions, labels, seed)]
    for other, of_other in others.items():
        row, paired = (
            _alone(other, gold, of_other, labels, seed),
            compare(gold, of_other, decisions, labels, seed),
        )
        row["difference"], row["difference_ci95"] = paired["difference"], paired["difference_ci95"]
        row["macro_f1_difference"] = paired["macro_f1_difference"]
        row["macro_f1_difference_ci95"] = paired["macro_f1_difference_ci95"]
        row["mcnemar_p"], row["pairs"] = paired["mcnemar_p"], paired["pairs"]
        rows.append(row)
    adjusted = holm({row["name"]: row["mcnemar_p"] for row in rows[1:] if row["mcnemar_p"] is not None})
    for row in rows[1:]:
        row["mcnemar_p_holm"] = adjusted[row["name"]]
    return rows


def verdict(row: PairedRow) -> str:
    """What the paired test says of a row: better, worse, or that it may be chance; "" for the reference."""
    difference, p = row["difference"], row["mcnemar_p_holm"]
    if difference is None or p is None:
        return ""
    if p >= LEVEL or difference == 0:
        return "may be chance"
    return "better" if difference > 0 else "worse"


def _alone(
    name: str, gold: Sequence[str], decisions: Sequence[str | None], labels: Sequence[str], seed: int
) -> PairedRow:
    scores = summary(gold, decisions, labels, seed)
    return {
        "name": name,
        "n": scores["n"],
        "accuracy": scores["accuracy"],
        "accuracy_ci95": scores["accuracy_ci95"] or [],
        "macro_f1": scores["macro_f1"] or 0.0,
        "macro_f1_ci95": scores["macro_f1_ci95"] or [],
        "difference": None,
        "difference_ci95": None,
        "macro_f1_difference": None,
        "macro_f1_difference_ci95": None,
        "mcnemar_p": None,
        "mcnemar_p_holm": None,
        "pairs": None,
    }
