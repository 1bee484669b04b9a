"""Selective prediction: the error rate on the answered questions when the least confident are declined."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medqlora.evaluation.report_data import Selective


def risks(confidence: Sequence[float], right: Sequence[bool]) -> NDArray[np.float64]:
    """The risk (share of wrong decisions) among the k most confident questions, for k = 1…n; shape (n,).

    Questions of equal confidence have no order, and any chosen order would bias the risk. Within a tie the
    errors are therefore spread evenly: the expected risk over the tie's orders.

    Raises:
        ValueError: there are no questions, or the lengths differ.
    """
    if not len(confidence) or len(confidence) != len(right):
        raise ValueError(f"{len(confidence)} confidences and {len(right)} results: need as many, and some")
    values = np.asarray(confidence, dtype=np.float64)
    wrong = 1.0 - np.asarray(right, dtype=np.float64)
    _, tie, size = np.unique(-values, return_inverse=True, return_counts=True)
    mean = np.bincount(tie, weights=wrong) / size
    return np.asarray(np.cumsum(mean[np.sort(tie)]) / np.arange(1, len(values) + 1))


def selective(confidence: Sequence[float], right: Sequence[bool], coverage: float = 0.8) -> Selective:
    """`aurc`, the accuracy on the most confident `coverage` of the questions, and the curve.

    AURC is the mean of `risks` over the coverages 1/n…n/n, 0 to 1, lower is better (Geifman & El-Yaniv 2017,
    https://arxiv.org/abs/1705.08500). An uninformative confidence gives the error rate. The smallest value depends on
    the accuracy, so compare models with care.

    Returns:
        `aurc`; `coverage`, `answered` = ⌈coverage·n⌉ questions, `accuracy_at_coverage`,
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
