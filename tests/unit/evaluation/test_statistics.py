"""Every statistic equals an independent implementation's, on random and on degenerate inputs."""

import random

import numpy as np
import pytest
from evaluation_builders import prediction, random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from medqlora.evaluation.metrics.groups import by_group, by_length
from medqlora.evaluation.statistics.intervals import (
    accuracy,
    confusion_counts,
    human_baselines,
    macro_f1,
    macro_f1_interval,
    majority_accuracy,
    per_class,
    percentile_interval,
    resampled_tables,
    summary,
    wilson_interval,
)
from medqlora.evaluation.statistics.paired import compare, mcnemar_exact, paired_difference_interval
from medqlora.records import Record

LABELS = ("yes", "no", "maybe")
DECISIONS = st.sampled_from([*LABELS, None])
ITEMS = st.lists(st.tuples(st.sampled_from(LABELS), DECISIONS), min_size=1, max_size=60)

DEGENERATE = {
    "one item right": [("yes", "yes")],
    "one item wrong": [("yes", "no")],
    "one item unread": [("maybe", None)],
    "all right": [("yes", "yes"), ("no", "no"), ("maybe", "maybe")],
    "all wrong": [("yes", "no"), ("no", "maybe"), ("maybe", "yes")],
    "a class without gold": [("yes", "yes"), ("no", "no"), ("no", "maybe")],
    "a class without gold or decision": [("yes", "no"), ("no", "no")],
    "always the majority": [("yes", "yes")] * 5 + [("no", "yes")] * 3,
    "nothing read": [("yes", None), ("no", None)],
}


def against_scikit_learn(items: list[tuple[str, str | None]]) -> None:
    gold = [one for one, _ in items]
    said = [two or "unparsed" for _, two in items]
    counts = confusion_counts(gold, [two for _, two in items], LABELS)
    assert accuracy(counts) == pytest.approx(accuracy_score(gold, said))
    expected = f1_score(gold, said, labels=LABELS, average="macro", zero_division=0)
    assert float(macro_f1(counts)) == pytest.approx(expected)
    matrix = confusion_matrix(gold, said, labels=[*LABELS, "unparsed"])
    assert counts.tolist() == matrix[:3].tolist()
    precision, recall, f1, support = precision_recall_fscore_support(
        gold, said, labels=LABELS, zero_division=0
    )
    for place, (_, row) in enumerate(per_class(counts, LABELS).items()):
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == pytest.approx(
            [precision[place], recall[place], f1[place], support[place]]
        )


@given(ITEMS)
@settings(max_examples=60, deadline=None)
def test_accuracy_f1_and_confusion_are_scikit_learns(items: list[tuple[str, str | None]]) -> None:
    against_scikit_learn(items)


@pytest.mark.parametrize("items", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_accuracy_f1_and_confusion_are_scikit_learns_where_degenerate(
    items: list[tuple[str, str | None]],
) -> None:
    against_scikit_learn(items)
    whole = summary([one for one, _ in items], [two for _, two in items], LABELS, seed=0)
    for low, high in (whole["accuracy_ci95"], whole["macro_f1_ci95"]):
        assert 0 <= low <= high <= 1


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 500), (500, 500), (373, 500), (1, 7)])
def test_wilson_interval_is_statsmodels(right: int, n: int) -> None:
    from statsmodels.stats.proportion import proportion_confint

    expected = proportion_confint(right, n, alpha=0.05, method="wilson")
    assert wilson_interval(right, n) == pytest.approx(expected, abs=1e-12)


def test_five_hundred_questions_have_an_interval_of_nearly_four_points() -> None:
    low, high = wilson_interval(373, 500)
    assert (high - low) / 2 == pytest.approx(0.038, abs=0.001)


