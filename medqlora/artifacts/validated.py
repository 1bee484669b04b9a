"""What a validation found of the weights that a checkpoint holds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medqlora.inference import calibrate
from medqlora.records import Prediction

#: of the scores of a validation, those that are better when they are lower
LOWER_IS_BETTER = ("val/loss", "val/unparsed_fraction")


def validation_scores(*, labelled: bool, written: bool) -> tuple[str, ...]:
    """The names of what a validation logs.

    Args:
        labelled: its questions have labels to choose from.
        written: the model also writes its answers.
    """
    names = [("accuracy", labelled or written), ("macro_f1", labelled)]
    names += [("token_f1", written and not labelled), ("rouge_l", written and not labelled)]
    names += [("likelihood_accuracy", labelled), ("likelihood_macro_f1", labelled)]
    names += [("unparsed_fraction", labelled and written), ("loss", True)]
    return tuple(f"val/{name}" for name, there in names if there)


def default_monitor(*, labelled: bool, written: bool) -> str:
    """The score that tells which checkpoint is best where none is named; arguments as `validation_scores`.

    The accuracy of free answers is exact match, which is 0 for nearly every model: all checkpoints would tie.
    """
    return "val/token_f1" if written and not labelled else "val/accuracy"


def validated(
    predictions: Sequence[Prediction], metrics: Mapping[str, Any], target_risk: float
) -> dict[str, Any]:
    """The scores of these very weights, and the calibration of their answers.

    Args:
        predictions: the answers to the validation questions.
        metrics: what the Trainer logged, among it "val/…".
        target_risk: see `QLoRAModule`.
    """
    scores = {name: float(value) for name, value in metrics.items() if name.startswith("val/")}
    labelled = [
        one
        for one in predictions
        if one.gold in one.labels and one.logprobs and all(map(math.isfinite, one.logprobs))
    ]
    return {
        "scores": scores,
        "calibration": calibrate(labelled, target_risk).to_json() if labelled else None,
    }
