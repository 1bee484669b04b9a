"""A cross-validation's figures: mean and spread over the folds, and the pooled out-of-fold predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from medqlora.errors import InputError
from medqlora.evaluation.aggregate_data import Spread
from medqlora.evaluation.metrics.calibration import calibration
from medqlora.evaluation.report_data import Comparison, Interval, LabelScores
from medqlora.evaluation.statistics.aggregation import spread
from medqlora.evaluation.statistics.intervals import summary
from medqlora.evaluation.statistics.paired import compare
from medqlora.records import Prediction


@dataclass(frozen=True)
class FoldResult:
    """One fold.

    Attributes:
        fold: its number.
        run: its run's folder, as text.
        predictions: of its validation questions, by the adapter that did not train on them.
        questions: id → SHA-256 of the question's text; empty of older files.
    """

    fold: int
    run: str
    predictions: Sequence[Prediction]
    questions: Mapping[str, str] = field(default_factory=dict)


class FoldRow(TypedDict):
    """One fold's scores."""

    fold: int
    run: str
    n: int
    accuracy: float
    accuracy_ci95: Interval
    macro_f1: float


class GroupComparison(TypedDict):
    """Two cross-validations on the same questions; differences are this one's minus the other's.

    Attributes:
        against: the other's folder.
        n: questions in both.
        other_accuracy: of the other, on them.
        paired: the comparison, question by question.
        by_fold: difference in accuracy of each fold that both have; None where fewer than two.
    """

    against: str
    n: int
    accuracy: float
    other_accuracy: float
    paired: Comparison
    by_fold: Spread | None


class CrossValidation(TypedDict, total=False):
    """`cv_report.json`.

    Attributes:
        folds: the folds.
        each: scores of each.
        accuracy, macro_f1: mean and spread over the folds.
        per_class: label → score → mean and spread over the folds.
        pooled: scores of all out-of-fold predictions together, each question once.
        ece: of the pooled predictions as scored.
        calibration: temperature and threshold from them, see `medqlora.inference.Calibration`.
        compared: with another cross-validation; absent without one.
    """

    folds: list[int]
    each: list[FoldRow]
    accuracy: Spread
    macro_f1: Spread
    per_class: dict[str, dict[str, Spread]]
    pooled: LabelScores
    ece: float
    calibration: dict[str, object]
    compared: GroupComparison
    more: dict[str, object]


def cross_validation(folds: Sequence[FoldResult], seed: int = 0) -> CrossValidation:
    """The figures of a cross-validation.

    Mean, standard deviation and Student's t interval are over the folds. Folds share training questions, so their
    scores depend on each other, and the interval is too narrow rather than too wide (Bengio and Grandvalet 2004,
    https://www.jmlr.org/papers/v5/grandvalet04a.html). The pooled scores have each question once, with Wilson's
    interval over questions.

    Args:
        folds: at least one; no question is in two.
        seed: of the bootstrap.

    Raises:
        InputError: a question is in two folds, or has no labels.
    """
    pooled = [one for fold in folds for one in fold.predictions]
    if not pooled or not all(one.logprobs and one.gold in one.labels for one in pooled):
        raise InputError(
            "--folds: the validation questions need labels to choose from: free answers have none"
        )
    if len({one.id for one in pooled}) < len(pooled):
        raise InputError("--folds: a question is in two folds' validation sets: check the source's `fold`")
    labels = list(dict.fromkeys(label for one in pooled for label in one.labels))
    scores = [_scores(fold.predictions, labels, seed) for fold in folds]
    rows: list[FoldRow] = [
        {
            "fold": fold.fold,
            "run": fold.run,
            "n": of_fold["n"],
            "accuracy": of_fold["accuracy"],
            "accuracy_ci95": of_fold["accuracy_ci95"] or [],
            "macro_f1": of_fold["macro_f1"] or 0.0,
        }
        for fold, of_fold in zip(folds, scores, strict=True)
    ]
    classes = [of_fold["per_class"] or {} for of_fold in scores]
    return {
        "folds": [fold.fold for fold in folds],
        "each": rows,
        "accuracy": spread([row["accuracy"] for row in rows]),
        "macro_f1": spread([row["macro_f1"] for row in rows]),
        "per_class": {
            label: {
                "precision": spread([of_fold[label]["precision"] for of_fold in classes]),
                "recall": spread([of_fold[label]["recall"] for of_fold in classes]),
                "f1": spread([of_fold[label]["f1"] for of_fold in classes]),
            }
            for label in labels
        },
        "pooled": _scores(pooled, labels, seed),
        "ece": float(calibration(pooled)["ece"]),
    }