@pytest.mark.parametrize(("right", "n"), [(0, 0), (2, 1), (-1, 3)])
def test_no_proportion_is_refused(right: int, n: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(right, n)


def test_zero_items_and_unknown_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="no items"):
        confusion_counts([], [], LABELS)
    with pytest.raises(ValueError, match="none of"):
        confusion_counts(["yes"], ["perhaps"], LABELS)
    with pytest.raises(ValueError, match="1 gold labels and 0"):
        confusion_counts(["yes"], [], LABELS)


def test_bootstrap_is_that_of_drawing_the_items_one_by_one() -> None:
    items = random_predictions(120, seed=3, generated=False)
    gold, said = [str(one.gold) for one in items], [one.decision for one in items]
    low, high = macro_f1_interval(confusion_counts(gold, said, LABELS), seed=0)
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(1500):
        chosen = rng.integers(0, len(items), len(items))
        drawn = confusion_counts([gold[one] for one in chosen], [said[one] for one in chosen], LABELS)
        draws.append(float(macro_f1(drawn)))
    assert [low, high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.015)


def test_percentile_interval_leaves_a_fortieth_out_at_each_end() -> None:
    assert percentile_interval(np.linspace(0, 1, 1001)) == pytest.approx((0.025, 0.975))


def test_bootstrap_is_seeded_and_draws_as_many_items() -> None:
    counts = confusion_counts(["yes", "no", "maybe", "no"], ["yes", "no", None, "yes"], LABELS)
    assert macro_f1_interval(counts, seed=5) == macro_f1_interval(counts, seed=5)
    assert (resampled_tables(counts, 5) != resampled_tables(counts, 6)).any()
    assert (resampled_tables(counts, 0).sum(axis=(1, 2)) == 4).all()
    assert len(resampled_tables(counts, 0)) == 2000


