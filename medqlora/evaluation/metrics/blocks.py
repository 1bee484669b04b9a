"""The blocks of a report that a model has with or without an adapter."""

import re
from collections.abc import Sequence

from medqlora.evaluation.metrics.calibration import calibration
from medqlora.evaluation.metrics.rouge import rationale_of, rouge_l
from medqlora.evaluation.metrics.selective import selective
from medqlora.evaluation.report_data import GenerationScores, ModelScores, Rationale
from medqlora.evaluation.statistics.intervals import summary
from medqlora.records import Prediction, Record


def decision_of(prediction: Prediction, by_likelihood: bool) -> str | None:
    """The label of the largest likelihood, or the decision parsed from the text."""
    return prediction.decision if by_likelihood else prediction.parsed


def headline_block(
    compared: Sequence[Prediction], labels: Sequence[str], seed: int, by_likelihood: bool
) -> ModelScores:
    """Accuracy, macro-F1 and their tables; by likelihood also calibration and selective prediction."""
    gold = [str(prediction.gold) for prediction in compared]
    decisions = [decision_of(prediction, by_likelihood) for prediction in compared]
    block: ModelScores = {
        **summary(gold, decisions, labels, seed),
        "ece": None,
        "brier": None,
        "nll": None,
        "aurc": None,
        "calibration": None,
        "selective": None,
    }
    if by_likelihood:
        measured = calibration(compared)
        confidence = [float(prediction.confidence or 0.0) for prediction in compared]
        curve = selective(confidence, [prediction.decision == prediction.gold for prediction in compared])
        block["ece"], block["brier"], block["nll"] = measured["ece"], measured["brier"], measured["nll"]
        block["aurc"], block["selective"] = curve["aurc"], curve
        block["calibration"] = {"bins": measured["bins"]}
    return block


def generation_block(
    predictions: Sequence[Prediction], labels: Sequence[str], seed: int
) -> GenerationScores | None:
    """Scores of the decisions parsed from generated texts, and how often they are the likelihood's."""
    if predictions[0].text is None:
        return None
    gold = [str(prediction.gold) for prediction in predictions]
    block: GenerationScores = {
        **summary(gold, [prediction.parsed for prediction in predictions], labels, seed),
        "unparsed_fraction": unparsed_fraction(predictions),
    }
    if predictions[0].logprobs:
        agree = sum(prediction.parsed == prediction.decision for prediction in predictions)
        block["agreement_with_likelihood"] = agree / len(predictions)
    return block


def unparsed_fraction(predictions: Sequence[Prediction]) -> float | None:
    """The share of generated texts without a readable decision; None where nothing was generated."""
    if predictions[0].text is None:
        return None
    return sum(prediction.parsed is None for prediction in predictions) / len(predictions)


def rationale_block(predictions: Sequence[Prediction], records: Sequence[Record]) -> Rationale | None:
    """Mean ROUGE-L of what was generated after the decision, where the record has a reference."""
    pairs = [
        (rationale_of(prediction.text, prediction.labels), record.long_answer)
        for prediction, record in zip(predictions, records, strict=True)
        if prediction.text is not None and record.long_answer
    ]
    if not pairs:
        return None
    return {
        "rouge_l": sum(rouge_l(text, reference) for text, reference in pairs) / len(pairs),
        "n": len(pairs),
        "without_rationale": sum(not re.search(r"\w", text) for text, _ in pairs),
        "note": "Overlap of wording with the reference; it does not say whether the rationale is true",
    }
