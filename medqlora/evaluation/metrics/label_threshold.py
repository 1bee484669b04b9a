"""A decision threshold for the rarest label ("maybe"), fitted on validation: reported beside argmax, never instead."""

from collections import Counter
from collections.abc import Sequence

from medqlora.evaluation.report_data import LabelThreshold
from medqlora.evaluation.statistics.intervals import confusion_counts, macro_f1, summary
from medqlora.evaluation.statistics.paired import compare
from medqlora.records import Prediction

#: fewer validation questions of the label support no threshold
_LEAST = 3


def rarest_label(dev: Sequence[Prediction]) -> str | None:
    """The label with the fewest right answers of at least `_LEAST`; None where all questions do not share 3 labels."""
    labels = dev[0].labels if dev else ()
    if len(labels) < 3 or any(one.labels != labels or not one.logprobs for one in dev):
        return None
    counts = Counter(one.gold for one in dev)
    rarest = min(labels, key=lambda label: counts[label])
    return rarest if counts[rarest] >= _LEAST else None


def with_threshold(prediction: Prediction, label: str, threshold: float) -> str:
    """The decision: `label` where its probability reaches the threshold, else the likeliest of the others."""
    probabilities = dict(zip(prediction.labels, prediction.probabilities, strict=True))
    if probabilities.pop(label) >= threshold:
        return label
    return max(probabilities, key=probabilities.__getitem__)


def fit_threshold(dev: Sequence[Prediction], label: str) -> float:
    """The threshold of the highest macro-F1 on `dev`; of equal ones the highest, which decides for `label` least."""
    labels, gold = list(dev[0].labels), [str(one.gold) for one in dev]
    index = labels.index(label)
    best = (-1.0, 0.0)
    for threshold in sorted({one.probabilities[index] for one in dev} | {1.0}):
        decisions = [with_threshold(one, label, threshold) for one in dev]
        score = float(macro_f1(confusion_counts(gold, decisions, labels)))
        best = max(best, (score, threshold))
    return best[1]


def label_threshold(
    predictions: Sequence[Prediction], dev: Sequence[Prediction], seed: int
) -> LabelThreshold | None:
    """Scores with a threshold that other questions set.

    Args:
        predictions: of the test, as they are compared.
        dev: of the validation, as they are compared.
        seed: of the bootstrap.

    Returns:
        None where validation supports no threshold, or the test's labels are others.
    """
    label = rarest_label(dev)
    if label is None or any(one.labels != dev[0].labels or not one.logprobs for one in predictions):
        return None
    threshold, labels = fit_threshold(dev, label), list(dev[0].labels)
    gold = [str(one.gold) for one in predictions]
    decisions = [with_threshold(one, label, threshold) for one in predictions]
    scores = summary(gold, decisions, labels, seed)
    compared = compare(gold, decisions, [one.decision for one in predictions], labels, seed)
    return {
        "label": label,
        "threshold": threshold,
        "fitted_on": len(dev),
        "decided": decisions.count(label),
        "decided_by_argmax": sum(one.decision == label for one in predictions),
        "accuracy": scores["accuracy"],
        "accuracy_ci95": scores["accuracy_ci95"],
        "macro_f1": float(scores["macro_f1"] or 0.0),
        "macro_f1_ci95": scores["macro_f1_ci95"] or [0.0, 0.0],
        "mcnemar_p": compared["mcnemar_p"],
    }
