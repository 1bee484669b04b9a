"""The page of an exported model's comparison: complete, escaped, self-contained."""

import math

import pytest
from pages import EVIL, parsed

from medqlora.evaluation.report.verification_page import render_verification
from medqlora.evaluation.report.verification_plots import POINTS_SHOWN, verification_figures
from medqlora.evaluation.verification import Limits, Verification, compare, limits
from medqlora.records import Prediction, Record

LABELS = ("yes", "no", "maybe")


def prediction(number: int, *probabilities: float, gold: str | None = "yes") -> Prediction:
    return Prediction(f"q{number}", gold, LABELS, tuple(map(math.log, probabilities)))


def verified(limit: float = 0.5, margin: float = 0.05) -> Verification:
    """Three questions: one unchanged, one with another decision, one without a known answer."""
    live = [
        prediction(0, 0.7, 0.2, 0.1),
        prediction(1, 0.42, 0.40, 0.18),
        prediction(2, 0.1, 0.8, 0.1, gold=None),
    ]
    exported = [
        prediction(0, 0.7, 0.2, 0.1),
        prediction(1, 0.40, 0.41, 0.19),
        prediction(2, 0.1, 0.8, 0.1, gold=None),
    ]
    records = [Record(f"q{number}", f"Question {number}? {EVIL}", answer="yes") for number in range(3)]
    return compare(live, exported, Limits(limit, margin), records)


def test_the_page_shows_both_accuracies_the_differences_and_each_changed_decision() -> None:
    page = parsed(render_verification("GGUF file", verified(), ["Ollama itself."], {"to": "gguf"}))
    assert page.tags.count("img") == 2
    for part in (
        "GGUF file: accepted",
        "1 of 3 decisions changed",
        "Live model100.0%34.2 to 100.0",  # Wilson of 2 of 2
        "Exported model50.0%9.5 to 90.5",
        "Difference: -50.0 points",
        "exact McNemar p = 1.000",
        "largest difference, nats0.054",  # log(0.19 / 0.18)
        "Question 1?",
        "q1yesyes0.020no0.010",  # id, right answer, live with margin, exported with margin
        "Ollama itself.",
    ):
        assert part in page.text, part


def test_the_texts_of_questions_do_no_harm() -> None:
    html = render_verification(f"File {EVIL}", verified(), [EVIL], {"base": EVIL, EVIL: "x"})
    page = parsed(html)
    assert "script" not in page.tags
    assert page.handlers == []
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html
    assert "width=device-width" in html


def test_what_was_not_verified_is_said_in_title_and_list() -> None:
    page = parsed(render_verification("Merged model", None, ["The answers: left out."], {"base": "b"}))
    assert "Merged model: not verified" in page.text
    assert "The answers: left out." in page.text
    assert "img" not in page.tags


def test_an_export_beyond_its_limits_is_no_accepted_one() -> None:
    page = parsed(render_verification("GGUF file", verified(limit=0.01, margin=0.001), [], {}))
    assert "GGUF file: differs from the live model" in page.text
    assert "at most 0.01 is accepted" in page.text
    assert "1 of 3 decisions changed, as q1 from yes to no" in page.text


def test_a_users_own_tolerance_is_said() -> None:
    assert "Its limits are a user" in render_verification("x", verified(margin=0.5), [], {})
    assert "Its limits are a user" not in render_verification("x", verified(), [], {})


def test_unknown_answers_infinite_values_and_many_questions_are_drawn() -> None:
    nowhere = [Prediction("q0", None, LABELS, (-math.inf, -1.0, -2.0))]
    unknown = compare(nowhere, nowhere, limits(16))
    assert unknown.accuracy is None
    assert "accuracies are unknown" in render_verification("x", unknown, [], {})
    assert verification_figures(compare(nowhere, nowhere, limits(16))).keys() == {
        "differences",
        "log_probabilities",
    }
    many = [prediction(number, 0.6, 0.3, 0.1) for number in range(POINTS_SHOWN)]
    scatter = verification_figures(compare(many, many, limits(16)))["log_probabilities"].axes[0]
    assert len(scatter.lines[1].get_xdata()) == POINTS_SHOWN


@pytest.mark.parametrize("gold", ["yes", None])
def test_figures_and_json_agree(gold: str | None) -> None:
    live, exported = [prediction(0, 0.7, 0.2, 0.1, gold=gold)], [prediction(0, 0.6, 0.3, 0.1, gold=gold)]
    found = compare(live, exported, limits(4))
    assert found.to_json()["largest_difference"] == pytest.approx(math.log(1.5))
    assert found.figures()["live_accuracy"] == (1.0 if gold else None)
    (row,) = found.questions
    assert row.differences == pytest.approx((math.log(6 / 7), math.log(1.5), 0.0))
