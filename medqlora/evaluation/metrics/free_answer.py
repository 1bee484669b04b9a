"""Free answers: token F1, ROUGE-L and exact match compare the wording of texts."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medqlora.evaluation.metrics.rouge import rouge_l
from medqlora.evaluation.metrics.token_f1 import token_f1
from medqlora.evaluation.report_data import AnswerLine, BaseScores, Report, TextScores
from medqlora.evaluation.statistics.intervals import RESAMPLES, percentile_interval, wilson_interval
from medqlora.evaluation.statistics.paired import mcnemar_exact, paired_difference_interval
from medqlora.records import Prediction

_NOTE = (
    "free answers: overlap of wording with the reference (token F1, ROUGE-L) and exact match; none of them judges "
    "what is said"
)
_INTERVALS = (
    f"95%: Wilson for exact match, percentile bootstrap over questions ({RESAMPLES:,} draws) for token F1 and "
    "ROUGE-L; model and base drawn together"
)


def exactly_matches(text: str, answer: str) -> bool:
    """Whether both have the same words, regardless of case and punctuation."""
    words, reference = (re.findall(r"\w+", part.casefold()) for part in (text, answer))
    return words == reference if reference else text.strip() == answer.strip()


def answer_scores(prediction: Prediction) -> AnswerLine:
    """Token F1, ROUGE-L and exact match of one generated answer."""
    text, reference = prediction.text or "", str(prediction.gold)
    return {
        "token_f1": token_f1(text, reference),
        "rouge_l": rouge_l(text, reference),
        "exact_match": exactly_matches(text, reference),
    }


def free_answer_scores(
    predictions: Sequence[Prediction], base: Sequence[Prediction] | None, seed: int = 0
) -> Report:
    """The report of free answers: exact match as accuracy, and overlap of wording.

    None of these says whether an answer is right: a correct answer in other words counts as wrong, and a text
    that differs by one "not" scores high. The report says so.

    Args:
        predictions: one a question.
        base: the base model's predictions, in the same order.
        seed: of the bootstrap.

    Raises:
        ValueError: nothing was generated.
    """
    overlaps = _overlaps(predictions)
    scores = _block(predictions, overlaps, seed)
    base_block: BaseScores | None = None
    if base is not None:
        base_overlaps = _overlaps(base)
        base_scores = _block(base, base_overlaps, seed)
        pairs = list(zip(_matches(predictions), _matches(base), strict=True))
        cells = ((True, True), (True, False), (False, True), (False, False))
        both, only_first, only_second, neither = (pairs.count(cell) for cell in cells)
        base_block = {
            **base_scores,
            "difference": scores["accuracy"] - base_scores["accuracy"],
            "difference_ci95": list(paired_difference_interval(both, only_first, only_second, neither)),
            "mcnemar_p": mcnemar_exact(only_first, only_second),
            "token_f1_difference": scores["token_f1"] - base_scores["token_f1"],
            "token_f1_difference_ci95": mean_interval(overlaps[:, 0] - base_overlaps[:, 0], seed),
        }
    return {
        **scores,
        "decided_by": "exact_match",
        "base": base_block,
        "mcnemar_p": base_block["mcnemar_p"] if base_block else None,
        "by_topic": [],
        "exact_match": scores["accuracy"],
        "exact_match_ci95": scores["accuracy_ci95"],
        "intervals": _INTERVALS,
        "note": _NOTE,
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
    scores = [answer_scores(prediction) for prediction in predictions]
    return np.array([(row["token_f1"], row["rouge_l"]) for row in scores])


def _matches(predictions: Sequence[Prediction]) -> list[bool]:
    return [exactly_matches(one.text or "", str(one.gold)) for one in predictions]


def _block(predictions: Sequence[Prediction], overlaps: NDArray[np.float64], seed: int) -> TextScores:
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