def compare_groups(
    folds: Sequence[FoldResult], others: Sequence[FoldResult], against: str, seed: int = 0
) -> GroupComparison:
    """The paired comparison of two cross-validations on the questions that both have.

    Args:
        folds, others: of this one, and of the other.
        against: the other's folder.
        seed: of the bootstrap.

    Raises:
        InputError: they have no question in common, an id stands for two questions, or one has two answers.
    """
    other = {one.id: one for fold in others for one in fold.predictions}
    pairs = [(one, other[one.id]) for fold in folds for one in fold.predictions if one.id in other]
    if not pairs:
        raise InputError(
            f"--against {against}: it has none of these questions: name a cross-validation on the same data"
        )
    texts, other_texts = (
        {ident: text for fold in part for ident, text in fold.questions.items()} for part in (folds, others)
    )
    both = [one.id for one, _ in pairs if one.id in texts and one.id in other_texts]
    if ident := next((ident for ident in both if texts[ident] != other_texts[ident]), None):
        raise InputError(f"--against {against}: {ident} is another question there: compare on the same data")
    if differs := next((one.id for one, two in pairs if one.gold != two.gold), None):
        raise InputError(
            f"--against {against}: question {differs} has another answer there: compare on the same data"
        )
    labels = list(dict.fromkeys(label for one, _ in pairs for label in one.labels))
    gold = [str(one.gold) for one, _ in pairs]
    decisions = [[one.decision for one, _ in pairs], [two.decision for _, two in pairs]]
    by_number = {fold.fold: fold for fold in others}
    differences = []
    for fold in folds:
        same = by_number.get(fold.fold)
        if same is not None and {one.id for one in same.predictions} == {one.id for one in fold.predictions}:
            differences.append(_accuracy(fold.predictions) - _accuracy(same.predictions))
    return {
        "against": against,
        "n": len(pairs),
        "accuracy": _share(gold, decisions[0]),
        "other_accuracy": _share(gold, decisions[1]),
        "paired": compare(gold, decisions[0], decisions[1], labels, seed),
        "by_fold": spread(differences) if len(differences) > 1 else None,
    }


def prediction_row(one: Prediction) -> dict[str, object]:
    """A prediction as plain values; `prediction_of` reads it back exactly."""
    return {
        "id": one.id,
        "gold": one.gold,
        "labels": list(one.labels),
        "logprobs": list(one.logprobs),
        "lengths": list(one.lengths),
        "context_tokens": one.context_tokens,
    }


def prediction_of(row: Mapping[str, object]) -> Prediction:
    """The prediction of a row.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """

    def listed(key: str) -> list[object]:
        value = row[key]
        if not isinstance(value, list):
            raise TypeError(f"{key} is no list")
        return value

    gold, tokens = row["gold"], row["context_tokens"]
    logprobs = tuple(float(str(value)) for value in listed("logprobs"))
    lengths = tuple(int(str(value)) for value in listed("lengths"))
    labels = tuple(map(str, listed("labels")))
    if len(labels) != len(logprobs):
        raise ValueError("a label has no log-probability")
    return Prediction(
        str(row["id"]),
        None if gold is None else str(gold),
        labels,
        logprobs,
        lengths,
        context_tokens=int(str(tokens)),
    )


def _scores(predictions: Sequence[Prediction], labels: Sequence[str], seed: int) -> LabelScores:
    return summary(
        [str(one.gold) for one in predictions], [one.decision for one in predictions], labels, seed
    )


def _accuracy(predictions: Sequence[Prediction]) -> float:
    return _share([str(one.gold) for one in predictions], [one.decision for one in predictions])


def _share(gold: Sequence[str], decisions: Sequence[str | None]) -> float:
    return sum(one == two for one, two in zip(gold, decisions, strict=True)) / len(gold)
