"""Several question sets asked of one model: the average over them, and what several comparisons cost."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medqlora.evaluation.metrics.blocks import decision_of
from medqlora.evaluation.metrics.checks import in_order_of
from medqlora.evaluation.metrics.free_answer import exactly_matches
from medqlora.evaluation.metrics.scores import Scores, decided
from medqlora.evaluation.statistics.intervals import RESAMPLES, percentile_interval
from medqlora.records import Prediction, Record

INTERVALS = (
    f"95%: percentile bootstrap over questions ({RESAMPLES:,} draws), within each set and each set keeping its "
    "size; model and base drawn together. It says nothing of other question sets"
)
HOLM = "p of the exact McNemar test against the bare base, adjusted for the number of sets by Holm 1979"


class Tested(NamedTuple):
    """One question set and what came of it.

    Attributes:
        name: of the set; no two of a suite share one.
        scores: `score` of what follows.
        predictions: one a question.
        records: the questions.
        base: the bare base's predictions, if compared.
    """

    name: str
    scores: Scores
    predictions: Sequence[Prediction]
    records: Sequence[Record]
    base: Sequence[Prediction] | None


# pytest takes a class of this name for tests, wherever one imports it
Tested.__test__ = False  # type: ignore[attr-defined]


def suite_scores(tested: Sequence[Tested]) -> dict[str, Any]:
    """The `suite` of `test_report.json`.

    Returns:
        `macro_average` (`accuracy`, `accuracy_ci95`, `base_accuracy`, `difference`, `difference_ci95`: 0 to
        1 or -1 to 1, each set counting the same; the last three None unless each set has a base), `n` (all
        questions), `intervals`, `mcnemar_p_holm` (set → p, for the sets with a base), `holm` and `sets`
        (name → that set's report).

    Raises:
        ValueError: fewer than two sets, or two of one name.
    """
    names = [one.name for one in tested]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"a suite takes two or more sets of different names, not {names}")
    return {
        "macro_average": _macro_average(tested),
        "n": sum(one.scores.n for one in tested),
        "intervals": INTERVALS,
        "mcnemar_p_holm": holm(
            {one.name: one.scores.mcnemar_p for one in tested if one.scores.mcnemar_p is not None}
        ),
        "holm": HOLM,
        "sets": {one.name: one.scores.to_json() for one in tested},
    }


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Each p adjusted so that the chance of any false claim stays below the level (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, is never below the one before it, and never above 1
    (https://www.jstor.org/stable/4615733).
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p, key=lambda one: p[one])):
        highest = max(highest, min(1.0, (len(p) - place) * p[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p}


def outcomes(one: Tested) -> list[tuple[bool, bool]]:
    """For each question, whether the model is right and whether the base is; without a base, never."""
    scores = one.scores
    mine = _right(scores, one.predictions, scores.more.get("prior"))
    if one.base is None:
        return [(right, False) for right in mine]
    base = in_order_of(one.predictions, one.base)
    return list(zip(mine, _right(scores, base, scores.more.get("base_prior")), strict=True))


def _right(scores: Scores, predictions: Sequence[Prediction], prior: Any) -> list[bool]:
    if scores.decided_by == "exact_match":
        return [exactly_matches(one.text or "", str(one.gold)) for one in predictions]
    compared = decided(predictions, scores.more["normalisation"], prior)
    return [decision_of(one, scores.decided_by == "likelihood") == one.gold for one in compared]


def _macro_average(tested: Sequence[Tested]) -> dict[str, Any]:
    rng = np.random.default_rng(tested[0].scores.seed)
    mine, base = [], []
    for one in tested:
        pairs = outcomes(one)
        cells = [(True, True), (True, False), (False, True), (False, False)]
        shares = [pairs.count(cell) / len(pairs) for cell in cells]
        # drawing n questions with replacement and counting them is one multinomial draw of n over the cells
        drawn = rng.multinomial(len(pairs), shares, size=RESAMPLES) / len(pairs)
        mine.append(drawn[:, 0] + drawn[:, 1])
        base.append(drawn[:, 0] + drawn[:, 2])
    model_draws, base_draws = np.mean(mine, axis=0), np.mean(base, axis=0)
    average: dict[str, Any] = {
        "accuracy": _mean([one.scores.accuracy for one in tested]),
        "accuracy_ci95": list(percentile_interval(model_draws)),
        **dict.fromkeys(("base_accuracy", "difference", "difference_ci95")),
    }
    compared = [one.scores.base for one in tested if one.scores.base]
    if len(compared) == len(tested):
        average["base_accuracy"] = _mean([block["accuracy"] for block in compared])
        average["difference"] = _mean([block["difference"] for block in compared])
        average["difference_ci95"] = list(percentile_interval(model_draws - base_draws))
    return average


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
