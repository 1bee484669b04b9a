"""The validation scores of a checkpoint's weights, and the calibration of their answers."""

import math
from collections.abc import Mapping, Sequence
from typing import SupportsFloat, TypedDict

from medqlora.inference import calibrate
from medqlora.records import Prediction
from medqlora.utils.types import Json

#: the validation scores that are better when they are lower
LOWER_IS_BETTER = ("val/loss", "val/unparsed_fraction", "val/ece")


class ValidationRecord(TypedDict, total=False):
    """The result of a validation; empty where there was none.

    Attributes:
        scores: by name ("val/…").
        calibration: see `medqlora.inference.Calibration.to_json`; None without labelled questions.
    """

    scores: dict[str, float]
    calibration: dict[str, Json] | None


def validation_scores(*, labelled: bool, written: bool) -> tuple[str, ...]:
    """The names of the scores that a validation logs.

    Args:
        labelled: its questions have labels to choose from.
        written: the model also generates answers.
    """
    names = [("accuracy", labelled or written), ("macro_f1", labelled)]
    names += [("token_f1", written and not labelled), ("rouge_l", written and not labelled)]
    names += [("likelihood_accuracy", labelled), ("likelihood_macro_f1", labelled)]
    names += [("unparsed_fraction", labelled and written), ("ece", labelled), ("loss", True)]
    return tuple(f"val/{name}" for name, logged in names if logged)


def default_monitor(*, labelled: bool, written: bool) -> str:
    """The score that chooses the best checkpoint where the user names none; arguments as `validation_scores`.

    The accuracy of free answers is exact match, which is 0 for nearly every model: all checkpoints would tie.
    """
    return "val/token_f1" if written and not labelled else "val/accuracy"


def validated(
    predictions: Sequence[Prediction], metrics: Mapping[str, SupportsFloat], target_risk: float
) -> ValidationRecord:
    """The scores of the validated weights, and the calibration of their answers.

    Args:
        predictions: the answers to the validation questions.
        metrics: what the Trainer logged, among it "val/…".
        target_risk: the share of wrong answers to allow, see `QLoRAModule`.
    """
    scores = {name: float(value) for name, value in metrics.items() if name.startswith("val/")}
    labelled = [
        prediction
        for prediction in predictions
        if prediction.gold in prediction.labels
        and prediction.logprobs
        and all(map(math.isfinite, prediction.logprobs))
    ]
    return {
        "scores": scores,
        "calibration": calibrate(labelled, target_risk).to_json() if labelled else None,
    }
