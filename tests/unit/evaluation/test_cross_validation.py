"""A cross-validation's figures, and models side by side, against scikit-learn, numpy and statsmodels."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from medqlora.errors import InputError
from medqlora.evaluation.cross_validation import (
    FoldResult,
    compare_groups,
    cross_validation,
    prediction_of,
    prediction_row,
)
from medqlora.evaluation.report.cross_validation_page import cross_validation_table, render_cross_validation
from medqlora.evaluation.side_by_side import side_by_side, verdict
from medqlora.records import Prediction

LABELS = ("yes", "no", "maybe")


def predictions(count: int, seed: int, start: int = 0) -> list[Prediction]:
    draw = random.Random(seed)
    found = []
    for number in range(start, start + count):
        gold = LABELS[number % 3]
        scores = tuple(draw.gauss(-1 if label == gold else -2, 1) for label in LABELS)
        found.append(Prediction(f"q{number}", gold, LABELS, scores, (1, 1, 1), context_tokens=7))
    return found


def folds(seed: int) -> list[FoldResult]:
    return [FoldResult(fold, f"version_{fold}", predictions(30, seed + fold, 30 * fold)) for fold in range(4)]


def test_mean_spread_and_pooled_scores_are_those_of_numpy_and_scikit_learn() -> None:
    given = folds(1)
    found = cross_validation(given)
    each = [
        accuracy_score([one.gold for one in fold.predictions], [one.decision for one in fold.predictions])
        for fold in given
    ]
    assert found["accuracy"]["mean"] == pytest.approx(np.mean(each))
    assert found["accuracy"]["sd"] == pytest.approx(np.std(each, ddof=1))
    pooled = [one for fold in given for one in fold.predictions]
    gold, decisions = [one.gold for one in pooled], [one.decision for one in pooled]
    assert found["pooled"]["accuracy"] == pytest.approx(accuracy_score(gold, decisions))
    assert found["pooled"]["macro_f1"] == pytest.approx(f1_score(gold, decisions, average="macro"))
    recalls = [
        np.mean([one.decision == "maybe" for one in fold.predictions if one.gold == "maybe"])
        for fold in given
    ]
    assert found["per_class"]["maybe"]["recall"]["mean"] == pytest.approx(np.mean(recalls))


def test_two_groups_are_compared_question_by_question() -> None:
    one, other = folds(1), folds(50)
    found = compare_groups(one, other, "cv_1")
    right = [
        (a.decision == a.gold, b.decision == b.gold)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x.predictions, y.predictions, strict=True)
    ]
    table = [
        [right.count((True, True)), right.count((True, False))],
        [right.count((False, True)), right.count((False, False))],
    ]
    assert found["paired"]["mcnemar_p"] == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert found["paired"]["difference"] == pytest.approx(found["accuracy"] - found["other_accuracy"])
    assert found["by_fold"] is not None
    assert found["by_fold"]["mean"] == pytest.approx(found["paired"]["difference"])
    changed = [FoldResult(0, "", [Prediction("q0", "no", LABELS, (0.0, -1.0, -2.0), (1, 1, 1))])]
    with pytest.raises(InputError, match="another answer"):
        compare_groups(one, changed, "cv_1")


def test_a_question_in_two_folds_or_without_labels_is_refused() -> None:
    with pytest.raises(InputError, match="two folds"):
        cross_validation([FoldResult(0, "", predictions(3, 0)), FoldResult(1, "", predictions(3, 0))])
    with pytest.raises(InputError, match="labels"):
        cross_validation([FoldResult(0, "", [Prediction("a", "free text", ())])])


def test_a_prediction_is_read_back_exactly() -> None:
    for one in predictions(5, 3):
        assert prediction_of(prediction_row(one)) == one
    for wrong in ({}, {**prediction_row(predictions(1, 0)[0]), "logprobs": [0.5]}):
        with pytest.raises((KeyError, ValueError)):
            prediction_of(wrong)


def test_the_page_has_every_part_and_escapes_what_is_given() -> None:
    found = cross_validation(folds(2))
    found["calibration"] = {
        "n": 120,
        "temperature": 1.5,
        "threshold": 0.6,
        "target_risk": 0.1,
        "answered": 40,
        "wrong": 4,
        "risk_ci95": [0.04, 0.23],
    }
    found["compared"] = compare_groups(folds(2), folds(9), "<b>cv_1</b>")
    curves = {"fold 0": {"train/loss": [(0, 1.0), (1, 0.5)], "val/accuracy": [(1, 0.5)]}}
    page = render_cross_validation(found, curves, {"command": "medqlora <fit>"})
    for part in (
        "Mean and spread",
        "Each fold",
        "By answer",
        "Against another",
        "Learning curves",
        "Temperature 1.5",
    ):
        assert part in page
    assert "<b>cv_1</b>" not in page
    assert "<fit>" not in page
    assert "McNemar" in cross_validation_table(found)


def test_models_side_by_side_have_exact_tests_adjusted_by_holm() -> None:
    gold = [LABELS[number % 3] for number in range(90)]
    draw = random.Random(4)
    decisions = {
        name: [answer if draw.random() < share else "maybe" for answer in gold]
        for name, share in (("first", 0.3), ("good", 0.95), ("alike", 0.35), ("other", 0.6))
    }
    rows = side_by_side(gold, LABELS, ("first", decisions.pop("first")), decisions)
    assert [row["name"] for row in rows] == ["first", "good", "alike", "other"]
    plain = [row["mcnemar_p"] for row in rows[1:]]
    assert [row["mcnemar_p_holm"] for row in rows[1:]] == pytest.approx(
        multipletests(plain, method="holm")[1]
    )
    assert [verdict(row) for row in rows[:2]] == ["", "better"]
    assert verdict(rows[2]) == "may be chance"


def test_runs_on_other_questions_under_the_same_ids_are_not_paired() -> None:
    from medqlora.artifacts.run_summary import Decided, RunSummary
    from medqlora.commands.compare import paired

    def tested(name: str, text: str | None, *idents: str) -> RunSummary:
        return RunSummary(name, "test", answers={ident: Decided("yes", "yes", text) for ident in idents})

    one = tested("one", "Does it help?", "a", "b")
    with pytest.raises(InputError, match="RUN other: b is another question than in one"):
        paired([one, tested("other", "Does it harm?", "b", "c")])
    for text in ("Does it help?", None):
        rows, notes = paired([one, tested("other", text, "b", "c")])
        assert [row["n"] for row in rows] == [1, 1]
        assert "on the 1 questions" in notes[0]


def test_a_test_of_free_answers_has_no_decisions_to_pair(tmp_path: Path) -> None:
    from medqlora.artifacts.run_summary import summarize
    from medqlora.commands.compare import paired

    for name in ("version_0", "version_1"):
        (tmp_path / name).mkdir()
        report = {"dataset": "d", "split": "test", "decided_by": "exact_match"}
        (tmp_path / name / "test_report.json").write_text(json.dumps(report))
        lines = [{"id": f"q{n}", "gold": f"answer {n}", "text": "x", "exact_match": False} for n in range(3)]
        (tmp_path / name / "predictions.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    rows, notes = paired([summarize(str(tmp_path / name)) for name in ("version_0", "version_1")])
    assert rows == []
    assert len(notes) == 2
    assert all("no decisions to pair" in note for note in notes)


def test_cross_validations_of_other_questions_under_the_same_ids_are_not_paired() -> None:
    one, other, older = (
        [FoldResult(0, "", predictions(3, 1), {f"q{n}": f"{text} {n}" for n in range(3)} if text else {})]
        for text in ("easy", "hard", "")
    )
    with pytest.raises(InputError, match="q0 is another question there"):
        compare_groups(one, other, "cv_1")
    assert compare_groups(one, older, "cv_1")["n"] == compare_groups(one, one, "cv_1")["n"] == 3
