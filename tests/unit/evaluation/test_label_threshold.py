"""A threshold for the rarest label: the best of all thresholds on validation, reported beside argmax."""

import math
import random

import pytest

from medqlora.evaluation.metrics.label_threshold import (
    fit_threshold,
    label_threshold,
    rarest_label,
    with_threshold,
)
from medqlora.evaluation.metrics.scores import score
from medqlora.records import YES_NO_MAYBE, Prediction, Record


def predicted(count: int, seed: int, prefix: str) -> list[Prediction]:
    """Predictions that rarely put "maybe" first, but raise its probability where it is right."""
    rng, made = random.Random(seed), []
    for number in range(count):
        gold = rng.choices(YES_NO_MAYBE, (5, 3, 2))[0]
        logits = [
            rng.gauss(1.5 if label == gold else 0, 1) - (1.5 if label == "maybe" else 0)
            for label in YES_NO_MAYBE
        ]
        total = math.log(sum(map(math.exp, logits)))
        logprobs = tuple(value - total for value in logits)
        made.append(Prediction(f"{prefix}{number}", gold, YES_NO_MAYBE, logprobs, (1, 1, 1)))
    return made


def test_the_threshold_is_the_best_of_a_fine_grid() -> None:
    from sklearn.metrics import f1_score

    dev = predicted(120, 0, "d")
    assert rarest_label(dev) == "maybe"
    gold = [str(one.gold) for one in dev]

    def macro_f1(threshold: float) -> float:
        return float(
            f1_score(gold, [with_threshold(one, "maybe", threshold) for one in dev], average="macro")
        )

    best = max(macro_f1(step / 1000) for step in range(1, 1001))
    assert macro_f1(fit_threshold(dev, "maybe")) >= best - 1e-9
    assert best > macro_f1(1.0)


def test_the_report_has_it_beside_argmax_and_argmax_stays_the_headline() -> None:
    test, dev = predicted(200, 1, "t"), predicted(120, 0, "d")
    records = [Record(one.id, "?", answer=one.gold) for one in test]
    alone, both = (score(test, records=records, dev=part) for part in (None, dev))
    assert (alone.accuracy, alone.macro_f1) == (both.accuracy, both.macro_f1)
    block = both.more["label_threshold"]
    assert block is not None
    assert "label_threshold" not in alone.more
    assert block["label"] == "maybe"
    assert block["decided"] > block["decided_by_argmax"]
    assert block["macro_f1"] > (both.macro_f1 or 1)
    shown = both.more["metrics"]["maybe_by_threshold"]
    assert isinstance(shown, dict)
    assert shown["macro_f1"] == block["macro_f1"]


def test_two_labels_or_too_few_questions_support_none() -> None:
    dev = predicted(40, 2, "d")
    few = [one for one in dev if one.gold != "maybe"] + [one for one in dev if one.gold == "maybe"][:2]
    assert rarest_label(few) is None
    two = [Prediction("a", "yes", ("yes", "no"), (-0.5, -1.0), (1, 1))] * 9
    assert rarest_label(two) is None
    assert label_threshold(dev, few, 0) is None


@pytest.mark.parametrize(("threshold", "decision"), [(0.2, "maybe"), (0.3, "maybe"), (0.31, "yes")])
def test_a_probability_that_reaches_the_threshold_decides(threshold: float, decision: str) -> None:
    one = Prediction("a", None, YES_NO_MAYBE, (math.log(0.5), math.log(0.2), math.log(0.3)), (1, 1, 1))
    assert with_threshold(one, "maybe", threshold - 1e-12) == decision
