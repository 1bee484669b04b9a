"""Calibration and selective prediction equal their definitions and independent implementations."""

import math
from dataclasses import replace

import numpy as np
import pytest
from evaluation_builders import prediction, random_predictions, records_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from medqlora.evaluation import score
from medqlora.evaluation.metrics.calibration import (
    TEMPERATURES,
    brier_score,
    calibration,
    expected_calibration_error,
    fit_temperature,
    log_probabilities,
    negative_log_likelihood,
    reliability,
)
from medqlora.evaluation.metrics.selective import risks, selective
from medqlora.inference import calibrate
from medqlora.records import YES_NO_MAYBE, Prediction


@pytest.mark.parametrize("n", [1, 2, 40, 500])
def test_ece_is_torchmetrics(n: int) -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import multiclass_calibration_error

    items = random_predictions(n, generated=False)
    probabilities = torch.tensor([one.probabilities for one in items], dtype=torch.float64)
    gold = torch.tensor([YES_NO_MAYBE.index(str(one.gold)) for one in items])
    expected = multiclass_calibration_error(probabilities, gold, num_classes=3, n_bins=15, norm="l1")
    assert calibration(items)["ece"] == pytest.approx(float(expected), abs=1e-6)  # it counts in float32


@pytest.mark.parametrize("n", [1, 2, 40, 500])
def test_brier_and_nll_are_scikit_learns(n: int) -> None:
    items = random_predictions(n, seed=n, generated=False)
    probabilities = np.array([one.probabilities for one in items])
    gold = [str(one.gold) for one in items]
    order = [YES_NO_MAYBE.index(label) for label in sorted(YES_NO_MAYBE)]
    assert brier_score(items) == pytest.approx(
        brier_score_loss(gold, probabilities[:, order], labels=sorted(YES_NO_MAYBE), scale_by_half=False)
    )
    assert negative_log_likelihood(items) == pytest.approx(
        log_loss(gold, probabilities[:, order], labels=sorted(YES_NO_MAYBE))
    )


def test_brier_runs_from_0_to_2() -> None:
    assert brier_score([prediction(0, "yes", [0, -900, -900])]) == 0
    assert brier_score([prediction(0, "no", [0, -900, -900])]) == 2


def test_a_hopeless_label_has_a_finite_nll() -> None:
    assert negative_log_likelihood([prediction(0, "no", [0, -900, -900])]) == pytest.approx(900)
    assert negative_log_likelihood([prediction(0, "no", [-9000, -9900, -9900])]) == pytest.approx(900)


@pytest.mark.parametrize(("right", "ece"), [([True, True], 0.0), ([False, False], 1.0), ([True, False], 0.5)])
def test_ece_of_certain_decisions_is_their_error_rate(right: list[bool], ece: float) -> None:
    bins = reliability([1.0, 1.0], right)
    assert expected_calibration_error(bins) == ece
    assert len(bins) == 15
    assert bins[-1]["n"] == 2


def test_a_confidence_between_two_bins_belongs_to_the_upper_one() -> None:
    for number, one in enumerate(reliability([0.5], [True])):
        assert reliability([one["low"]], [True])[number]["n"] == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_every_confidence_lies_in_its_bin(items: list[tuple[float, bool]]) -> None:
    bins = reliability([one for one, _ in items], [two for _, two in items])
    assert sum(one["n"] for one in bins) == len(items)
    for one in bins:
        if one["n"]:
            assert one["low"] - 1e-12 <= one["confidence"] <= one["high"] + 1e-12
    assert 0 <= expected_calibration_error(bins) <= 1


def test_temperature_finds_the_one_that_was_put_in() -> None:
    rng = np.random.default_rng(0)
    for true in (0.5, 1.0, 2.5):
        items = []
        for number in range(3000):
            scores = rng.normal(size=3) * 2
            p = np.exp(scores) / np.exp(scores).sum()
            items.append(prediction(number, YES_NO_MAYBE[rng.choice(3, p=p)], scores * true))
        assert fit_temperature(items) == pytest.approx(true, rel=0.1)


def test_temperature_is_the_best_of_a_fine_grid() -> None:
    items = random_predictions(80, seed=2, generated=False)
    fitted = fit_temperature(items)
    grid = [negative_log_likelihood(items, value) for value in np.geomspace(*TEMPERATURES, 400)]
    assert negative_log_likelihood(items, fitted) <= min(grid) + 1e-9


def test_temperature_of_all_right_or_all_wrong_stays_within_its_bounds() -> None:
    assert TEMPERATURES[0] <= fit_temperature([prediction(0, "yes", [0, -3, -3])]) < 0.1
    assert fit_temperature([prediction(0, "no", [0, -3, -3])]) == pytest.approx(TEMPERATURES[1])


def test_temperature_changes_no_decision() -> None:
    for one in random_predictions(30, generated=False):
        assert int(log_probabilities(one, 3.0).argmax()) == one.labels.index(str(one.decision))


