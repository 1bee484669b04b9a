"""What must hold of predictions before anything is computed from them."""

import math
from collections.abc import Sequence

from medqlora.errors import InputError
from medqlora.records import Prediction, Record


def checked(predictions: Sequence[Prediction], what: str) -> None:
    """Refuses what would make a number wrong without a sign.

    Raises:
        InputError: there are no predictions, or some have no gold answer: dropping them would flatter.
        ValueError: an id occurs twice, a gold label is none of the labels, or a log-likelihood is no finite
            number (NaN would silently decide for the first label).
    """
    if not predictions:
        raise InputError(f"no {what} predictions: there is nothing to score; is the split empty?")
    unknown = [one.id for one in predictions if one.gold is None]
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(predictions)} {what} questions have no answer to score against "
            f"(first: {unknown[0]}): give their answers, or use predict instead of test"
        )
    seen: set[str] = set()
    for one in predictions:
        if one.id in seen:
            raise ValueError(f"{what}: question {one.id} is there twice")
        seen.add(one.id)
        if one.labels and one.gold not in one.labels:
            raise ValueError(f"{what}: question {one.id}: gold {one.gold!r} is none of {one.labels}")
        if one.parsed is not None and one.labels and one.parsed not in one.labels:
            raise ValueError(f"{what}: question {one.id}: parsed {one.parsed!r} is none of {one.labels}")
        if one.logprobs and len(one.logprobs) != len(one.labels):
            raise ValueError(
                f"{what}: question {one.id}: {len(one.logprobs)} scores of {len(one.labels)} labels"
            )
        if not all(math.isfinite(value) for value in one.logprobs):
            raise ValueError(f"{what}: question {one.id}: log-likelihoods are not finite: {one.logprobs}")
    for name, count in (
        ("label log-likelihoods", sum(bool(one.logprobs) for one in predictions)),
        ("labels", sum(bool(one.labels) for one in predictions)),
        ("generated text", sum(one.text is not None for one in predictions)),
    ):
        if 0 < count < len(predictions):
            raise ValueError(
                f"{what}: only {count} of {len(predictions)} predictions have {name}: all or none"
            )


def matched_records(predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Record]:
    """The record of each prediction, in the predictions' order.

    Raises:
        ValueError: a prediction has no record, a record has no prediction, or their answers differ.
    """
    by_id = {record.id: record for record in records}
    if len(by_id) != len(records) or by_id.keys() != {one.id for one in predictions}:
        raise ValueError(
            f"{len(predictions)} predictions and {len(records)} records: each question must be in both, once"
        )
    for one in predictions:
        if by_id[one.id].answer != one.gold:
            raise ValueError(
                f"question {one.id}: gold {one.gold!r}, but the record's {by_id[one.id].answer!r}"
            )
    return [by_id[one.id] for one in predictions]


def in_order_of(predictions: Sequence[Prediction], base: Sequence[Prediction]) -> list[Prediction]:
    """`base` in the order of `predictions`.

    Raises:
        ValueError: they are not of the same questions with the same gold answers.
    """
    by_id = {one.id: one for one in base}
    if by_id.keys() != {one.id for one in predictions}:
        raise ValueError(
            f"{len(base)} base predictions are not of the same questions as the {len(predictions)}"
        )
    for one in predictions:
        if by_id[one.id].gold != one.gold or by_id[one.id].labels != one.labels:
            raise ValueError(f"question {one.id}: the base has another gold answer or other labels")
    return [by_id[one.id] for one in predictions]
