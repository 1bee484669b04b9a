"""The blocks of a report that a model has with or without an adapter."""

import re
from collections.abc import Sequence
from typing import Any

from medqlora.evaluation.metrics.calibration import calibration
from medqlora.evaluation.metrics.rouge import rationale_of, rouge_l
from medqlora.evaluation.metrics.selective import selective
from medqlora.evaluation.statistics.intervals import summary
from medqlora.records import Prediction, Record


def decision_of(prediction: Prediction, by_likelihood: bool) -> str | None:
    """What counts as the decision: the likeliest label, or what was read from the text."""
    return prediction.decision if by_likelihood else prediction.parsed


def headline_block(
    compared: Sequence[Prediction], labels: Sequence[str], seed: int, by_likelihood: bool
) -> dict[str, Any]:
    """The metrics that a model has with or without an adapter."""
    gold = [str(one.gold) for one in compared]
    said = [decision_of(one, by_likelihood) for one in compared]
    block: dict[str, Any] = summary(gold, said, labels, seed)
    block |= {"ece": None, "brier": None, "nll": None, "aurc": None, "calibration": None, "selective": None}
    if by_likelihood:
        measured = calibration(compared)
        confidence = [float(one.confidence or 0.0) for one in compared]
        chosen = selective(confidence, [one.decision == one.gold for one in compared])
        block |= {key: measured[key] for key in ("ece", "brier", "nll")}
        block |= {"aurc": chosen["aurc"], "calibration": {"bins": measured["bins"]}, "selective": chosen}
    return block


def generation_block(
    predictions: Sequence[Prediction], labels: Sequence[str], seed: int
) -> dict[str, Any] | None:
    """The scores of what was read from the generated texts, and how often it is the likelihood's decision."""
    if predictions[0].text is None:
        return None
    block = summary([str(one.gold) for one in predictions], [one.parsed for one in predictions], labels, seed)
    block["unparsed_fraction"] = unparsed_fraction(predictions)
    if predictions[0].logprobs:
        agree = sum(one.parsed == one.decision for one in predictions)
        block["agreement_with_likelihood"] = agree / len(predictions)
    return block


def unparsed_fraction(predictions: Sequence[Prediction]) -> float | None:
    """The share of generated texts without a readable decision; None where nothing was generated."""
    if predictions[0].text is None:
        return None
    return sum(one.parsed is None for one in predictions) / len(predictions)


def rationale_block(predictions: Sequence[Prediction], records: Sequence[Record]) -> dict[str, Any] | None:
    """Mean ROUGE-L of what was generated after the decision, where the record has a reference."""
    pairs = [
        (rationale_of(one.text, one.labels), record.long_answer)
        for one, record in zip(predictions, records, strict=True)
        if one.text is not None and record.long_answer
    ]
    if not pairs:
        return None
    return {
        "rouge_l": sum(rouge_l(said, meant) for said, meant in pairs) / len(pairs),
        "n": len(pairs),
        "without_rationale": sum(not re.search(r"\w", said) for said, _ in pairs),
        "note": "Overlap of wording with the reference; it does not say whether the rationale is true",
    }
