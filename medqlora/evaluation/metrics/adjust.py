"""Adjusted label log-likelihoods: normalised by length, and corrected for a prior."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from medqlora.evaluation.report_data import Prior
from medqlora.records import Prediction

Normalisation = Literal["none", "length"]


def normalised(predictions: Sequence[Prediction], normalisation: Normalisation) -> list[Prediction]:
    """The predictions with each label's log-likelihood normalised for comparison.

    Args:
        predictions: as the model scored them.
        normalisation: `none`: the sum over the label's tokens (lm-evaluation-harness's `acc`). `length`: the
            mean over its tokens, so that long labels have no disadvantage.

    Raises:
        ValueError: another normalisation, or a label without a length.
    """
    if normalisation == "none":
        return list(predictions)
    if normalisation != "length":
        raise ValueError(f"normalisation is {normalisation!r}: choose none or length")
    changed = []
    for prediction in predictions:
        logprobs, lengths = prediction.logprobs, prediction.lengths
        if logprobs and (len(lengths) != len(logprobs) or min(lengths) < 1):
            raise ValueError(f"{prediction.id}: {len(logprobs)} log-likelihoods, but label lengths {lengths}")
        means = tuple(value / length for value, length in zip(logprobs, lengths, strict=False))
        changed.append(replace(prediction, logprobs=means))
    return changed


def prior_corrected(predictions: Sequence[Prediction], prior: Prior) -> list[Prediction]:
    """The predictions minus each label's log-likelihood after a content-free prompt.

    The score becomes log p(label | prompt) - log p(label | content-free prompt), the domain-conditional PMI
    of https://arxiv.org/abs/2104.08315; softmax of it is contextual calibration (https://arxiv.org/abs/2102.09690).

    Args:
        predictions: as the model scored them. Correct first, then normalise.
        prior: log p(label | content-free prompt) in nats, in the order of the labels or by label.

    Raises:
        ValueError: a label has no prior.
    """
    changed = []
    for prediction in predictions:
        if isinstance(prior, Mapping):
            missing = [label for label in prediction.labels if label not in prior]
            if missing:
                raise ValueError(f"{prediction.id}: no prior of {', '.join(missing)}")
            values = [prior[label] for label in prediction.labels]
        else:
            values = list(prior)
        logprobs = prediction.logprobs
        if logprobs and len(values) != len(logprobs):
            raise ValueError(f"{prediction.id}: {len(logprobs)} labels, but a prior of {len(values)}")
        corrected = tuple(value - less for value, less in zip(logprobs, values, strict=False))
        changed.append(replace(prediction, logprobs=corrected))
    return changed
