"""How sure the model has to be before its decision is shown as one, learned from the dev questions."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medqlora.errors import InputError
from medqlora.evaluation.report_data import Threshold
from medqlora.records import Prediction

#: with fewer dev questions than this, neither temperature nor threshold can be relied on
FEWEST = 20
#: a threshold that no confidence reaches
UNREACHABLE = 2.0


@dataclass(frozen=True)
class Calibration:
    """What is kept beside an adapter to say how sure its answers are.

    Attributes:
        temperature: the label log-likelihoods are divided by it; > 0.
        threshold: the least calibrated confidence that is answered, 0 to 1; above 1 nothing is.
        target_risk: the share of wrong decisions that was allowed among the answered, 0 to 1.
        n: dev questions that it was learned from.
        answered: those of them at or above the threshold.
        wrong: the wrong decisions among `answered`.
        risk_ci95: Wilson's 95% interval of wrong / answered; None where nothing is answered. The threshold
            was chosen on the same questions, so the risk on new ones is rather higher than lower.
        labels: the decisions that were possible.
        classes: how many of `labels` were the right answer of some dev question.
    """

    temperature: float
    threshold: float
    target_risk: float
    n: int
    answered: int
    wrong: int
    risk_ci95: tuple[float, float] | None
    labels: tuple[str, ...]
    classes: int

    @property
    def caution(self) -> str | None:
        """Why this calibration shows too little to be relied on, as a clause; None where it shows enough."""
        if self.n < FEWEST:
            return f"{self.n} development question{'s' * (self.n != 1)} are too few, {FEWEST} are the least"
        if self.classes < 2:
            return "all development questions had the same answer"
        return None

    def covers(self, prediction: Prediction) -> bool:
        """Whether it was learned on the decisions that `prediction` is between."""
        return bool(prediction.logprobs) and set(prediction.labels) <= set(self.labels)

    def applied(self, predictions: Sequence[Prediction]) -> Threshold | None:
        """What the threshold lets through of other questions, and how often that is wrong.

        Args:
            predictions: with gold labels, none of them among those that it was learned from.

        Returns:
            `threshold`, `temperature`, `target_risk`, `n`, `answered`, `wrong`, `risk` and `risk_ci95` (Wilson; None
            where nothing is answered). None where it wasn't learned on decisions like these.
        """
        if not predictions or not all(self.covers(one) for one in predictions):
            return None
        sure = [
            one
            for one in predictions
            if max(calibrated_probabilities(one, self.temperature)) >= self.threshold
        ]
        wrong = sum(one.decision != one.gold for one in sure)
        interval = None
        if sure:
            from medqlora.evaluation.statistics.intervals import wilson_interval

            interval = [float(one) for one in wilson_interval(wrong, len(sure))]
        return {
            "threshold": self.threshold,
            "temperature": self.temperature,
            "target_risk": self.target_risk,
            "n": len(predictions),
            "answered": len(sure),
            "wrong": wrong,
            "risk": wrong / len(sure) if sure else None,
            "risk_ci95": interval,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back exactly."""
        plain = asdict(self)
        plain["labels"] = list(self.labels)
        plain["risk_ci95"] = None if self.risk_ci95 is None else list(self.risk_ci95)
        return plain

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Calibration":
        """Reads what `to_json` wrote.

        Args:
            value: the parsed JSON.
            where: the file that it stood in, for messages.

        Raises:
            InputError: something is missing or can't be; a damaged threshold would answer what it must not.
        """
        if not isinstance(value, dict):
            raise InputError(f"{where}: the calibration is {_shown(value)}: {_MEND}")
        labels = value.get("labels")
        texts = isinstance(labels, list) and all(isinstance(one, str) and one for one in labels)
        if not texts or not labels or len(set(labels)) != len(labels):
            raise InputError(f"{where}: the calibration's labels are {_shown(labels)}: {_MEND}")
        n = _count(value, "n", 1, None, where)
        answered = _count(value, "answered", 0, n, where)
        interval = value.get("risk_ci95")
        if answered == 0 and interval is None:
            span = None
        elif answered and isinstance(interval, list) and len(interval) == 2:
            low, high = (_number({"risk_ci95": one}, "risk_ci95", 0, 1, where) for one in interval)
            span = (min(low, high), max(low, high))
        else:
            raise InputError(f"{where}: the calibration's risk_ci95 is {_shown(interval)}: {_MEND}")
        temperature = _number(value, "temperature", 0, math.inf, where)
        if temperature == 0:
            raise InputError(f"{where}: the calibration's temperature is 0: {_MEND}")
        return cls(
            temperature=temperature,
            threshold=_number(value, "threshold", 0, UNREACHABLE, where),
            target_risk=_number(value, "target_risk", 0, 1, where),
            n=n,
            answered=answered,
            wrong=_count(value, "wrong", 0, answered, where),
            risk_ci95=span,
            labels=tuple(labels),
            classes=_count(value, "classes", 1, min(n, len(labels)), where),
        )


