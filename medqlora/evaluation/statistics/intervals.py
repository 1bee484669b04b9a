"""Accuracy, F1 and their intervals, all from one table of counts.

The table has a row for each label as gold and a column for each label as decision, plus a last column for
unparsed outputs: they are wrong for accuracy, a miss for their gold label's recall and no label's prediction.
Headline, classes and bootstrap read the same table, so they cannot disagree. The tests compare every number with
scikit-learn, scipy and statsmodels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medqlora.evaluation.report_data import Accuracies, ClassScores, LabelScores
from medqlora.records import Record

#: draws of the bootstrap
RESAMPLES = 2_000
#: the confidence level of every interval
LEVEL = 0.95

Counts = NDArray[np.int64]
Values = NDArray[np.float64]


def confusion_counts(gold: Sequence[str], decisions: Sequence[str | None], labels: Sequence[str]) -> Counts:
    """Questions by gold label (row) and decision (column; the last: unparsed).

    Returns:
        Shape (len(labels), len(labels) + 1).

    Raises:
        ValueError: the lengths differ, there are no items, or a label is none of `labels`.
    """
    if len(gold) != len(decisions):
        raise ValueError(f"{len(gold)} gold labels and {len(decisions)} decisions")
    if not gold:
        raise ValueError("no items: there is nothing to score")
    row = {label: index for index, label in enumerate(labels)}
    column: dict[str | None, int] = {None: len(labels)}
    column.update(row)
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for right, decision in zip(gold, decisions, strict=True):
        if right not in row or decision not in column:
            raise ValueError(f"gold {right!r} or decision {decision!r} is none of {', '.join(labels)}")
        counts[row[right], column[decision]] += 1
    return counts


def accuracy(counts: Counts) -> float:
    """The share of questions whose decision is the gold label, 0 to 1; unparsed ones are wrong."""
    return float(np.trace(counts[:, :-1]) / counts.sum())


def class_scores(counts: Counts) -> tuple[Values, Values, Values]:
    """Precision, recall and F1 = 2·TP / (2·TP + FP + FN) of each label; 0 where the denominator is 0.

    Args:
        counts: shape (…, K, K + 1); leading axes are other tables (bootstrap resamples).

    Returns:
        Three arrays of shape (…, K).
    """
    hits = np.diagonal(counts[..., :-1], axis1=-2, axis2=-1).astype(np.float64)
    decided = counts[..., :-1].sum(axis=-2)
    gold = counts.sum(axis=-1)

    def ratio(top: Values, bottom: Counts) -> Values:
        return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)

    return ratio(hits, decided), ratio(hits, gold), ratio(2 * hits, decided + gold)


def macro_f1(counts: Counts) -> Values:
    """The mean F1 over *all* labels of the task, shape (…).

    As scikit-learn's `f1_score(average="macro", labels=all, zero_division=0)`: a label with neither gold
    nor decisions counts as 0. PubMedQA's own evaluation.py leaves such a label out of the mean; the two
    agree wherever every label occurs in the gold, as in its test set.
    """
    return np.asarray(class_scores(counts)[2].mean(axis=-1))


def per_class(counts: Counts, labels: Sequence[str]) -> dict[str, ClassScores]:
    """Label → precision, recall, f1, support (gold items) and predicted (decisions)."""
    precision, recall, f1 = class_scores(counts)
    return {
        label: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "support": int(counts[index].sum()),
            "predicted": int(counts[:, index].sum()),
        }
        for index, label in enumerate(labels)
    }


def wilson_interval(right: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion (https://doi.org/10.1080/01621459.1927.10502953).

    Raises:
        ValueError: `n` is 0 or `right` is not within 0…n.
    """
    if not 0 <= right <= n or n == 0:
        raise ValueError(f"{right} right of {n}: no proportion")
    from scipy.stats import binomtest

    interval = binomtest(right, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def resampled_tables(table: Counts, seed: int, resamples: int = RESAMPLES) -> Counts:
    """Tables of `resamples` bootstrap draws of the questions behind `table`, shape (resamples, *table.shape).

    Drawing n questions with replacement and counting them is one multinomial draw of n over the cells.
    """
    n = int(table.sum())
    drawn = np.random.default_rng(seed).multinomial(n, table.ravel() / n, size=resamples)
    return drawn.reshape(resamples, *table.shape)


def percentile_interval(draws: Values, level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of `draws`, shape (resamples,)."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def macro_f1_interval(counts: Counts, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Percentile bootstrap over items (Efron 1979) of macro-F1; the same seed gives the same interval."""
    return percentile_interval(macro_f1(resampled_tables(counts, seed, resamples)))


def majority_accuracy(counts: Counts) -> float:
    """The accuracy of always deciding for the most frequent gold label."""
    return float(counts.sum(axis=1).max() / counts.sum())


def summary(
    gold: Sequence[str], decisions: Sequence[str | None], labels: Sequence[str], seed: int
) -> LabelScores:
    """n, accuracy, macro-F1, their intervals, per_class and confusion_matrix, as plain values."""
    counts = confusion_counts(gold, decisions, labels)
    n = int(counts.sum())
    return {
        "n": n,
        "accuracy": accuracy(counts),
        "accuracy_ci95": list(wilson_interval(int(np.trace(counts[:, :-1])), n)),
        "macro_f1": float(macro_f1(counts)),
        "macro_f1_ci95": list(macro_f1_interval(counts, seed)),
        "per_class": per_class(counts, labels),
        "confusion_matrix": {
            "rows_gold": list(labels),
            "columns_decision": [*labels, "unparsed"],
            "counts": counts.tolist(),
        },
        "majority_accuracy": majority_accuracy(counts),
    }


def human_baselines(records: Sequence[Record], labels: Sequence[str], seed: int) -> dict[str, Accuracies]:
    """Scores of human annotators on these records, by the setting in which they worked.

    A record without an annotation of a setting is left out of that setting's `n`; an annotation that is
    none of `labels` is wrong.
    """
    baselines: dict[str, Accuracies] = {}
    for setting in dict.fromkeys(setting for record in records for setting in record.annotations):
        pairs = [
            (str(record.answer), record.annotations[setting])
            for record in records
            if record.answer in labels and setting in record.annotations
        ]
        if not pairs:
            continue
        decisions = [decision if decision in labels else None for _, decision in pairs]
        scores = summary([gold for gold, _ in pairs], decisions, labels, seed)
        baselines[setting] = {
            "n": scores["n"],
            "accuracy": scores["accuracy"],
            "accuracy_ci95": scores["accuracy_ci95"],
            "macro_f1": scores["macro_f1"],
            "macro_f1_ci95": scores["macro_f1_ci95"],
        }
    return baselines
