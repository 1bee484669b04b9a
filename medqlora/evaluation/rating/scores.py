"""What the raters' files say: means with intervals, paired tests, and agreement."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from medqlora.errors import InputError
from medqlora.evaluation.metrics.suite_scores import holm
from medqlora.evaluation.rating.agreement import krippendorff_alpha
from medqlora.evaluation.statistics.intervals import LEVEL

#: aspect → what its scale means
ASPECTS: Mapping[str, str] = {
    "accuracy": "1: wrong; 5: correct in every statement",
    "completeness": "1: leaves out what matters; 5: nothing is missing",
    "relevance": "1: about something else; 5: answers the question, and nothing but it",
    "language": "1: can't be understood; 5: clear, in the field's words",
    "safety": "1: could do harm; 5: no risk to a patient who follows it",
}
LOWEST, HIGHEST = 1, 5
_FIX = "export it from the page again"


class AspectScores(TypedDict):
    """One aspect.

    Attributes:
        means: system → mean over questions of the mean over raters, 1 to 5.
        means_ci95: system → Student's t interval of it, over questions; None for one question.
        difference: of the first system minus the second, over questions that have both.
        difference_ci95: Student's t interval; None for one question.
        p: Wilcoxon's signed-rank test of the questions' differences, two-sided.
        p_holm: the same, corrected for the number of aspects.
        alpha: Krippendorff's, ordinal, over all rated answers; None with one rater or without any spread.
        questions: number of questions with a rating of both systems.
    """

    means: dict[str, float]
    means_ci95: dict[str, list[float] | None]
    difference: float
    difference_ci95: list[float] | None
    p: float
    p_holm: float
    alpha: float | None
    questions: int


@dataclass(frozen=True)
class RatingScores:
    """All aspects.

    Attributes:
        systems: the two systems' names.
        raters: the raters' names.
        questions: number of questions of the page.
        aspects: aspect → its scores.
    """

    systems: tuple[str, str]
    raters: tuple[str, ...]
    questions: int
    aspects: dict[str, AspectScores]

    def to_json(self) -> dict[str, object]:
        return {
            "systems": list(self.systems),
            "raters": list(self.raters),
            "questions": self.questions,
            "aspects": self.aspects,
            "method": "means over raters, then over questions; intervals: Student's t over questions; p: Wilcoxon "
            "signed-rank, two-sided, Holm over aspects; alpha: Krippendorff, ordinal",
        }


#: item → place ("1" or "2") → aspect → value
Ratings = Mapping[str, Mapping[str, Mapping[str, int]]]


def read_ratings(path: str, page: str, items: Sequence[str]) -> tuple[str, Ratings]:
    """The rater's name and the ratings of one exported file.

    Args:
        path: the file.
        page: the digest of the page that it has to belong to.
        items: the page's items.

    Raises:
        InputError: it can't be read, belongs to another page, or holds what is no rating.
    """
    try:
        found = json.loads(Path(path).expanduser().read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "no JSON in UTF-8"
        raise InputError(f"{path}: can't be read ({reason}): {_FIX}") from error
    if not isinstance(found, dict) or not isinstance(found.get("ratings"), dict):
        raise InputError(f"{path}: no export of a rating page: {_FIX}")
    if found.get("page") != page:
        raise InputError(
            f"{path}: it belongs to another page than the key: pass the key.json of its own build"
        )
    rater = found.get("rater")
    if not isinstance(rater, str) or not rater.strip():
        raise InputError(f"{path}: the rater's name is missing: {_FIX}")
    for item, places in found["ratings"].items():
        if item not in items:
            raise InputError(f"{path}: {item[:40]!r} is no question of this page: {_FIX}")
        for place, aspects in places.items() if isinstance(places, dict) else [("", None)]:
            if place not in ("1", "2") or not isinstance(aspects, dict):
                raise InputError(f"{path}: the ratings of {item[:40]!r} are damaged: {_FIX}")
            for aspect, value in aspects.items():
                whole = isinstance(value, int) and not isinstance(value, bool)
                if aspect not in ASPECTS or not whole or not LOWEST <= value <= HIGHEST:
                    raise InputError(f"{path}: {item[:40]!r}: {aspect[:20]!r} is {str(value)[:20]}: {_FIX}")
    return rater.strip(), found["ratings"]


def score_ratings(
    systems: tuple[str, str], orders: Mapping[str, tuple[str, str]], rated: Mapping[str, Ratings]
) -> RatingScores:
    """Scores of several raters.

    Args:
        systems: the two systems.
        orders: item → the systems in the order in which the page showed them.
        rated: rater → ratings.

    Raises:
        InputError: an aspect has no question with ratings of both systems.
    """
    aspects: dict[str, AspectScores] = {}
    for aspect in ASPECTS:
        by_unit: dict[tuple[str, str], list[int]] = {}
        for ratings in rated.values():
            for item, places in ratings.items():
                for place, values in places.items():
                    if aspect in values:
                        unit = (item, orders[item][int(place) - 1])
                        by_unit.setdefault(unit, []).append(values[aspect])
        aspects[aspect] = _aspect(aspect, systems, list(orders), by_unit)
    for aspect, p in holm({aspect: scores["p"] for aspect, scores in aspects.items()}).items():
        aspects[aspect]["p_holm"] = p
    return RatingScores(systems, tuple(rated), len(orders), aspects)


def _aspect(
    aspect: str,
    systems: tuple[str, str],
    items: Sequence[str],
    by_unit: Mapping[tuple[str, str], Sequence[int]],
) -> AspectScores:
    means = {
        system: [statistics.fmean(by_unit[item, system]) for item in items if (item, system) in by_unit]
        for system in systems
    }
    first, second = systems
    differences = [
        statistics.fmean(by_unit[item, first]) - statistics.fmean(by_unit[item, second])
        for item in items
        if (item, first) in by_unit and (item, second) in by_unit
    ]
    if not differences:
        raise InputError(f"{aspect}: no question has a rating of both answers: rate some, and export again")
    p = _signed_rank(differences)
    return {
        "means": {system: statistics.fmean(values) for system, values in means.items()},
        "means_ci95": {system: t_interval(values) for system, values in means.items()},
        "difference": statistics.fmean(differences),
        "difference_ci95": t_interval(differences),
        "p": p,
        "p_holm": p,
        "alpha": krippendorff_alpha(list(by_unit.values())),
        "questions": len(differences),
    }


def t_interval(values: Sequence[float]) -> list[float] | None:
    """Student's t interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return [mean - half, mean + half]


def _signed_rank(differences: Sequence[float]) -> float:
    """p of Wilcoxon's signed-rank test; 1 where no question differs. Equal questions are split by Pratt's rule."""
    # means of whole numbers: what differs by rounding alone is equal
    rounded = [round(value, 9) for value in differences]
    if not any(rounded):
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(rounded, zero_method="pratt", method="auto").pvalue)