def calibrated_probabilities(prediction: Prediction, temperature: float) -> tuple[float, ...]:
    """softmax(logprobs / temperature), summing to 1; empty where no label was scored.

    `fsum` doesn't depend on the order of its terms, so two questions with the same log-likelihoods in another
    order have exactly the same confidence, and stand or fall together.
    """
    if not prediction.logprobs:
        return ()
    top = max(prediction.logprobs)
    weights = [math.exp((value - top) / temperature) for value in prediction.logprobs]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def calibrate(
    dev: Sequence[Prediction], target_risk: float = 0.1, option: str = "target_risk"
) -> Calibration:
    """The temperature and the threshold for which the dev questions speak.

    The temperature is `evaluation.fit_temperature`'s. The threshold is the lowest calibrated confidence such
    that of the dev questions at or above it at most `target_risk` were decided wrongly: the largest coverage,
    as in https://arxiv.org/abs/1705.08500, without that paper's bound, which a fold of 50 could never meet;
    `risk_ci95` says what it leaves open. Questions of equal confidence stand or fall together. Where every
    threshold lets too much through, none is reached.

    With fewer than `FEWEST` questions, or where all have the same answer, and where all were decided rightly (no
    temperature is then the best: the sharper the better), the temperature stays 1: a fitted one would
    claim certainty. `caution` then says what can't be relied on.

    Args:
        dev: predictions as they are compared (see `evaluation.decided`). Those without gold label or
            without label scores show nothing and are left out; `n` counts the others.
        target_risk: 0 to 1; 1 answers whatever is as sure as the least sure dev question.
        option: what the user calls `target_risk`, for the message.

    Raises:
        InputError: `target_risk` is no share.
        ValueError: no dev question can be used, or a log-likelihood is no finite number.
    """
    if not _is_number(target_risk) or not 0 <= target_risk <= 1:
        raise InputError(f"{option} is {target_risk!r}: give a share from 0 to 1, as 0.1")
    usable = [one for one in dev if one.logprobs and one.gold in one.labels]
    if not usable:
        raise ValueError("a threshold needs dev predictions with gold labels and label log-likelihoods")
    if not all(math.isfinite(value) for one in usable for value in one.logprobs):
        raise ValueError("a dev prediction's log-likelihoods are not finite")
    classes = len({one.gold for one in usable})
    right = [one.decision == one.gold for one in usable]
    temperature = 1.0
    if len(usable) >= FEWEST and classes > 1 and not all(right):
        from medqlora.evaluation import fit_temperature

        temperature = fit_temperature(usable)
    confidence = [max(calibrated_probabilities(one, temperature)) for one in usable]
    threshold, answered, wrong = _largest_coverage(confidence, right, target_risk)
    interval = None
    if answered:
        from medqlora.evaluation.statistics.intervals import wilson_interval

        low, high = wilson_interval(wrong, answered)
        interval = (max(0.0, low), min(1.0, high))
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        target_risk=float(target_risk),
        n=len(usable),
        answered=answered,
        wrong=wrong,
        risk_ci95=interval,
        labels=tuple(dict.fromkeys(label for one in usable for label in one.labels)),
        classes=classes,
    )


def _largest_coverage(
    confidence: Sequence[float], right: Sequence[bool], target_risk: float
) -> tuple[float, int, int]:
    """The threshold, and how many items it answers and how many of these are wrong."""
    ranked = sorted(zip(confidence, right, strict=True), reverse=True)
    best = (UNREACHABLE, 0, 0)
    wrong = 0
    for place, (value, is_right) in enumerate(ranked):
        wrong += not is_right
        last_of_tie = place + 1 == len(ranked) or ranked[place + 1][0] != value
        # the product and not the quotient: 1 of 10 at a target of 0.1 must pass
        if last_of_tie and wrong <= target_risk * (place + 1) + 1e-9:
            best = (value, place + 1, wrong)
    return best


_MEND = "the file is damaged; copy the adapter again, or fit again"


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -1e300 < value < 1e300  # isfinite would raise for a whole number that no float can hold


def _number(value: dict[str, Any], key: str, low: float, high: float, where: str) -> float:
    found: Any = value.get(key)
    if not _is_number(found) or not low <= found <= high:
        raise InputError(f"{where}: the calibration's {key} is {_shown(found)}: {_MEND}")
    return float(found)


def _count(value: dict[str, Any], key: str, low: int, high: int | None, where: str) -> int:
    found = value.get(key)
    if (
        not isinstance(found, int)
        or isinstance(found, bool)
        or found < low
        or (high is not None and found > high)
    ):
        raise InputError(f"{where}: the calibration's {key} is {_shown(found)}: {_MEND}")
    return found


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:60]
