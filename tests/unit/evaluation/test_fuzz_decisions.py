"""Whatever a model writes is read as one of the labels or as none, without an error and in linear time."""

import re
import sys
from collections import Counter
from collections.abc import Mapping

import pytest
from fuzzing import SLOW_INPUTS, THOROUGH_INPUTS, fuzz, nightly
from hypothesis import strategies as st

from medqlora.evaluation.parsing import (
    candidates as decision_candidates,
)
from medqlora.evaluation.parsing import (
    decisions,
)
from medqlora.evaluation.parsing import (
    following as decision_following,
)
from medqlora.evaluation.parsing import (
    languages as decision_languages,
)
from medqlora.evaluation.parsing import (
    lists as decision_lists,
)
from medqlora.evaluation.parsing import (
    options as decision_options,
)
from medqlora.evaluation.parsing import (
    phrases as decision_phrases,
)
from medqlora.evaluation.parsing import (
    text as decision_text,
)
from medqlora.evaluation.parsing import (
    values as decision_values,
)
from medqlora.evaluation.parsing.decisions import parse_decision
from medqlora.evaluation.parsing.options import OptionTexts
from medqlora.evaluation.parsing.values import Values

if sys.version_info >= (3, 11):
    from re import _parser as parser  # type: ignore[attr-defined]
else:
    import sre_parse as parser

TASKS: tuple[tuple[tuple[str, ...], Mapping[str, str] | None], ...] = (
    (("yes", "no", "maybe"), None),
    (("A", "B", "C", "D"), None),
    (("A", "B"), {"A": "Aspirin", "B": "Atenolol"}),
    (("A", "B", "C"), {"A": "A", "B": "B is correct", "C": "the answer"}),
    (("A", "B"), {"A": "no", "B": "yes"}),
    (("1", "2"), {"1": "ß-Straße", "2": "İstanbul ﬁ"}),
    (("I", "II", "no change", ""), None),
    (("a+b", "(x", "\\boxed{", "."), {"a+b": " ", "(x": "..."}),
)
PIECES = (
    *("yes", "no", "maybe", "Yes", "NO", "A", "b", "(B)", "C.", "A)", "1", "II", "no change", "a+b", "(x"),
    *(
        "Aspirin",
        "atenolol",
        "ATENOLOL",
        "ß-straße",
        "ﬁ",
        "İ",
        "the answer",
        "B is correct",
        "Option A",
        "option",
    ),
    *(
        "Answer:",
        "the answer is",
        "Final answer:",
        "final answer is",
        '{"answer": "',
        '"answer":',
        "<answer>",
    ),
    *(
        "\\boxed{",
        "}",
        "#### ",
        "**",
        "*",
        "`",
        "_",
        "(",
        ")",
        "[",
        "]",
        "$",
        '"',
        "'",
        "’",
        "“",
        "{",
        "-",
        "–",
        "→",
    ),
    *(
        "is correct",
        "is right",
        "must be the best answer",
        "is wrong",
        "is incorrect",
        "I would say",
        "we conclude",
    ),
    *(
        "so",
        "Therefore,",
        "However,",
        "wait",
        "not",
        "n't",
        "if",
        "whether",
        "either",
        "or",
        "and",
        "of",
        "because",
    ),
    *(
        "<think>",
        "</think>",
        "</s>",
        "<|eot_id|>",
        "<b>",
        "</b>",
        "Question:",
        "Context:",
        "Human:",
        "Assistant:",
    ),
    *(
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "\u2028",
        "\u202e",
        "\x00",
        "\ud800",
        "\xa0",
        ". ",
        ", ",
        "? ",
        "! ",
        ": ",
        "; ",
    ),
    *("C. difficile", "No. 5", "vitamin A", "p = 0.03", "hepatitis B", "the student's answer is", "some say"),
)
FEW = st.lists(st.sampled_from(PIECES), max_size=3).map(" ".join)

#: how a decision is written plainly
NORMAL = (
    "{}",
    "{}.",
    " {}\n",
    "**{}**",
    "Answer: {}",
    "The answer is {}.",
    "Final answer: {}",
    '{{"answer": "{}"}}',
)

TEXTS = st.one_of(
    st.tuples(FEW, st.sampled_from(NORMAL), st.sampled_from(("yes", "no", "maybe", "A", "B")), FEW).map(
        lambda parts: f"{parts[0]}\n{parts[1].format(parts[2])}\n{parts[3]}"
    ),
    st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=20).map(" ".join),
    st.tuples(st.sampled_from(PIECES), st.integers(1, 200)).map(lambda pair: pair[0] * pair[1]),
    st.text(max_size=200),
)
INPUTS = st.tuples(TEXTS, st.sampled_from(TASKS))


def run_decisions(inputs: int) -> Counter[bool]:
    read: Counter[bool] = Counter()

    def check(value: tuple[str, tuple[tuple[str, ...], Mapping[str, str] | None]]) -> None:
        text, (labels, options) = value
        found = parse_decision(text, labels, options)
        assert found in (None, *labels)
        assert parse_decision(text, labels, options) == found
        read[found is not None] += 1
        if found is not None and found.isalnum() and labels in (("yes", "no", "maybe"), ("A", "B", "C", "D")):
            for form in NORMAL:  # what was read, written plainly, is read as the same
                assert parse_decision(form.format(found), labels, options) == found

    fuzz(INPUTS, check, inputs)
    return read


