"""Other ways to turn label log-likelihoods into a decision: by length, and corrected for a prior."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from medqlora.records import Prediction

Normalisation = Literal["none", "length"]


def normalised(predictions: Sequence[Prediction], normalisation: Normalisation) -> list[Prediction]:
    """The predictions with each label's log-likelihood as it is to be compared.

    Args:
        predictions: as the model scored them.
        normalisation: `none`, the sum over the label's tokens (lm-evaluation-harness's `acc`); `length`, the
            mean over its tokens, so that a long label is not at a disadvantage.

    Raises:
        ValueError: another normalisation, or a label without a length.
    """
    if normalisation == "none":
        return list(predictions)
    if normalisation != "length":
        raise ValueError(f"normalisation is {normalisation!r}: choose none or length")
    changed = []
    for one in predictions:
        if one.logprobs and (len(one.lengths) != len(one.logprobs) or min(one.lengths) < 1):
            raise ValueError(
                f"{one.id}: {len(one.logprobs)} log-likelihoods, but label lengths {one.lengths}"
            )
        means = tuple(value / length for value, length in zip(one.logprobs, one.lengths, strict=False))
        changed.append(replace(one, logprobs=means))
    return changed


def prior_corrected(
    predictions: Sequence[Prediction], prior: Sequence[float] | Mapping[str, float]
) -> list[Prediction]:
    """The predictions less the log-likelihood that each label has without any question.

    The score becomes log p(label | prompt) - log p(label | content-free prompt), the domain-conditional PMI
    of https://arxiv.org/abs/2104.08315; softmax of it is contextual calibration (https://arxiv.org/abs/2102.09690).

    Args:
        predictions: as the model scored them (normalise after correcting, not before).
        prior: log p(label | content-free prompt) in nats, in the order of the labels or by label.

    Raises:
        ValueError: a label has no prior.
    """
    changed = []
    for one in predictions:
        if isinstance(prior, Mapping):
            missing = [label for label in one.labels if label not in prior]
            if missing:
                raise ValueError(f"{one.id}: no prior of {', '.join(missing)}")
            values = [prior[label] for label in one.labels]
        else:
            values = list(prior)
        if one.logprobs and len(values) != len(one.logprobs):
            raise ValueError(f"{one.id}: {len(one.logprobs)} labels, but a prior of {len(values)}")
        changed.append(
            replace(
                one, logprobs=tuple(value - less for value, less in zip(one.logprobs, values, strict=False))
            )
        )
    return changed
