"""Which records are the same question, whatever their ids."""

import pytest

from medqlora.data.checks import reject_shared_content, without_shared_content
from medqlora.errors import InputError
from medqlora.records import Record


def choice(name: str, *options: str, answer: str | None, context: str = "") -> Record:
    labels = ("A", "B", "C")[: len(options)]
    return Record(
        name,
        "Which one helps?",
        contexts=(context,) if context else (),
        options=dict(zip(labels, options, strict=True)),
        labels=labels,
        answer=answer,
    )


def test_a_question_under_another_abstract_or_with_other_options_is_another_question() -> None:
    first = choice("1", "Aspirin", "Rest", answer="A", context="One trial.")
    for other in (
        choice("2", "Aspirin", "Rest", answer="A", context="Another trial."),
        choice("2", "Aspirin", "Surgery", answer="A", context="One trial."),
    ):
        reject_shared_content({"training": [other]}, [first], "test")
    for twin in (first, choice("2", "ASPIRIN ", "Rest", answer="B", context="One  trial.")):
        with pytest.raises(InputError, match="holds the same question and context"):
            reject_shared_content({"training": [twin]}, [first], "test")


def test_a_benchmarks_question_is_left_out_with_its_options_in_another_order_or_its_right_answer() -> None:
    secret = choice("1", "Aspirin", "Rest", answer="A")
    shuffled = choice("2", "Rest", "Aspirin", answer=None)
    same_answer = choice("3", "Surgery", "aspirin", answer="B")
    others = [
        choice("4", "Surgery", "Rest", answer="B"),
        choice("5", "Aspirin", "Rest", answer="A", context="A trial."),
    ]
    assert without_shared_content([shuffled, same_answer, *others], [secret]) == others
