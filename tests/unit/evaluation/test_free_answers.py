"""Free answers are scored by their wording: token F1 as SQuAD's, ROUGE-L as Google's, exact match beside them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_builders import records_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import own_script_alone
from torchmetrics.functional.text.squad import _compute_f1_score, _normalize_text

from medqlora.callbacks import AdapterCheckpoint
from medqlora.evaluation import console_table, score, write_report
from medqlora.evaluation.metrics.free_answer import exactly_matches, mean_interval
from medqlora.evaluation.metrics.rouge import rouge_l
from medqlora.evaluation.metrics.token_f1 import normalized_words, token_f1
from medqlora.evaluation.report.free_answer_page import ANSWERS_SHOWN
from medqlora.records import Encoded, Prediction

PARTS = [
    "A",
    "a",
    "the",
    "The",
    "an",
    "40",
    "mg,",
    "(daily)",
    "not",
    "-",
    "drug's",
    "über",
    "beta-blocker",
    "\n",
]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=12).map(" ".join)
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def answers(n: int) -> list[Prediction]:
    """Predictions from wholly wrong to wholly right."""
    gold = " ".join(WORDS)
    return [Prediction(f"q{number:03}", gold, (), text=" ".join(WORDS[: number % 11])) for number in range(n)]


@given(TEXTS, TEXTS)
@settings(deadline=None)
def test_token_f1_is_squads(text: str, reference: str) -> None:
    if _normalize_text(text) and _normalize_text(reference):  # of articles alone: see below
        assert token_f1(text, reference) == pytest.approx(float(_compute_f1_score(text, reference)))


@given(TEXTS, TEXTS)
@settings(deadline=None)
def test_rouge_l_is_googles(text: str, reference: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    assert rouge_l(text, reference) == pytest.approx(scorer.score(reference, text)["rougeL"].fmeasure)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("A beta-blocker.", "the beta blocker", 0.0),  # SQuAD joins the words around a hyphen
        ("Give 40 mg of aspirin daily", "40 mg aspirin", 2 / 3),
        ("not indicated", "indicated", 2 / 3),
        ("aspirin aspirin", "aspirin", 2 / 3),  # a word counts as often as both have it
        ("", "aspirin", 0.0),
        ("aspirin", "", 0.0),
        ("A", "A", 1.0),  # an answer that is an article
        ("", "A", 0.0),
        ("心筋梗塞です", "心筋梗塞", 0.8),  # no spaces between the words
    ],
)
def test_token_f1_of_known_pairs(text: str, reference: str, expected: float) -> None:
    assert token_f1(text, reference) == pytest.approx(expected)


def test_an_answer_without_letters_is_matched_as_it_is() -> None:
    assert exactly_matches(" + ", "+")
    assert not exactly_matches("", "+")
    assert normalized_words("The An") == ["the", "an"]


def test_the_interval_is_the_percentile_bootstrap_of_the_mean() -> None:
    values = np.random.default_rng(1).random(80)
    low, high = mean_interval(values, seed=3)
    error = values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.01
    )
    assert mean_interval(values, seed=3) == [low, high]
    assert mean_interval(np.full(5, 0.5), seed=0) == [0.5, 0.5]


def test_the_headline_of_free_answers_is_token_f1_with_its_interval_and_the_base_s() -> None:
    items = answers(40)
    scores = score(
        items, records=records_of(items), base=[replace(one, text="ten") for one in items], dataset="Ward"
    )
    report = scores.to_json()
    low, high = report["token_f1_ci95"]
    assert low < report["token_f1"] < high
    lines = console_table(scores).splitlines()
    shown_interval = f"95% interval {100 * low:.1f} to {100 * high:.1f}"
    assert lines[2].split() == ["token", "F1", f"{report['token_f1']:.1%}", *shown_interval.split()]
    shown = "\n".join(lines)
    assert "ROUGE-L" in shown
    assert "exact match" in shown
    assert "Its token F1 is higher than the bare base's, by more than chance explains." in shown
    difference = report["base"]["token_f1_difference"]
    assert difference == pytest.approx(report["token_f1"] - report["base"]["token_f1"])
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("n", [5, 3 * ANSWERS_SHOWN, 200])
def test_the_report_shows_answers_side_by_side(n: int, tmp_path: Path) -> None:
    items = answers(n)
    records = records_of(items)
    scores = score(items, records=records, seed=7)
    paths = write_report(tmp_path, scores, items, records)
    page = paths["report.html"].read_text("utf-8")
    assert page.count("<article>") == min(n, 3 * ANSWERS_SHOWN)
    assert "token F1</b>" not in page
    assert f"<b>{scores.more['token_f1']:.1%}</b> token F1" in page
    assert page.index("id q000") < page.index("id q010" if n > 10 else "id q004")  # the lowest score first
    assert write_report(tmp_path, scores, items, records)["report.html"].read_text("utf-8") == page
    lines = [json.loads(line) for line in paths["predictions.jsonl"].read_text("utf-8").splitlines()]
    assert [line["token_f1"] for line in lines] == [token_f1(str(one.text), str(one.gold)) for one in items]


def test_answers_in_the_report_are_escaped_and_long_ones_folded(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    items = [Prediction(f"1{evil}", f"gold{evil}", (), text=f"said{evil} " + "long " * 400)]
    records = records_of(items, question=f"question{evil}")
    base = [replace(items[0], text=f"base{evil}")]
    page = write_report(tmp_path, score(items, records=records, base=base), items, records, base)[
        "report.html"
    ]
    text = page.read_text("utf-8")
    assert "<script>alert" not in text
    assert len(own_script_alone(text)) == 1
    assert all(f"{part}&lt;script&gt;" in text for part in ("gold", "said", "question", "base"))
    assert "<summary>said&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("monitor", "labels", "written", "chosen"),
    [
        (None, (), True, "val/token_f1"),
        (None, (), False, "val/accuracy"),  # which that validation doesn't give: refused
        (None, ((1,), (2,)), True, "val/accuracy"),
        ("val/accuracy", (), True, "val/accuracy"),
        ("val/rouge_l", (), True, "val/rouge_l"),
    ],
)
def test_the_monitor_of_free_answers_is_token_f1_unless_one_is_named(
    monitor: str | None, labels: tuple[tuple[int, ...], ...], written: bool, chosen: str
) -> None:
    saver = AdapterCheckpoint(monitor=monitor)
    dev = [Encoded("1", [1], [2], labels)]
    line = saver.choose_monitor(dev, written=written)
    assert (saver.monitor, saver.mode) == (chosen, "max")
    assert (line is not None) == (chosen == "val/token_f1")
    assert saver.choose_monitor(dev, written=written) is None  # said once
