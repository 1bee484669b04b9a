"""Several question sets of one model: the macro average, and p values adjusted for several comparisons."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from medqlora.evaluation.metrics.blocks import decision_of
from medqlora.evaluation.metrics.checks import in_order_of
from medqlora.evaluation.metrics.free_answer import exactly_matches
from medqlora.evaluation.metrics.scores import Scores, decided
from medqlora.evaluation.report_data import MacroAverage, Prior, Suite
from medqlora.evaluation.statistics.intervals import RESAMPLES, percentile_interval
from medqlora.evaluation.verification import Verification
from medqlora.records import Prediction, Record

INTERVALS = (
    f"95%: percentile bootstrap over questions ({RESAMPLES:,} draws), within each set and each set keeping its "
    "size; model and base drawn together. It says nothing of other question sets"
)
HOLM = "p of the exact McNemar test against the bare base, adjusted for the number of sets by Holm 1979"


class Tested(NamedTuple):
    """One question set with its predictions and scores.

    Attributes:
        name: of the set; no two of a suite share one.
        scores: `score` of what follows.
        predictions: one a question.
        records: the questions.
        base: the base model's predictions, if compared.
        live: of an exported model, the comparison with the live adapter.
    """

    name: str
    scores: Scores
    predictions: Sequence[Prediction]
    records: Sequence[Record]
    base: Sequence[Prediction] | None
    live: Verification | None = None


# pytest would collect a class of this name as tests
Tested.__test__ = False  # type: ignore[attr-defined]


def suite_scores(tested: Sequence[Tested]) -> Suite:
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
    for rank, name in enumerate(sorted(p, key=lambda key: p[key])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p}


def outcomes(one: Tested) -> list[tuple[bool, bool]]:
    """For each question, whether the model and the base model are right; without a base model, it never is."""
    scores = one.scores
    mine = _right(scores, one.predictions, scores.more.get("prior"))
    if one.base is None:
        return [(right, False) for right in mine]
    base = in_order_of(one.predictions, one.base)
    return list(zip(mine, _right(scores, base, scores.more.get("base_prior")), strict=True))


def _right(scores: Scores, predictions: Sequence[Prediction], prior: Prior | None) -> list[bool]:
    if scores.decided_by == "exact_match":
        return [exactly_matches(one.text or "", str(one.gold)) for one in predictions]
    compared = decided(predictions, scores.more["normalisation"], prior)
    return [decision_of(one, scores.decided_by == "likelihood") == one.gold for one in compared]


def _macro_average(tested: Sequence[Tested]) -> MacroAverage:
    rng = np.random.default_rng(tested[0].scores.seed)
    draws, base_draws = [], []
    for one in tested:
        pairs = outcomes(one)
        cells = [(True, True), (True, False), (False, True), (False, False)]
        shares = [pairs.count(cell) / len(pairs) for cell in cells]
        # drawing n questions with replacement and counting them is one multinomial draw of n over the cells
        drawn = rng.multinomial(len(pairs), shares, size=RESAMPLES) / len(pairs)
        draws.append(drawn[:, 0] + drawn[:, 1])
        base_draws.append(drawn[:, 0] + drawn[:, 2])
    model_mean, base_mean = np.mean(draws, axis=0), np.mean(base_draws, axis=0)
    compared = [one.scores.base for one in tested if one.scores.base]
    every = len(compared) == len(tested)
    return {
        "accuracy": _mean([one.scores.accuracy for one in tested]),
        "accuracy_ci95": list(percentile_interval(model_mean)),
        "base_accuracy": _mean([base["accuracy"] for base in compared]) if every else None,
        "difference": _mean([base["difference"] for base in compared]) if every else None,
        "difference_ci95": list(percentile_interval(model_mean - base_mean)) if every else None,
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
