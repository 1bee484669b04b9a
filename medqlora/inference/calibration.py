"""The confidence from which a decision is shown as an answer, learned from the validation questions."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from medqlora.errors import InputError
from medqlora.evaluation.metrics.enough import too_few
from medqlora.evaluation.report_data import Threshold
from medqlora.records import Prediction, softmax
from medqlora.utils.types import Json

#: a threshold that no confidence reaches
UNREACHABLE = 2.0
_FIX = "the file is damaged; copy the adapter again, or fit again"


@dataclass(frozen=True)
class Calibration:
    """Temperature and threshold of an adapter's confidence, saved with the adapter.

    Attributes:
        temperature: divides the label log-likelihoods; > 0.
        threshold: least calibrated confidence of an answer, 0 to 1; above 1 nothing is answered.
        target_risk: allowed share of wrong decisions among the answers, 0 to 1.
        n: validation questions that were used.
        answered: those at or above the threshold.
        wrong: wrong decisions among `answered`.
        risk_ci95: Wilson's 95% interval of wrong / answered; None where nothing is answered. The threshold was chosen
            on the same questions, so the risk on new questions is rather higher than lower.
        labels: the possible decisions.
        classes: number of labels that are the gold answer of some validation question.
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
        """Why this calibration is not reliable, as a clause; None where it is."""
        return too_few(self.n, self.classes)

    def covers(self, prediction: Prediction) -> bool:
        """Whether the calibration was learned on the labels of `prediction`."""
        return bool(prediction.logprobs) and set(prediction.labels) <= set(self.labels)

    def applied(self, predictions: Sequence[Prediction]) -> Threshold | None:
        """Coverage and risk of the threshold on other questions.

        Args:
            predictions: with gold labels, of questions that the calibration was not learned on.

        Returns:
            `threshold`, `temperature`, `target_risk`, `n`, `answered`, `wrong`, `risk` and `risk_ci95` (Wilson; None
            where nothing is answered). None where the calibration does not cover the predictions.
        """
        if not predictions or not all(self.covers(prediction) for prediction in predictions):
            return None
        answered = [
            prediction
            for prediction in predictions
            if max(softmax(prediction.logprobs, self.temperature)) >= self.threshold
        ]
        wrong = sum(prediction.decision != prediction.gold for prediction in answered)
        interval = _wilson(wrong, len(answered))
        return {
            "threshold": self.threshold,
            "temperature": self.temperature,
            "target_risk": self.target_risk,
            "n": len(predictions),
            "answered": len(answered),
            "wrong": wrong,
            "risk": wrong / len(answered) if answered else None,
            "risk_ci95": None if interval is None else list(interval),
        }

    def to_json(self) -> dict[str, Json]:
        """Plain values; `from_json` reads them back exactly."""
        interval = None if self.risk_ci95 is None else list(self.risk_ci95)
        return {**asdict(self), "labels": list(self.labels), "risk_ci95": interval}

    @classmethod
    def from_json(cls, value: object, where: str) -> "Calibration":
        """Reads what `to_json` wrote.

        Args:
            value: the parsed JSON.
            where: the file that holds it, for messages.

        Raises:
            InputError: a value is missing or impossible; a damaged threshold would let wrong answers through.
        """
        if not isinstance(value, dict):
            raise InputError(f"{where}: the calibration is {_shown(value)}: {_FIX}")

        def number(key: str, low: float, high: float) -> float:
            return _number(value.get(key), key, low, high, where)

        def count(key: str, low: int, high: int | None = None) -> int:
            return _count(value.get(key), key, low, high, where)

        labels = value.get("labels")
        texts = isinstance(labels, list) and all(isinstance(label, str) and label for label in labels)
        if not texts or not labels or len(set(labels)) != len(labels):
            raise InputError(f"{where}: the calibration's labels are {_shown(labels)}: {_FIX}")
        n = count("n", 1)
        answered = count("answered", 0, n)
        return cls(
            temperature=number("temperature", math.ulp(0.0), math.inf),
            threshold=number("threshold", 0, UNREACHABLE),
            target_risk=number("target_risk", 0, 1),
            n=n,
            answered=answered,
            wrong=count("wrong", 0, answered),
            risk_ci95=_interval(value.get("risk_ci95"), answered, where),
            labels=tuple(labels),
            classes=count("classes", 1, min(n, len(labels))),
        )


