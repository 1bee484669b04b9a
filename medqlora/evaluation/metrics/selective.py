"""If the model may decline the questions it is least sure of, how often is it wrong on the rest?"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def risks(confidence: Sequence[float], right: Sequence[bool]) -> NDArray[np.float64]:
    """The risk (share of wrong decisions) among the k most confident items, for k = 1…n; shape (n,).

    Items of equal confidence have no order. Any that were chosen would flatter or hurt, so within a tie
    the errors are spread evenly: the expected risk over the tie's orders.

    Raises:
        ValueError: there are no items, or the lengths differ.
    """
    if not len(confidence) or len(confidence) != len(right):
        raise ValueError(f"{len(confidence)} confidences and {len(right)} results: need as many, and some")
    values = np.asarray(confidence, dtype=np.float64)
    wrong = 1.0 - np.asarray(right, dtype=np.float64)
    _, tie, size = np.unique(-values, return_inverse=True, return_counts=True)
    spread = np.bincount(tie, weights=wrong) / size
    return np.asarray(np.cumsum(spread[np.sort(tie)]) / np.arange(1, len(values) + 1))


def area_under_risk_coverage(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """AURC: the mean of `risks` over the coverages 1/n…n/n, 0 to 1, lower is better.

    Geifman & El-Yaniv 2017, https://arxiv.org/abs/1705.08500. A confidence that says nothing gives the
    error rate; its smallest value depends on the accuracy, so compare it between models with care.
    """
    return float(risks(confidence, right).mean())


def selective(confidence: Sequence[float], right: Sequence[bool], coverage: float = 0.8) -> dict[str, Any]:
    """`aurc`, the accuracy on the most confident `coverage` of the items, and the curve.

    Returns:
        `aurc`; `coverage`, `answered` = ⌈coverage·n⌉ items, `accuracy_at_coverage`,
        `confidence_at_coverage` (the least confidence that is answered); `curve` with up to 200 points
        [coverage, risk].
    """
    risk = risks(confidence, right)
    n = len(risk)
    answered = max(1, math.ceil(coverage * n - 1e-9))
    points = sorted({*np.linspace(1, n, min(n, 200)).round().astype(int).tolist()})
    return {
        "aurc": float(risk.mean()),
        "coverage": coverage,
        "answered": answered,
        "accuracy_at_coverage": float(1.0 - risk[answered - 1]),
        "confidence_at_coverage": float(sorted(confidence, reverse=True)[answered - 1]),
        "curve": [[k / n, float(risk[k - 1])] for k in points],
    }
