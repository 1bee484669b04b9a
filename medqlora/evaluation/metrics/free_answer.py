"""Questions without labels: the answer is a text, and only its wording can be compared."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medqlora.evaluation.metrics.rouge import rouge_l
from medqlora.evaluation.metrics.token_f1 import token_f1
from medqlora.evaluation.statistics.intervals import RESAMPLES, percentile_interval, wilson_interval
from medqlora.records import Prediction, Record

_NOTE = (
    "free answers: overlap of wording with the reference (token F1, ROUGE-L) and exact match; none of them judges "
    "what is said"
)
_INTERVALS = (
    f"95%: Wilson for exact match, percentile bootstrap over questions ({RESAMPLES:,} draws) for token F1 and "
    "ROUGE-L; model and base drawn together"
)


def exactly_matches(text: str, answer: str) -> bool:
    """Whether both have the same letters and digits in the same words, in any case."""
    said, meant = (re.findall(r"\w+", one.casefold()) for one in (text, answer))
    return said == meant if meant else text.strip() == answer.strip()


def answer_scores(prediction: Prediction) -> dict[str, float | bool]:
    """Token F1, ROUGE-L and exact match of one generated answer."""
    said, meant = prediction.text or "", str(prediction.gold)
    return {
        "token_f1": token_f1(said, meant),
        "rouge_l": rouge_l(said, meant),
        "exact_match": exactly_matches(said, meant),
    }


def free_answer_scores(
    predictions: Sequence[Prediction],
    records: Sequence[Record] | None,
    base: Sequence[Prediction] | None,
    seed: int = 0,
) -> dict[str, Any]:
    """The fields of `Scores` for free answers: exact match as accuracy, overlap of wording in `more`, the rest None.

    None of these says whether an answer is right: another wording of a right answer counts as wrong, and a text
    that differs by one "not" is nearly alike. The report says so.

    Args:
        predictions: one a question.
        records: the questions.
        base: the bare base's predictions, in the same order.
        seed: of the bootstrap.

    Raises:
        ValueError: nothing was generated.
    """
    overlaps = _overlaps(predictions)
    block = _block(predictions, overlaps, seed)
    base_block = None
    if base is not None:
        from medqlora.evaluation.statistics.paired import mcnemar_exact, paired_difference_interval

        base_overlaps = _overlaps(base)
        base_block = _block(base, base_overlaps, seed)
        pairs = list(zip(_matches(predictions), _matches(base), strict=True))
        counts = [pairs.count(one) for one in ((True, True), (True, False), (False, True), (False, False))]
        base_block["difference"] = block["accuracy"] - base_block["accuracy"]
        base_block["difference_ci95"] = list(paired_difference_interval(*counts))
        base_block["mcnemar_p"] = mcnemar_exact(counts[1], counts[2])
        base_block["token_f1_difference"] = block["token_f1"] - base_block["token_f1"]
        base_block["token_f1_difference_ci95"] = mean_interval(overlaps[:, 0] - base_overlaps[:, 0], seed)
    overlap = {key: block.pop(key) for key in ("token_f1", "token_f1_ci95", "rouge_l", "rouge_l_ci95")}
    topics: list[dict[str, Any]] = []
    unknown = (
        "macro_f1 macro_f1_ci95 per_class confusion_matrix ece brier nll aurc majority_accuracy human_accuracy "
        "unparsed_fraction"
    )
    return {
        **block,
        **dict.fromkeys(unknown.split()),
        "decided_by": "exact_match",
        "base": base_block,
        "mcnemar_p": None if base_block is None else base_block["mcnemar_p"],
        "by_topic": topics,
        "more": {
            **overlap,
            "exact_match": block["accuracy"],
            "exact_match_ci95": block["accuracy_ci95"],
            "intervals": _INTERVALS,
            "note": _NOTE,
        },
    }


def quick_free_answer_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
    """`accuracy` (exact match), `token_f1` and `rouge_l`, without intervals; for a validation."""
    overlaps = _overlaps(predictions).mean(axis=0)
    exact = sum(_matches(predictions)) / len(predictions)
    return {"accuracy": exact, "token_f1": float(overlaps[0]), "rouge_l": float(overlaps[1])}


def mean_interval(values: NDArray[np.float64], seed: int, resamples: int = RESAMPLES) -> list[float]:
    """Percentile bootstrap (Efron 1979) of the mean over questions, 95%; the same seed draws the same questions.

    Args:
        values: one a question, shape (n,).
        seed: of the draws.
        resamples: how many draws of n questions with replacement.
    """
    rng = np.random.default_rng(seed)
    n = len(values)
    # a draw at a time: all of them at once would take resamples × n integers
    draws = np.array([values[rng.integers(n, size=n)].mean() for _ in range(resamples)])
    return list(percentile_interval(draws))


def _overlaps(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Token F1 and ROUGE-L of each answer, shape (n, 2)."""
    if predictions[0].text is None:
        raise ValueError("free answers can only be scored by generating them: nothing was generated")
    pairs = [(one.text or "", str(one.gold)) for one in predictions]
    return np.array([(token_f1(said, meant), rouge_l(said, meant)) for said, meant in pairs])


def _matches(predictions: Sequence[Prediction]) -> list[bool]:
    return [exactly_matches(one.text or "", str(one.gold)) for one in predictions]


def _block(predictions: Sequence[Prediction], overlaps: NDArray[np.float64], seed: int) -> dict[str, Any]:
    matches, n = sum(_matches(predictions)), len(predictions)
    return {
        "n": n,
        "accuracy": matches / n,
        "accuracy_ci95": list(wilson_interval(matches, n)),
        "token_f1": float(overlaps[:, 0].mean()),
        "token_f1_ci95": mean_interval(overlaps[:, 0], seed),
        "rouge_l": float(overlaps[:, 1].mean()),
        "rouge_l_ci95": mean_interval(overlaps[:, 1], seed),
    }