def test_any_output_gives_a_label_or_none_and_a_label_gives_itself() -> None:
    read = run_decisions(400)
    assert min(read[True], read[False]) > 20


@pytest.mark.slow
def test_thousands_of_outputs_give_a_label_or_none() -> None:
    read = run_decisions(SLOW_INPUTS["decisions"])
    assert min(read[True], read[False]) > SLOW_INPUTS["decisions"] // 16


def test_the_thorough_run_is_given_20_000_inputs_at_least() -> None:
    assert sum(THOROUGH_INPUTS.values()) >= 20_000


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("A (Atenolol) is correct", None),  # the letter of one option with the text of the other
        ("A. Atenolol is correct.", None),
        ("B (Atenolol) is correct", "B"),
        ("(B) Atenolol is the correct answer.", "B"),
        ("Atenolol is correct", "B"),
    ],
)
def test_an_option_with_the_letter_of_another_decides_nothing(text: str, decision: str | None) -> None:
    assert parse_decision(text, ("A", "B"), {"A": "Aspirin", "B": "Atenolol"}) == decision


# --- linear by construction: no pattern takes more than so many characters from any one place, none is tried at
# --- more places than the text has, and what is done at a place doesn't grow with the text

#: used on windows of the text alone, whose width is bounded where they are cut
ON_WINDOWS = {"LINE_START", "REVISES", "DISOWNED", "BRIDGE", "SURE", "SUPPOSED", "ANOTHERS", "REJECTED"}
ON_WINDOWS |= {"LETTER_FOLLOWS", "OPTION_FOLLOWS"}
ON_WINDOWS |= {"SENTENCE_END", "CLAUSE_START"}
WIDEST = 1_500
MODULES = (
    decision_candidates,
    decision_following,
    decision_languages,
    decision_lists,
    decision_options,
    decision_phrases,
    decision_text,
    decision_values,
    decisions,
)


def patterns() -> dict[str, re.Pattern[str]]:
    """Every pattern that is used on a whole text, those made for labels included."""
    found = {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern) and name not in ON_WINDOWS
    }
    for labels, options in TASKS:
        values = Values(labels, options or {})
        found[f"word of {labels}"], found[f"heading of {labels}"] = values.word, values.heading
    return found


def widest(pattern: re.Pattern[str]) -> int:
    """The number of characters that a match may take at most; the parser's own limit where there is none."""
    return int(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE).getwidth()[1])


def test_no_pattern_takes_more_than_a_bounded_stretch_of_a_text() -> None:
    wide = {name: widest(pattern) for name, pattern in patterns().items()}
    assert len(wide) > 20
    assert {name: width for name, width in wide.items() if width > WIDEST} == {}
    assert widest(re.compile(r"a\s*b")) > WIDEST


UNITS = (
    "no ",
    "yes, ",
    "answer: yes\n",
    "the answer is ",
    "B) x\n",
    "Question:\n",
    "is correct ",
    "so ",
    "I say no. ",
)


@pytest.mark.parametrize(
    "unit",
    [
        *(*UNITS, "\n- A", "<think>", "\\boxed{", "or no ", "A is right ", "( ( ", "A. \n"),
        *("wait, no, ", "hmm, actually ", "A. X. B. Y. ", "_", "<B>", "=> ", "yes in x and "),
    ],
)
@pytest.mark.parametrize("labels", [("yes", "no", "maybe"), ("A", "B", "C", "D")])
@pytest.mark.parametrize("size", [8_000, pytest.param(100_000, marks=nightly)])
def test_places_that_are_looked_at_grow_with_the_text_and_no_faster(
    unit: str, labels: tuple[str, ...], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted: every place where a label is read, with the characters that it may look at."""
    looked_at: list[tuple[str, int]] = []
    read = Values.read
    monkeypatch.setattr(
        Values, "read", lambda self, text, at: looked_at.append((text, at)) or read(self, text, at)
    )

    def places(length: int) -> int:
        looked_at.clear()
        text = (unit * (length // len(unit) + 1))[:length]
        assert parse_decision(text, labels) in (None, *labels)
        # a part of a text is a text by itself; those listed are alive, so their ids tell them apart
        again = Counter((id(part), at) for part, at in looked_at)
        assert max(again.values(), default=0) <= 8, "a place is read again and again"
        return len(looked_at)

    small, large = places(size // 4), places(size)
    assert large <= 4 * small + 8
    assert large <= size


@pytest.mark.parametrize(
    "unit", ["the answer is Masseter, ", "Masseter is correct ", "A is correct and ", "A) Masseter or "]
)
@pytest.mark.parametrize("length", [1, 20])
def test_the_search_for_options_texts_grows_with_the_text_and_no_faster(
    unit: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted: every place at which an option's text is looked for."""
    options = {"A": "Masseter" + " and so on" * length, "B": "Temporalis", "C": "so on", "D": "Masseter"}
    searched: list[int] = []
    search = OptionTexts.exactly_at
    monkeypatch.setattr(
        OptionTexts,
        "exactly_at",
        lambda self, text, start: searched.append(start) or search(self, text, start),
    )

    def places(size: int) -> int:
        searched.clear()
        parse_decision((unit * (size // len(unit) + 1))[:size], tuple(options), options)
        return len(searched)

    small, large = places(1_000), places(4_000)
    assert small > 0
    assert large <= 5 * small + 200
