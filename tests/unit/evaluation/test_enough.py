"""What few questions can't show is said by the same intervals as everywhere else."""

import pytest
from statsmodels.stats.proportion import proportion_confint

from medqlora.evaluation.metrics.enough import least_risk_shown, limits, margin


@pytest.mark.parametrize("n", [1, 2, 20, 50, 500])
def test_margin_and_risk_are_those_of_statsmodels(n: int) -> None:
    low, high = proportion_confint(n / 2, n, method="normal")
    assert margin(n) == pytest.approx((high - low) / 2)
    assert least_risk_shown(n) == pytest.approx(proportion_confint(0, n, method="wilson")[1])


@pytest.mark.parametrize("target", [0.05, 0.1, 0.25])
def test_the_least_number_is_the_first_that_can_show_the_target(target: float) -> None:
    short = next(n for n in range(1000, 0, -1) if least_risk_shown(n) > target)
    if short >= 20:
        assert f"({short + 1} are the least)" in str(limits(short, 3, target))
    assert "even without an error" not in str(limits(max(20, short + 1), 3, target))


def test_a_fold_of_fifty_and_one_of_two_are_told_their_limits_and_five_hundred_are_enough() -> None:
    assert str(limits(2, 2, 0.1)).startswith(
        "Confidence can't be calibrated: 2 validation questions are too few"
    )
    assert str(limits(50, 1, 0.1)).startswith(
        "Confidence can't be calibrated: all validation questions had the same"
    )
    assert str(limits(50, 3, 0.1)).startswith(
        "50 validation questions show accuracy to ±14 points; a threshold"
    )
    assert "can't show at most 5% wrong: even without an error 50 answers leave 7% possible" in str(
        limits(50, 3, 0.05)
    )
    assert "no number of them shows a risk of 0%" in str(limits(500, 3, 0.0))
    assert limits(500, 3, 0.1) is None