def test_calibration_at_a_temperature_is_that_of_the_divided_log_likelihoods() -> None:
    items = random_predictions(60, seed=6, generated=False)
    divided = [replace(one, logprobs=tuple(value / 2.5 for value in one.logprobs)) for one in items]
    found, expected = calibration(items, 2.5), calibration(divided)
    for key in ("ece", "brier", "nll"):
        assert found[key] == pytest.approx(expected[key])


def test_temperature_needs_dev_predictions() -> None:
    with pytest.raises(ValueError, match="dev predictions"):
        fit_temperature([])
    with pytest.raises(ValueError, match="dev predictions"):
        fit_temperature([Prediction("1", None, YES_NO_MAYBE, (0.0, -1.0, -2.0), (1, 1, 1))])


def risks_one_by_one(confidence: list[float], right: list[bool]) -> list[float]:
    """The mean over many random orders of the ties."""
    rng = np.random.default_rng(0)
    total = np.zeros(len(right))
    for _ in range(3000):
        order = sorted(range(len(right)), key=lambda one: (-confidence[one], rng.random()))
        wrong = np.cumsum([not right[one] for one in order])
        total += wrong / np.arange(1, len(right) + 1)
    return (total / 3000).tolist()


@pytest.mark.parametrize(
    ("confidence", "right"),
    [
        ([0.9, 0.8, 0.7, 0.6], [True, False, True, False]),
        ([0.5, 0.5, 0.5, 0.5], [True, False, True, False]),
        ([0.9, 0.7, 0.7, 0.7, 0.2], [False, True, False, True, True]),
        ([1.0], [True]),
        ([0.4], [False]),
    ],
)
def test_risks_are_the_expectation_over_orders_of_ties(confidence: list[float], right: list[bool]) -> None:
    expected = risks_one_by_one(confidence, right)
    assert risks(confidence, right) == pytest.approx(expected, abs=0.03)
    assert selective(confidence, right)["aurc"] == pytest.approx(np.mean(expected), abs=0.02)


@given(
    st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.booleans()), min_size=1, max_size=40),
    st.randoms(),
)
@settings(deadline=None)
def test_aurc_does_not_depend_on_the_order_of_items(items: list[tuple[float, bool]], rng: object) -> None:
    shuffled = list(items)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    values = [selective(*map(list, zip(*those, strict=True)))["aurc"] for those in (items, shuffled)]
    assert values[0] == pytest.approx(values[1])


def test_aurc_at_its_ends() -> None:
    assert selective([0.3, 0.4], [True, True])["aurc"] == 0
    assert selective([0.3, 0.4], [False, False])["aurc"] == 1
    assert selective([0.5] * 10, [True] * 7 + [False] * 3)["aurc"] == pytest.approx(0.3)


def test_accuracy_at_80_percent_coverage_is_that_of_the_surest_four_fifths() -> None:
    confidence = [0.99, 0.9, 0.8, 0.7, 0.6]
    chosen = selective(confidence, [True, True, True, False, False])
    assert chosen["answered"] == 4
    assert chosen["accuracy_at_coverage"] == pytest.approx(0.75)
    assert chosen["confidence_at_coverage"] == 0.7
    assert chosen["curve"][-1] == [1.0, pytest.approx(0.4)]


def test_coverage_of_five_hundred_is_four_hundred() -> None:
    assert selective([0.5] * 500, [True] * 500)["answered"] == 400
    assert len(selective(np.linspace(0, 1, 500).tolist(), [True] * 500)["curve"]) == 200


def test_no_items_are_refused() -> None:
    with pytest.raises(ValueError, match="0 confidences"):
        risks([], [])


def test_log_probabilities_sum_to_one() -> None:
    assert math.fsum(np.exp(log_probabilities(prediction(0, "yes", [-700, -701, -1e4])))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("count", "wrong", "why"),
    [
        (19, 3, "19 validation questions are too few, 20 are the least"),
        (40, 0, "all 40 validation questions were decided rightly"),
        (40, 6, None),
    ],
)
def test_the_record_and_the_report_have_one_temperature_for_the_same_questions(
    count: int, wrong: int, why: str | None
) -> None:
    """A report once said 0.05, the model card 1, for 64 questions that were all decided rightly."""
    labels = ("yes", "no")
    dev = [
        prediction(n, labels[(n % 2) ^ (n < wrong)], [-0.5 * (n % 2), -0.3 - n % 3 * 0.01], labels=labels)
        for n in range(count)
    ]
    tested = [replace(one, id=f"test{one.id}") for one in dev]
    temperature = score(tested, records=records_of(tested), dev=dev).more["temperature"]
    assert temperature is not None
    assert temperature["value"] == calibrate(dev).temperature
    assert temperature["why_not_fitted"] == why
    assert (temperature["value"] == 1.0) == (why is not None)
