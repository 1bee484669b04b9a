"""Calibration of the label probabilities: does a confidence of 80% mean right four times in five?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medqlora.evaluation.metrics.enough import too_few
from medqlora.evaluation.report_data import Calibration, CalibrationBin
from medqlora.evaluation.statistics.intervals import wilson_interval
from medqlora.records import Prediction

#: bins of equal width between 0 and 1
BINS = 15
#: bounds of a fitted temperature
TEMPERATURES = (0.05, 20.0)

Array = NDArray[np.float64]


def log_probabilities(prediction: Prediction, temperature: float = 1.0) -> Array:
    """log softmax(logprobs / temperature), shape (labels,), in nats."""
    scaled = np.asarray(prediction.logprobs, dtype=np.float64) / temperature
    shifted = scaled - scaled.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def top_probability(prediction: Prediction, temperature: float = 1.0) -> float:
    """The largest probability among the labels at this temperature, 0 to 1."""
    return min(1.0, float(np.exp(log_probabilities(prediction, temperature).max())))


def reliability(confidence: Sequence[float], right: Sequence[bool]) -> list[CalibrationBin]:
    """The `BINS` bins with their count, mean confidence, accuracy and Wilson interval (None where empty).

    A bin holds low <= confidence < high, as in torchmetrics; 1.0 belongs to the last.
    """
    edges = np.linspace(0.0, 1.0, BINS + 1)
    values, hits = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    index = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BINS - 1)
    bins: list[CalibrationBin] = []
    for number in range(BINS):
        inside = index == number
        count, right_count = int(inside.sum()), int(hits[inside].sum())
        bins.append(
            {
                "low": float(edges[number]),
                "high": float(edges[number + 1]),
                "n": count,
                "confidence": float(values[inside].mean()) if count else None,
                "accuracy": right_count / count if count else None,
                "accuracy_ci95": list(wilson_interval(right_count, count)) if count else None,
            }
        )
    return bins


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Σ (n_bin / n) · |accuracy - mean confidence| over the bins of `reliability`, 0 to 1.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    gaps = [
        one["n"] * abs(one["accuracy"] - one["confidence"])
        for one in bins
        if one["accuracy"] is not None and one["confidence"] is not None
    ]
    return float(sum(gaps) / sum(one["n"] for one in bins))


def brier_score(predictions: Sequence[Prediction], temperature: float = 1.0) -> float:
    """Mean over questions of Σ over labels of (p - [label is gold])², 0 to 2 (Brier 1950, multi-class)."""
    total = 0.0
    for prediction in predictions:
        p = np.exp(log_probabilities(prediction, temperature))
        truth = np.array([label == prediction.gold for label in prediction.labels], dtype=np.float64)
        total += float(((p - truth) ** 2).sum())
    return total / len(predictions)


def negative_log_likelihood(predictions: Sequence[Prediction], temperature: float = 1.0) -> float:
    """Mean of -log p(gold) in nats, p being the distribution over the labels alone; >= 0."""
    losses = (
        log_probabilities(prediction, temperature)[prediction.labels.index(str(prediction.gold))]
        for prediction in predictions
    )
    return float(-sum(losses) / len(predictions)) + 0.0  # + 0.0: no "-0.0" in the report


def calibration(predictions: Sequence[Prediction], temperature: float = 1.0) -> Calibration:
    """`ece` (15 equal-width bins of the decision's confidence), `brier`, `nll` and the bins."""
    confidence = [top_probability(prediction, temperature) for prediction in predictions]
    right = [prediction.decision == prediction.gold for prediction in predictions]
    bins = reliability(confidence, right)
    return {
        "ece": expected_calibration_error(bins),
        "brier": brier_score(predictions, temperature),
        "nll": negative_log_likelihood(predictions, temperature),
        "bins": bins,
    }


def fit_temperature(dev: Sequence[Prediction]) -> float:
    """The temperature T for which softmax(logprobs / T) has the smallest NLL on `dev`.

    Takes validation predictions only: a temperature fitted on the test set calibrates nothing. The NLL is
    convex in 1/T, so a bounded scalar search finds the minimum. Where it lies outside `TEMPERATURES` (all
    right, or worse than chance) the bound is returned.

    Raises:
        ValueError: `dev` is empty or has questions without gold or label scores.
    """
    if not dev or any(not one.logprobs or one.gold not in one.labels for one in dev):
        raise ValueError("a temperature needs dev predictions with gold labels and label log-likelihoods")
    from scipy.optimize import minimize_scalar

    low, high = TEMPERATURES
    minimum = minimize_scalar(
        lambda inverse: negative_log_likelihood(dev, 1 / inverse),
        bounds=(1 / high, 1 / low),
        method="bounded",
        options={"xatol": 1e-6},
    )
    # the search never evaluates the bounds themselves
    return min((1 / float(minimum.x), low, high), key=lambda t: negative_log_likelihood(dev, t))


class SupportedTemperature(NamedTuple):
    """The temperature that validation questions support.

    Attributes:
        value: divides the label log-likelihoods; 1 leaves the confidence as the model gives it.
        why_not_fitted: why it stays 1, as a clause; None where it was fitted.
    """

    value: float
    why_not_fitted: str | None


def supported_temperature(dev: Sequence[Prediction]) -> SupportedTemperature:
    """The one temperature of a set of validation questions: an adapter's record, its card and every report have it.

    `fit_temperature`'s, except that it stays 1 with too few questions (`enough.FEWEST`), with a single class, or
    without a wrong decision: the likelihood then grows without end as the temperature falls, and the bound would claim
    certainty.

    Raises:
        ValueError: as `fit_temperature`.
    """
    why = too_few(len(dev), len({one.gold for one in dev}))
    if why is None and all(one.decision == one.gold for one in dev):
        why = f"all {len(dev)} validation questions were decided rightly"
    return SupportedTemperature(fit_temperature(dev) if why is None else 1.0, why)