def test_majority_is_the_most_frequent_gold_label() -> None:
    counts = confusion_counts(["yes"] * 276 + ["no"] * 169 + ["maybe"] * 55, ["no"] * 500, LABELS)
    assert majority_accuracy(counts) == 0.552


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 7), (5, 5), (30, 45), (3, 17)])
def test_mcnemar_is_statsmodels_exact_test(b: int, c: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    assert mcnemar_exact(b, c) == pytest.approx(mcnemar([[3, b], [c, 2]], exact=True).pvalue)


def test_paired_interval_gives_published_results() -> None:
    # contingencytables 1.0 (R), test of its chapter 8; Fagerland et al. 2014, airway responsiveness
    assert paired_difference_interval(59, 6, 16, 80) == pytest.approx((-0.1186, -0.0046), abs=5e-5)
    assert paired_difference_interval(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)
    # Newcombe 1998: a correlation below 0 is not moved towards it
    assert paired_difference_interval(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@pytest.mark.parametrize(
    "table", [(1, 0, 0, 0), (0, 0, 0, 4), (500, 0, 0, 0), (0, 9, 0, 0), (0, 5, 5, 0), (3, 0, 0, 2)]
)
def test_paired_interval_holds_its_difference_where_degenerate(table: tuple[int, int, int, int]) -> None:
    low, high = paired_difference_interval(*table)
    assert -1 <= low <= (table[1] - table[2]) / sum(table) <= high <= 1
    assert high > low


def test_paired_interval_covers_the_truth_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    chances = [0.62, 0.10, 0.07, 0.21]
    draws = rng.multinomial(500, chances, size=600)
    inside = 0
    for table in draws:
        low, high = paired_difference_interval(*(int(one) for one in table))
        inside += low <= 0.03 <= high
    assert 0.92 <= inside / len(draws) <= 0.99


def test_comparison_has_the_sign_of_this_model_minus_the_base() -> None:
    gold = ["yes"] * 10
    better = compare(gold, ["yes"] * 9 + [None], ["yes"] * 4 + ["no"] * 6, LABELS, seed=0)
    assert better["difference"] == 0.5
    assert better["pairs"] == {"both_right": 4, "only_this_right": 5, "only_base_right": 0, "both_wrong": 1}
    worse = compare(gold, ["yes"] * 4 + ["no"] * 6, ["yes"] * 9 + [None], LABELS, seed=0)
    assert worse["difference"] == -0.5
    assert worse["mcnemar_p"] == better["mcnemar_p"]
    assert worse["macro_f1_difference"] == pytest.approx(-float(str(better["macro_f1_difference"])))


def test_the_interval_of_the_macro_f1_difference_is_that_of_drawing_both_models_items_together() -> None:
    first, second = (random_predictions(150, seed=9, skill=skill, generated=False) for skill in (2.5, 1.0))
    gold = [str(one.gold) for one in first]
    said, other = ([one.decision for one in those] for those in (first, second))
    found = compare(gold, said, other, LABELS, seed=0)
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(1500):
        chosen = rng.integers(0, len(gold), len(gold))
        right = [gold[one] for one in chosen]
        tables = [confusion_counts(right, [those[one] for one in chosen], LABELS) for those in (said, other)]
        draws.append(float(macro_f1(tables[0]) - macro_f1(tables[1])))
    assert found["macro_f1_difference_ci95"] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)


def test_a_model_does_not_differ_from_itself() -> None:
    items = random_predictions(50, generated=False)
    gold, said = [str(one.gold) for one in items], [one.decision for one in items]
    same = compare(gold, said, said, LABELS, seed=0)
    assert same["difference"] == same["macro_f1_difference"] == 0
    assert same["macro_f1_difference_ci95"] == [0, 0]
    assert same["mcnemar_p"] == 1


def test_human_baselines_are_by_setting_and_count_only_annotated_records() -> None:
    records = [
        Record("1", "?", answer="yes", annotations={"reasoning_required": "yes", "reasoning_free": "no"}),
        Record("2", "?", answer="no", annotations={"reasoning_required": "no"}),
        Record("3", "?", answer="no", annotations={"reasoning_required": "unclear"}),
        Record("4", "?", answer="no"),
    ]
    human = human_baselines(records, LABELS, seed=0)
    assert (human["reasoning_required"]["n"], human["reasoning_free"]["n"]) == (3, 1)
    assert human["reasoning_required"]["accuracy"] == pytest.approx(2 / 3)
    assert human["reasoning_free"]["accuracy"] == 0
    assert human_baselines(records[3:], LABELS, seed=0) == {}


def test_groups_count_an_item_in_each_and_merge_the_small_ones_once() -> None:
    right = [True] * 6 + [False] * 6
    rows = by_group({"all": range(12), "some": range(3, 12), "few": [0, 1], "fewer": [1]}, right, minimum=5)
    assert [(row["group"], row["n"], row["accuracy"]) for row in rows] == [
        ("all", 12, 0.5),
        ("some", 9, pytest.approx(1 / 3)),
        ("other", 2, 1.0),
    ]
    assert rows[-1]["merged_groups"] == 2
    assert rows[0]["accuracy_ci95"] == list(wilson_interval(6, 12))


@given(st.lists(st.integers(0, 6000), min_size=1, max_size=80))
@settings(max_examples=60, deadline=None)
def test_length_groups_hold_every_item_once(lengths: list[int]) -> None:
    items = [prediction(place, "yes", tokens=tokens) for place, tokens in enumerate(lengths)]
    rows = by_length(items, [True] * len(items))
    assert sum(row["n"] for row in rows) == len(items)
    assert all(row["n"] >= 10 for row in rows) or len(rows) == 1


def test_order_of_items_changes_nothing() -> None:
    items = random_predictions(80, seed=4)
    shuffled = random.Random(0).sample(items, len(items))
    results = []
    for those in (items, shuffled):
        gold, said = [str(one.gold) for one in those], [one.parsed for one in those]
        results.append(summary(gold, said, LABELS, 0))
    assert results[0] == results[1]
