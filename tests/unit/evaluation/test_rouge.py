"""ROUGE-L is the F1 of the longest common subsequence of words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medqlora.evaluation.metrics.rouge import longest_common_subsequence, rationale_of, rouge_l

WORDS = st.lists(st.sampled_from("abcd"), max_size=30)


def by_table(first: list[str], second: list[str]) -> int:
    """The textbook's table."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for row, one in enumerate(first, 1):
        for column, other in enumerate(second, 1):
            best = max(table[row - 1][column], table[row][column - 1])
            table[row][column] = table[row - 1][column - 1] + 1 if one == other else best
    return table[-1][-1]


@given(WORDS, WORDS)
@settings(deadline=None)
def test_longest_common_subsequence_is_the_tables(first: list[str], second: list[str]) -> None:
    assert longest_common_subsequence(first, second) == by_table(first, second)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("the rates fell", "the rates fell", 1.0),
        ("The RATES, fell!", "the rates fell", 1.0),
        ("", "the rates fell", 0.0),
        ("the rates fell", "", 0.0),
        ("up", "down", 0.0),
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
    ],
)
def test_rouge_l_of_known_pairs(text: str, reference: str, expected: float) -> None:
    assert rouge_l(text, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "rationale"),
    [
        ("yes. The rates fell.", "The rates fell."),
        (" No, they did not.", "they did not."),
        ("**Maybe.** It is unclear.", "It is unclear."),
        ("No significant difference was found.", "No significant difference was found."),
        ("yes", ""),
        ("Unclear.", "Unclear."),
    ],
)
def test_the_rationale_is_the_text_without_its_leading_decision(text: str, rationale: str) -> None:
    assert rationale_of(text, ("yes", "no", "maybe")) == rationale
