"""Checks of predictions before anything is computed from them."""

import math
from collections.abc import Sequence

from medqlora.errors import InputError
from medqlora.records import Prediction, Record


def checked(predictions: Sequence[Prediction], what: str) -> None:
    """Refuses predictions that would make a score wrong without a sign.

    Args:
        predictions: of one set.
        what: name of the set, for messages.

    Raises:
        InputError: there are no predictions, or some have no gold answer: dropping them would flatter.
        ValueError: an id occurs twice, a gold label is none of the labels, or a log-likelihood is not finite
            (NaN would silently decide for the first label).
    """
    if not predictions:
        raise InputError(f"no {what} predictions: there is nothing to score; is the split empty?")
    unknown = [prediction.id for prediction in predictions if prediction.gold is None]
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(predictions)} {what} questions have no answer to score against "
            f"(first: {unknown[0]}): give their answers, or use predict instead of test"
        )
    seen: set[str] = set()
    for prediction in predictions:
        problem = _problem(prediction)
        if prediction.id in seen:
            problem = "it occurs twice"
        if problem:
            raise ValueError(f"{what}: question {prediction.id}: {problem}")
        seen.add(prediction.id)
    for name, count in (
        ("label log-likelihoods", sum(bool(prediction.logprobs) for prediction in predictions)),
        ("labels", sum(bool(prediction.labels) for prediction in predictions)),
        ("generated text", sum(prediction.text is not None for prediction in predictions)),
    ):
        if 0 < count < len(predictions):
            raise ValueError(
                f"{what}: only {count} of {len(predictions)} predictions have {name}: all or none"
            )


def _problem(prediction: Prediction) -> str | None:
    labels, logprobs = prediction.labels, prediction.logprobs
    if labels and prediction.gold not in labels:
        return f"gold {prediction.gold!r} is none of {labels}"
    if labels and prediction.parsed is not None and prediction.parsed not in labels:
        return f"parsed {prediction.parsed!r} is none of {labels}"
    if logprobs and len(logprobs) != len(labels):
        return f"{len(logprobs)} scores of {len(labels)} labels"
    if not all(map(math.isfinite, logprobs)):
        return f"log-likelihoods are not finite: {logprobs}"
    return None


def matched_records(predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Record]:
    """The record of each prediction, in the predictions' order.

    Raises:
        ValueError: a prediction has no record, a record has no prediction, or their answers differ.
    """
    by_id = {record.id: record for record in records}
    if len(by_id) != len(records) or by_id.keys() != {prediction.id for prediction in predictions}:
        raise ValueError(
            f"{len(predictions)} predictions and {len(records)} records: each question must be in both, once"
        )
    matched = [by_id[prediction.id] for prediction in predictions]
    for prediction, record in zip(predictions, matched, strict=True):
        if record.answer != prediction.gold:
            raise ValueError(
                f"question {prediction.id}: gold {prediction.gold!r}, but the record's {record.answer!r}"
            )
    return matched


def in_order_of(predictions: Sequence[Prediction], base: Sequence[Prediction]) -> list[Prediction]:
    """`base` in the order of `predictions`.

    Raises:
        ValueError: they are not of the same questions with the same gold answers.
    """
    by_id = {prediction.id: prediction for prediction in base}
    if by_id.keys() != {prediction.id for prediction in predictions}:
        raise ValueError(
            f"{len(base)} base predictions are not of the same questions as the {len(predictions)}"
        )
    matched = [by_id[prediction.id] for prediction in predictions]
    for prediction, other in zip(predictions, matched, strict=True):
        if (other.gold, other.labels) != (prediction.gold, prediction.labels):
            raise ValueError(f"question {prediction.id}: the base has another gold answer or other labels")
    return matched
