"""The `retrieval` of `test_report.json`: questions alone, with their own contexts, and with retrieved ones."""

from collections.abc import Mapping
from typing import TypedDict

Interval = list[float]


class ConditionScores(TypedDict):
    """One way to put the questions."""

    accuracy: float
    accuracy_ci95: Interval
    macro_f1: float
    unparsed: int


class PairedDifference(TypedDict):
    """Retrieved contexts minus another condition, on the same questions; Newcombe's interval, exact McNemar test."""

    difference: float
    difference_ci95: Interval
    mcnemar_p: float
    only_retrieved_right: int
    only_other_right: int


class FoundGroup(TypedDict):
    """Questions whose own article was found, or was not."""

    n: int
    accuracy: float | None
    accuracy_ci95: Interval | None


class NoEvidence(TypedDict):
    """Questions whose passages hold less of them than `threshold`, which was fitted on validation questions."""

    threshold: float
    fitted_on: int
    below: FoundGroup
    above: FoundGroup


class RetrievalBlock(TypedDict):
    """All of it; `no_evidence` is None where no validation question's own article is in the index."""

    settings: Mapping[str, object]
    exclude_source: bool
    conditions: dict[str, ConditionScores]
    differences: dict[str, PairedDifference]
    gold_recall: float
    gold_recall_ci95: Interval
    excluded_passages: int
    by_found: dict[str, FoundGroup]
    no_evidence: NoEvidence | None
