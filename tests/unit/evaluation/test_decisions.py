"""The decision parser reads what models really write, and never guesses."""

import json
import time
from pathlib import Path

import pytest
from decision_letters import ABCD, ABCDE, LETTER_OUTPUTS, OPTION_OUTPUTS
from decision_model_outputs import ASKED, MODEL_OUTPUTS
from decision_plain_answers import PLAIN, QUESTIONS
from decision_refusals import REFUSALS
from decision_words import YES_NO_MAYBE_OUTPUTS, YNM
from hypothesis import given, settings
from hypothesis import strategies as st

from medqlora.evaluation.parsing.decisions import parse_decision


@pytest.mark.parametrize(("text", "decision"), YES_NO_MAYBE_OUTPUTS)
def test_reads_a_yes_no_maybe_output_as_a_person_would(text: str, decision: str | None) -> None:
    assert parse_decision(text, YNM) == decision


@pytest.mark.parametrize(("text", "labels", "decision"), LETTER_OUTPUTS)
def test_reads_a_multiple_choice_output_as_a_person_would(
    text: str, labels: tuple[str, ...], decision: str | None
) -> None:
    assert parse_decision(text, labels) == decision


@pytest.mark.parametrize(("text", "options", "decision"), OPTION_OUTPUTS)
def test_takes_an_options_text_for_its_label(
    text: str, options: dict[str, str], decision: str | None
) -> None:
    assert parse_decision(text, tuple(options), options) == decision


@pytest.mark.parametrize(("text", "question", "decision"), PLAIN)
def test_reads_what_is_stated_plainly(text: str, question: str, decision: str | None) -> None:
    assert _parsed(text, question) == decision


@pytest.mark.parametrize(("text", "question", "decision"), REFUSALS)
def test_does_not_read_what_is_not_stated(text: str, question: str, decision: str | None) -> None:
    assert _parsed(text, question) == decision


@pytest.mark.parametrize(("text", "question", "decision"), MODEL_OUTPUTS)
def test_reads_model_outputs_as_a_person_would(text: str, question: str, decision: str | None) -> None:
    labels = ASKED[question]
    assert parse_decision(text, tuple(labels), labels if isinstance(labels, dict) else None) == decision


def _parsed(text: str, question: str) -> str | None:
    labels = QUESTIONS[question]
    return parse_decision(text, tuple(labels), labels if isinstance(labels, dict) else None)


def test_reads_the_handed_outputs_as_they_should_be(cases: Path) -> None:
    rows = [json.loads(line) for line in (cases / "generated_answers.jsonl").read_text("utf-8").splitlines()]
    assert rows
    for row in rows:
        assert parse_decision(row["text"], tuple(row["labels"]), row["options"]) == row["should"], row["text"]


def test_the_table_has_at_least_120_outputs() -> None:
    assert len(YES_NO_MAYBE_OUTPUTS) + len(LETTER_OUTPUTS) + len(OPTION_OUTPUTS) >= 120


PIECES = st.sampled_from(
    (
        *(
            "yes",
            "no",
            "maybe",
            "No",
            "Answer:",
            "the answer is",
            "final answer:",
            "A",
            "(B)",
            "C.",
            "is correct",
        ),
        *("\n", ". ", ", ", "? ", "**", "or", "<think>", "</think>", "so ", "\\boxed{", "}", "#### ", "not "),
        '{"answer": "',
    )
)
TEXTS = st.one_of(
    st.text(max_size=200), st.lists(PIECES, max_size=25).map(" ".join), st.lists(PIECES).map("".join)
)


@given(TEXTS, st.sampled_from([YNM, ABCD, ABCDE, ("1", "2"), ("a+b", "(x"), ("", "yes"), ()]))
@settings(max_examples=400, deadline=None)
def test_any_input_gives_one_of_the_labels_or_none(text: str, labels: tuple[str, ...]) -> None:
    assert parse_decision(text, labels) in {None, *labels}
    assert parse_decision(text, labels, dict.fromkeys(labels, "same text")) in {None, *labels}


@given(st.text(max_size=300).filter(lambda text: not any(word in text.casefold() for word in YNM)))
@settings(max_examples=200, deadline=None)
def test_a_text_without_a_decision_word_is_none(text: str) -> None:
    assert parse_decision(text, YNM) is None


@given(
    st.sampled_from(YNM),
    st.sampled_from(["{}", "{}.", "Answer: {}", "The answer is {}.", '{{"answer": "{}"}}']),
)
def test_the_plain_forms_give_each_label_back(label: str, form: str) -> None:
    assert parse_decision(form.format(label), YNM) == label
    assert parse_decision(form.format(label.upper()), YNM) == label


UNITS = (
    *(
        "a",
        " ",
        "no ",
        "yes, ",
        "answer: yes\n",
        "the answer to ",
        "answer is ",
        "So ",
        "**",
        "(",
        "\n",
        "B) x\n",
    ),
    *(
        "Question:\n",
        "<think>",
        '{"answer": "',
        "is correct ",
        "\\boxed{",
        "?",
        "if the answer is no, ",
        "I say ",
    ),
)


@pytest.mark.parametrize("unit", UNITS)
def test_reading_takes_time_in_proportion_to_the_text(unit: str) -> None:
    """Eight times the text takes about eight times as long: a quadratic search would take 64 times."""

    def cpu_s(length: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length]
        start = time.process_time()
        parse_decision(text, ABCD if unit.startswith("B") else YNM)
        return time.process_time() - start

    short_s = max(min(cpu_s(40_000), cpu_s(40_000)), 1e-3)
    assert cpu_s(320_000) / short_s < 32


def test_every_completion_of_pubmedqa_is_read_back(pubmedqa_file: Path) -> None:
    rows = json.loads(pubmedqa_file.read_text("utf-8")).values()
    forms = (" {}. {}", "{}\n\n{}", "Answer: {}. {}", '{{"answer": "{}"}} {}')
    for row in rows:
        for label in YNM:
            for form in forms:
                assert parse_decision(form.format(label, row["LONG_ANSWER"]), YNM) == label
            assert parse_decision(f"{label.capitalize()}. {row['LONG_ANSWER']}", YNM) == label
            assert parse_decision(f"{row['LONG_ANSWER']} So the answer is {label}.", YNM) == label
            assert parse_decision(f"{row['LONG_ANSWER']}\n\n{label.capitalize()}", YNM) == label


def test_no_question_context_or_conclusion_of_pubmedqa_is_taken_for_a_decision(pubmedqa_file: Path) -> None:
    for row in json.loads(pubmedqa_file.read_text("utf-8")).values():
        for text in (row["QUESTION"], row["LONG_ANSWER"], " ".join(row["CONTEXTS"]), *row["CONTEXTS"]):
            assert parse_decision(text, YNM) is None
            assert parse_decision(text, ABCDE) is None
