"""Paired comparison of two models on the same questions: difference, interval and exact McNemar test."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from medqlora.evaluation.report_data import Comparison
from medqlora.evaluation.statistics.intervals import (
    LEVEL,
    confusion_counts,
    macro_f1,
    percentile_interval,
    resampled_tables,
    wilson_interval,
)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test of the discordant pairs.

    Args:
        only_first: questions that only the first model has right.
        only_second: questions that only the second has right.

    Returns:
        p from the binomial distribution; 1 without discordant pairs (https://doi.org/10.1007/BF02295996).
    """
    if only_first + only_second == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def paired_difference_interval(
    both: int, only_first: int, only_second: int, neither: int, level: float = LEVEL
) -> tuple[float, float]:
    """Newcombe's interval of the difference of two paired proportions, first minus second.

    Method 10 of https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C: the
    square-and-add of the two Wilson intervals, with their correlation φ = (ad - bc)/√(…), whose numerator
    is moved towards 0 by n/2 where positive. Unlike Wald's it has a width even without discordant pairs.

    Raises:
        ValueError: there are no pairs.
    """
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    low_1, high_1 = wilson_interval(first, n, level)
    low_2, high_2 = wilson_interval(second, n, level)
    p_1, p_2 = first / n, second / n
    margins = first * (n - first) * second * (n - second)
    cross = both * neither - only_first * only_second
    cross_corrected = max(cross - n / 2, 0.0) if cross > 0 else float(cross)
    phi = cross_corrected / sqrt(margins) if margins else 0.0
    down_1, up_1, down_2, up_2 = p_1 - low_1, high_1 - p_1, p_2 - low_2, high_2 - p_2
    # |φ| <= 1, so neither can be negative but for rounding
    below = sqrt(max(0.0, down_1**2 - 2 * phi * down_1 * up_2 + up_2**2))
    above = sqrt(max(0.0, up_1**2 - 2 * phi * up_1 * down_2 + down_2**2))
    return max(-1.0, p_1 - p_2 - below), min(1.0, p_1 - p_2 + above)


def compare(
    gold: Sequence[str],
    first: Sequence[str | None],
    second: Sequence[str | None],
    labels: Sequence[str],
    seed: int,
) -> Comparison:
    """The paired comparison of two models' decisions on the same items in the same order.

    Returns:
        `difference` (accuracy of the first minus the second, -1 to 1), `difference_ci95` (Newcombe),
        `macro_f1_difference` and `macro_f1_difference_ci95` (percentile bootstrap over items, both models
        drawn together), `mcnemar_p`, and the four counts of pairs.

    Raises:
        ValueError: the lengths differ, there are no items, or a label is unknown.
    """
    tables = [confusion_counts(gold, decisions, labels) for decisions in (first, second)]
    triples = list(zip(gold, first, second, strict=True))
    right = [(one == answer, two == answer) for answer, one, two in triples]
    both, only_first = right.count((True, True)), right.count((True, False))
    only_second, neither = right.count((False, True)), right.count((False, False))
    n = len(right)

    index: dict[str | None, int] = {None: len(labels)}
    index.update({label: number for number, label in enumerate(labels)})
    width = len(labels) + 1
    joint = np.zeros((len(labels), width, width), dtype=np.int64)
    for answer, one, two in triples:
        joint[index[answer], index[one], index[two]] += 1
    drawn = resampled_tables(joint, seed)
    draws = macro_f1(drawn.sum(axis=3)) - macro_f1(drawn.sum(axis=2))
    return {
        "difference": (only_first - only_second) / n,
        "difference_ci95": list(paired_difference_interval(both, only_first, only_second, neither)),
        "difference_method": "Newcombe 1998, paired, method 10",
        "macro_f1_difference": float(macro_f1(tables[0]) - macro_f1(tables[1])),
        "macro_f1_difference_ci95": list(percentile_interval(draws)),
        "mcnemar_p": mcnemar_exact(only_first, only_second),
        "pairs": {
            "both_right": both,
            "only_this_right": only_first,
            "only_base_right": only_second,
            "both_wrong": neither,
        },
    }
