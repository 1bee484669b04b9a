"""Small predictions and records for the tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from medqlora.records import YES_NO_MAYBE, Prediction, Record


def prediction(
    number: int,
    gold: str,
    logprobs: Sequence[float] = (),
    *,
    text: str | None = None,
    parsed: str | None = None,
    labels: Sequence[str] = YES_NO_MAYBE,
    tokens: int = 300,
) -> Prediction:
    """One prediction; labels have one token each."""
    return Prediction(
        id=str(number),
        gold=gold,
        labels=tuple(labels),
        logprobs=tuple(float(value) for value in logprobs),
        lengths=(1,) * len(logprobs),
        text=text,
        parsed=parsed,
        context_tokens=tokens,
    )


def random_predictions(
    n: int, seed: int = 0, *, generated: bool = True, skill: float = 1.0, labels: Sequence[str] = YES_NO_MAYBE
) -> list[Prediction]:
    """Predictions of a model that is right more often than not; some texts can't be read."""
    rng = np.random.default_rng(seed)
    gold_rng = np.random.default_rng(12345)  # the questions are the same for every seed
    made = []
    for number in range(n):
        right = int(gold_rng.choice(len(labels), p=_shares(len(labels))))
        scores = rng.normal(size=len(labels)) - 2.0
        scores[right] += skill
        said = labels[int(rng.integers(len(labels)))] if rng.random() < 0.3 else labels[right]
        unread = rng.random() < 0.1
        made.append(
            prediction(
                number,
                labels[right],
                scores.tolist(),
                text=("Hard to say." if unread else f"{said.capitalize()}. The rates fell.")
                if generated
                else None,
                parsed=said if generated and not unread else None,
                labels=labels,
                tokens=int(rng.integers(60, 900)),
            )
        )
    return made


def _shares(count: int) -> list[float]:
    weights = np.arange(count, 0, -1, dtype=float)
    return (weights / weights.sum()).tolist()


def records_of(predictions: Sequence[Prediction], **fields: Any) -> list[Record]:
    """A record for each prediction, with a few topics and annotators."""
    made = []
    for place, one in enumerate(predictions):
        values: dict[str, Any] = {
            "question": f"Does treatment {one.id} help?",
            "contexts": (f"Trial {one.id} enrolled {place + 20} patients.", "The rates fell in both groups."),
            "topics": ("Humans", f"Topic {place % 7}", f"Rare {place}"),
            "annotations": {"reasoning_required": one.labels[place % len(one.labels)] if one.labels else "x"},
            "long_answer": "The rates fell in both groups.",
        }
        made.append(Record(id=one.id, labels=one.labels, answer=one.gold, **{**values, **fields}))
    return made
