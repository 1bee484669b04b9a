"""What comes from a file or a model is shown, and acted on by no terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqlora.utils.terminal import printable, printable_line

#: categories of what moves a cursor, hides, turns the direction, or can't be encoded
ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_acts_on_is_left_but_the_ends_of_lines(text: str) -> None:
    assert all(letter == "\n" or unicodedata.category(letter) not in ACTING for letter in printable(text))
    assert printable_line(text).isprintable()
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Ärzte – 5 µg/l, α ≤ 0.05, 血", "Ärzte – 5 µg/l, α ≤ 0.05, 血"),
        ("5\xa0mg, 5\u202fmg", "5 mg, 5 mg"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("yes\u202eon", "yes\\u202eon"),
    ],
)
def test_words_stay_as_they_are_and_the_rest_can_be_read(text: str, said: str) -> None:
    assert printable_line(text) == said
