"""Krippendorff's alpha: agreement of raters beyond chance, with missing ratings."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Literal

Level = Literal["nominal", "ordinal", "interval"]


def krippendorff_alpha(units: Sequence[Sequence[float]], level: Level = "ordinal") -> float | None:
    """Alpha = 1 - observed / expected disagreement.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), with its coincidence matrix. The ordinal
    difference of two values is the number of ratings between them, the two halved, squared.

    Args:
        units: of each rated unit the ratings that it has, in any order; units with fewer than two count for nothing.
        level: how values differ.

    Returns:
        1 for perfect agreement, 0 for chance; None where nothing can be compared, or all ratings are equal.
    """
    paired = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in paired for value in unit})
    if len(values) < 2:
        return None
    coincidences = dict.fromkeys(product(values, values), 0.0)
    for unit in paired:
        for first, one in enumerate(unit):
            for second, two in enumerate(unit):
                if first != second:
                    coincidences[one, two] += 1 / (len(unit) - 1)
    margin = {value: math.fsum(coincidences[value, other] for other in values) for value in values}
    total = math.fsum(margin.values())
    difference = _difference(level, values, margin)
    pairs = list(product(values, values))
    observed = math.fsum(coincidences[one, two] * difference(one, two) for one, two in pairs)
    expected = math.fsum(margin[one] * margin[two] * difference(one, two) for one, two in pairs)
    return 1 - (total - 1) * observed / expected


def _difference(
    level: Level, values: Sequence[float], margin: Mapping[float, float]
) -> Callable[[float, float], float]:
    """The squared difference of two values."""

    def nominal(one: float, two: float) -> float:
        return float(one != two)

    def interval(one: float, two: float) -> float:
        return (one - two) ** 2

    def ordinal(one: float, two: float) -> float:
        low, high = min(one, two), max(one, two)
        between = math.fsum(margin[value] for value in values if low <= value <= high)
        return (between - (margin[one] + margin[two]) / 2) ** 2

    return {"nominal": nominal, "ordinal": ordinal, "interval": interval}[level]