def calibrate(
    dev: Sequence[Prediction], target_risk: float = 0.1, option: str = "target_risk"
) -> Calibration:
    """The temperature and the threshold that the validation questions support.

    The temperature is `supported_temperature`'s, as in every report. The threshold is the lowest calibrated confidence
    at or above which at most `target_risk` of the validation questions were decided wrongly: the largest coverage, as
    in https://arxiv.org/abs/1705.08500, without that paper's bound, which a fold of 50 can never meet; `risk_ci95`
    shows the uncertainty. Questions of equal confidence stay together. Where no threshold meets the target, it is
    `UNREACHABLE`.

    `caution` says what is not reliable.

    Args:
        dev: validation predictions as they are compared (see `evaluation.decided`). Those without gold label or label
            scores are left out; `n` counts the others.
        target_risk: 0 to 1.
        option: the option that sets `target_risk`, for the message.

    Raises:
        InputError: `target_risk` is not in [0, 1].
        ValueError: no prediction can be used, or a log-likelihood is not finite.
    """
    if not _is_number(target_risk) or not 0 <= target_risk <= 1:
        raise InputError(f"{option} is {target_risk!r}: give a share from 0 to 1, as 0.1")
    usable = [
        prediction for prediction in dev if prediction.logprobs and prediction.gold in prediction.labels
    ]
    if not usable:
        raise ValueError("a threshold needs dev predictions with gold labels and label log-likelihoods")
    if not all(math.isfinite(value) for prediction in usable for value in prediction.logprobs):
        raise ValueError("a dev prediction's log-likelihoods are not finite")
    classes = len({prediction.gold for prediction in usable})
    right = [prediction.decision == prediction.gold for prediction in usable]
    from medqlora.evaluation.metrics.calibration import supported_temperature

    temperature = supported_temperature(usable).value
    confidence = [max(softmax(prediction.logprobs, temperature)) for prediction in usable]
    threshold, answered, wrong = _largest_coverage(confidence, right, target_risk)
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        target_risk=float(target_risk),
        n=len(usable),
        answered=answered,
        wrong=wrong,
        risk_ci95=_wilson(wrong, answered),
        labels=tuple(dict.fromkeys(label for prediction in usable for label in prediction.labels)),
        classes=classes,
    )


def _largest_coverage(
    confidence: Sequence[float], right: Sequence[bool], target_risk: float
) -> tuple[float, int, int]:
    """The threshold, the number of questions it answers, and the number of wrong ones among them."""
    ranked = sorted(zip(confidence, right, strict=True), reverse=True)
    best = (UNREACHABLE, 0, 0)
    wrong = 0
    for answered, (value, is_right) in enumerate(ranked, 1):
        wrong += not is_right
        last_of_tie = answered == len(ranked) or ranked[answered][0] != value
        # the product and not the quotient: 1 of 10 at a target of 0.1 must pass
        if last_of_tie and wrong <= target_risk * answered + 1e-9:
            best = (value, answered, wrong)
    return best


def _wilson(wrong: int, answered: int) -> tuple[float, float] | None:
    """Wilson's 95% interval within [0, 1]; None where nothing is answered."""
    if not answered:
        return None
    from medqlora.evaluation.statistics.intervals import wilson_interval

    low, high = wilson_interval(wrong, answered)
    return max(0.0, low), min(1.0, high)


def _is_number(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -1e300 < value < 1e300  # isfinite would raise for an integer that no float can hold


def _number(value: object, key: str, low: float, high: float, where: str) -> float:
    if not isinstance(value, (int, float)) or not _is_number(value) or not low <= value <= high:
        raise InputError(f"{where}: the calibration's {key} is {_shown(value)}: {_FIX}")
    return float(value)


def _count(value: object, key: str, low: int, high: int | None, where: str) -> int:
    valid = isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, int) or not valid or value < low or (high is not None and value > high):
        raise InputError(f"{where}: the calibration's {key} is {_shown(value)}: {_FIX}")
    return value


def _interval(value: object, answered: int, where: str) -> tuple[float, float] | None:
    """The saved `risk_ci95`: two shares where something is answered, else None."""
    if answered == 0 and value is None:
        return None
    if not answered or not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{where}: the calibration's risk_ci95 is {_shown(value)}: {_FIX}")
    low, high = (_number(bound, "risk_ci95", 0, 1, where) for bound in value)
    return min(low, high), max(low, high)


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:60]
