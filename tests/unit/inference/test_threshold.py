"""The threshold is the lowest that the dev questions allow, and says how little they show."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from medqlora.errors import InputError
from medqlora.evaluation import fit_temperature
from medqlora.inference import Calibration, calibrate
from medqlora.records import YES_NO_MAYBE, Prediction, softmax


def prediction(number: int, gold: str | None, *logprobs: float) -> Prediction:
    return Prediction(str(number), gold, YES_NO_MAYBE, tuple(logprobs), (1,) * len(logprobs))


def dev_set(n: int, seed: int = 0, skill: float = 1.5) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        right = int(rng.integers(3))
        scores = rng.normal(size=3)
        scores[right] += skill
        made.append(prediction(number, YES_NO_MAYBE[right], *scores.tolist()))
    return made


def by_trying(dev: list[Prediction], temperature: float, target: float) -> tuple[float, int, int] | None:
    """The lowest confidence of a dev question that keeps the risk, by trying every one of them."""
    sure = [max(softmax(one.logprobs, temperature)) for one in dev]
    found = None
    for threshold in sorted(set(sure), reverse=True):
        answered = [one for one, value in zip(dev, sure, strict=True) if value >= threshold]
        wrong = sum(one.decision != one.gold for one in answered)
        if wrong / len(answered) <= target:
            found = threshold, len(answered), wrong
    return found


@pytest.mark.parametrize("target", [0.0, 0.05, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_one_found_by_trying_all(seed: int, target: float) -> None:
    dev = dev_set(50, seed)
    made = calibrate(dev, target)
    assert made.temperature == fit_temperature(dev)
    expected = by_trying(dev, made.temperature, target)
    if expected is None:
        assert (made.threshold > 1, made.answered, made.wrong, made.risk_ci95) == (True, 0, 0, None)
    else:
        assert (made.threshold, made.answered, made.wrong) == expected


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.booleans()), min_size=1, max_size=40),
    st.floats(0, 1),
)
def test_what_is_answered_keeps_the_risk_and_ties_stay_together(
    items: list[tuple[float, bool]], target: float
) -> None:
    dev = [
        prediction(number, "yes" if right else "no", margin, -1, -1)
        for number, (margin, right) in enumerate(items)
    ]
    made = calibrate(dev, target)
    sure = [max(softmax(one.logprobs, made.temperature)) for one in dev]
    answered = [one for one, value in zip(dev, sure, strict=True) if value >= made.threshold]
    wrong = sum(one.decision != one.gold for one in answered)
    assert (len(answered), wrong) == (made.answered, made.wrong)
    assert wrong <= target * len(answered) + 1e-6


def test_a_share_that_is_just_the_target_passes_though_its_product_is_rounded_down() -> None:
    assert 0.29 * 100 < 29
    dev = [prediction(number, "yes" if number < 71 else "no", 1.0, -1, -1) for number in range(100)]
    made = calibrate(dev, 0.29)
    assert (made.answered, made.wrong) == (100, 29)


def test_a_question_at_the_threshold_itself_is_answered() -> None:
    dev = dev_set(50)
    made = calibrate(dev, 0.1)
    found = made.applied(dev)
    assert found is not None
    assert (found["answered"], found["wrong"]) == (made.answered, made.wrong)


def test_the_same_scores_in_another_order_are_a_tie() -> None:
    scores = (-0.1234567, -2.7182818, -3.1415926)
    orders = [(scores[a], scores[b], scores[c]) for a, b, c in ((0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0))]
    assert len({max(softmax(one, 0.7)) for one in orders}) == 1


def test_the_interval_is_statsmodels_wilson() -> None:
    made = calibrate(dev_set(50), 0.1)
    assert made.answered > 0
    expected = proportion_confint(made.wrong, made.answered, method="wilson")
    assert made.risk_ci95 == pytest.approx(expected)


def test_where_every_threshold_is_too_risky_none_is_reached() -> None:
    made = calibrate([prediction(number, "no", 0.0, -1.0, -2.0) for number in range(30)], 0.1)
    assert made.threshold > 1
    assert made.answered == 0


def test_all_right_claims_no_certainty() -> None:
    dev = [
        prediction(number, YES_NO_MAYBE[number % 3], *np.roll([0.0, -1.0, -1.0], number % 3))
        for number in range(30)
    ]
    made = calibrate(dev)
    assert made.temperature == 1.0
    assert (made.answered, made.wrong, made.caution) == (30, 0, None)


@pytest.mark.parametrize(("n", "few"), [(1, True), (19, True), (20, False)])
def test_few_questions_are_said_to_be_few(n: int, few: bool) -> None:
    made = calibrate(dev_set(n))
    assert (made.caution is not None) == few
    assert made.n == n
    if few:
        assert made.temperature == 1.0


def test_one_class_is_said_to_show_nothing() -> None:
    made = calibrate([replace(one, gold="yes") for one in dev_set(40)], 0.5)
    assert made.caution is not None
    assert "same answer" in made.caution
    assert made.classes == 1


def test_questions_without_an_answer_are_not_counted() -> None:
    made = calibrate([*dev_set(25), prediction(99, None, 0, -9, -9), Prediction("98", "yes", YES_NO_MAYBE)])
    assert made.n == 25


@pytest.mark.parametrize("target", [-0.1, 1.1, math.nan, math.inf, "0.1", None, True])
def test_a_target_that_is_no_share_names_the_option(target: Any) -> None:
    with pytest.raises(InputError, match=r"--answers\.risk is .*share from 0 to 1"):
        calibrate(dev_set(30), target, "--answers.risk")


@pytest.mark.parametrize(
    "dev", [[], [prediction(0, None, 0, -1, -2)], [prediction(0, "yes", math.nan, 0, 0)]]
)
def test_nothing_to_learn_from_is_an_error(dev: list[Prediction]) -> None:
    with pytest.raises(ValueError, match=r"needs dev predictions|not finite"):
        calibrate(dev)


@pytest.mark.parametrize("target", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("n", [3, 50])
def test_json_brings_it_back_exactly(n: int, target: float) -> None:
    made = calibrate(dev_set(n), target)
    written = json.dumps(made.to_json(), allow_nan=False)
    assert Calibration.from_json(json.loads(written), "adapter.json") == made


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0),
        ("temperature", -1.0),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("temperature", 10**400),
        ("temperature", "1"),
        ("threshold", None),
        ("threshold", -0.1),
        ("threshold", 3),
        ("threshold", True),
        ("target_risk", 1.5),
        ("n", 0),
        ("n", 50.0),
        ("answered", 51),
        ("wrong", -1),
        ("wrong", 51),
        ("risk_ci95", [0.1]),
        ("risk_ci95", None),
        ("risk_ci95", [0.0, 2.0]),
        ("labels", []),
        ("labels", "yes"),
        ("labels", ["yes", "yes"]),
        ("labels", [1, 2]),
        ("classes", 4),
    ],
)
def test_a_damaged_value_names_file_key_and_fix(key: str, value: Any) -> None:
    plain = calibrate(dev_set(50), 0.5).to_json() | {key: value}
    with pytest.raises(
        InputError, match=rf"^run/adapter\.json: the calibration's {key} (?:is|are) .*damaged"
    ):
        Calibration.from_json(plain, "run/adapter.json")


def test_more_wrong_than_answered_is_damage() -> None:
    plain = calibrate(dev_set(50), 0.5).to_json() | {"answered": 10, "wrong": 11}
    with pytest.raises(InputError, match="calibration's wrong is 11"):
        Calibration.from_json(plain, "adapter.json")


@pytest.mark.parametrize("key", list(calibrate(dev_set(50), 0.5).to_json()))
def test_a_missing_value_is_named(key: str) -> None:
    plain = calibrate(dev_set(50), 0.5).to_json()
    del plain[key]
    with pytest.raises(InputError, match=f"{key} (?:is|are) missing"):
        Calibration.from_json(plain, "adapter.json")


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_what_is_no_calibration_at_all_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"adapter\.json: the calibration is"):
        Calibration.from_json(value, "adapter.json")


def test_probabilities_are_the_softmax_of_the_scaled_scores() -> None:
    from scipy import special

    one = prediction(0, "yes", -0.3, -900.0, -1.7)
    assert softmax(one.logprobs, 2.5) == pytest.approx(special.softmax(np.array(one.logprobs) / 2.5))
    assert softmax((), 2.5) == ()


# ---- on other questions ------------------------------------------------------------------------------


def test_on_other_questions_it_counts_what_it_lets_through_and_what_of_that_is_wrong() -> None:
    from statsmodels.stats.proportion import proportion_confint

    learned = Calibration(2.0, 0.7, 0.1, 50, 20, 1, (0.0, 0.2), ("yes", "no"), 2)

    def item(number: int, lead: float, gold: str) -> Prediction:
        return Prediction(str(number), gold, ("yes", "no"), logprobs=(lead, 0.0), lengths=(1, 1))

    # at temperature 2 a lead of 1 gives 0.62, of 2 gives 0.73
    others = [item(number, lead, gold) for number, (lead, gold) in enumerate(
        [(1.0, "no"), (2.0, "yes"), (2.0, "no"), (3.0, "yes"), (-3.0, "no"), (-1.0, "yes")]
    )]  # fmt: skip
    found = learned.applied(others)
    assert found is not None
    assert (found["n"], found["answered"], found["wrong"], found["risk"]) == (6, 4, 1, 0.25)
    assert found["risk_ci95"] == pytest.approx(proportion_confint(1, 4, method="wilson"))
    assert learned.applied([Prediction("x", "A", ("A", "B"), (0.0, 1.0), (1, 1))]) is None
    assert learned.applied([item(0, 0.1, "yes")]) == {
        **found, "n": 1, "answered": 0, "wrong": 0, "risk": None, "risk_ci95": None,
    }  # fmt: skip
