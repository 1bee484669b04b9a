"""What retrieved contexts change: accuracy against the question alone and the question's own contexts."""

from collections.abc import Mapping, Sequence

import numpy as np

from medqlora.data.question_set import Evidence
from medqlora.evaluation.metrics.blocks import decision_of
from medqlora.evaluation.retrieval_data import (
    ConditionScores,
    FoundGroup,
    NoEvidence,
    PairedDifference,
    RetrievalBlock,
)
from medqlora.evaluation.statistics.intervals import accuracy, confusion_counts, macro_f1, wilson_interval
from medqlora.evaluation.statistics.paired import mcnemar_exact, paired_difference_interval
from medqlora.records import Prediction

#: the condition that is tested
RETRIEVED = "retrieved_context"


def retrieval_block(
    predictions: Sequence[Prediction],
    conditions: Mapping[str, Sequence[Prediction]],
    evidence: Mapping[str, Evidence],
    dev: Sequence[Evidence],
    settings: Mapping[str, object],
) -> RetrievalBlock:
    """The `retrieval` of the report.

    Args:
        predictions: with retrieved contexts, one a question with a known answer.
        conditions: the same questions put in other ways, in any order.
        evidence: id → what was retrieved.
        dev: what was retrieved for validation questions, to fit the threshold.
        settings: of the retrieval.

    Raises:
        ValueError: the questions of a condition are others, or there are none.
    """
    labels = tuple(dict.fromkeys(label for one in predictions for label in one.labels))
    gold = [str(one.gold) for one in predictions]
    decided = {RETRIEVED: _decisions(predictions)}
    for name, answers in conditions.items():
        by_id = {one.id: one for one in answers}
        if by_id.keys() != {one.id for one in predictions}:
            raise ValueError(f"{name}: not the same questions")
        decided[name] = _decisions([by_id[one.id] for one in predictions])
    right = {
        name: np.array([one == answer for one, answer in zip(made, gold, strict=True)])
        for name, made in decided.items()
    }
    found = np.array([evidence[one.id].found for one in predictions])
    return {
        "settings": settings,
        "exclude_source": bool(settings.get("exclude_source", True)),
        "conditions": {name: _scores(gold, made, labels) for name, made in decided.items()},
        "differences": {
            name: _difference(right[RETRIEVED], right[name]) for name in decided if name != RETRIEVED
        },
        "gold_recall": float(found.mean()),
        "gold_recall_ci95": list(wilson_interval(int(found.sum()), len(found))),
        "excluded_passages": sum(evidence[one.id].excluded for one in predictions),
        "by_found": {
            "found": _group(right[RETRIEVED], found),
            "not_found": _group(right[RETRIEVED], ~found),
        },
        "no_evidence": _no_evidence(predictions, evidence, dev, right[RETRIEVED]),
    }


def fit_threshold(evidence: Sequence[Evidence]) -> float | None:
    """The coverage that best separates a question's own article from the best other passage.

    Of the values seen, the smallest that maximises Youden's J = sensitivity + specificity - 1
    (https://doi.org/10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3); None without both kinds.
    """
    own = np.array([one.found_coverage for one in evidence if one.found_coverage is not None])
    other = np.array([one.other_coverage for one in evidence if one.other_coverage is not None])
    if not len(own) or not len(other):
        return None
    values = np.unique(np.concatenate([own, other]))
    gains = [float((own >= value).mean() + (other < value).mean()) for value in values]
    best = max(gains)
    return float(min(value for value, gain in zip(values, gains, strict=True) if gain >= best - 1e-12))


def _decisions(predictions: Sequence[Prediction]) -> list[str | None]:
    return [decision_of(one, bool(one.logprobs)) for one in predictions]


def _scores(gold: Sequence[str], made: Sequence[str | None], labels: Sequence[str]) -> ConditionScores:
    counts = confusion_counts(gold, made, labels)
    right = sum(one == answer for one, answer in zip(made, gold, strict=True))
    return {
        "accuracy": accuracy(counts),
        "accuracy_ci95": list(wilson_interval(right, len(gold))),
        "macro_f1": float(macro_f1(counts)),
        "unparsed": int(counts[:, -1].sum()),
    }


def _difference(first: "np.ndarray", second: "np.ndarray") -> PairedDifference:
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    return {
        "difference": (only_first - only_second) / len(first),
        "difference_ci95": list(paired_difference_interval(both, only_first, only_second, neither)),
        "mcnemar_p": mcnemar_exact(only_first, only_second),
        "only_retrieved_right": only_first,
        "only_other_right": only_second,
    }


def _group(right: "np.ndarray", chosen: "np.ndarray") -> FoundGroup:
    n = int(chosen.sum())
    hits = int((right & chosen).sum())
    return {
        "n": n,
        "accuracy": hits / n if n else None,
        "accuracy_ci95": list(wilson_interval(hits, n)) if n else None,
    }


def _no_evidence(
    predictions: Sequence[Prediction],
    evidence: Mapping[str, Evidence],
    dev: Sequence[Evidence],
    right: "np.ndarray",
) -> NoEvidence | None:
    threshold = fit_threshold(dev)
    if threshold is None:
        return None
    below = np.array([evidence[one.id].coverage < threshold for one in predictions])
    return {
        "threshold": threshold,
        "fitted_on": len(dev),
        "below": _group(right, below),
        "above": _group(right, ~below),
    }
