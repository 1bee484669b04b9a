"""Lists and objects in text cells are parsed, and their syntax never reaches a prompt."""

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medqlora.data.shapes.cells import CellError, parse_cell
from medqlora.errors import InputError

TEXTS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=30), max_size=5)


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS)
def test_lists_written_by_python_json_and_numpy_are_parsed(texts: list[str]) -> None:
    for written in (
        repr(texts),
        json.dumps(texts),
        repr({"contexts": texts}),
        repr({"a": np.array(texts, dtype=object)}),
    ):
        found = parse_cell(written)
        assert (found if isinstance(found, list) else next(iter(found.values()))) == texts, written
    printed = str(np.array(texts, dtype=object))
    assert parse_cell(printed) == texts, printed


@pytest.mark.parametrize(
    "text",
    [
        "[12] patients were asked.", "[Methods] We asked.", "[12]–[14] agree", "(n = 5) patients", "{not an object}",
        "[A] or [B]?", "plain", "", "[sic]", "{1} of 2", "('quoted') text", "[μg/l] was measured", "[",
    ],
)  # fmt: skip
def test_prose_that_begins_with_a_bracket_is_unchanged(read_rows_as_train: Any, text: str) -> None:
    assert parse_cell(text) == text
    [record], _ = read_rows_as_train([{"question": "Q?", "contexts": text, "answer": "yes"}], "t.csv")
    assert record.contexts == ((text,) if text else ())


@pytest.mark.parametrize(
    "text",
    [
        "['a', 'b'", "['a', 'b]", '["a" was given', "{'a': 'b'", "['a' ... 'b']", "['a', open('x')]", "{'a' 'b'}",
        "['a'] and more", "[['a', 'b']", "array(['a', 'b'", "['a', b'c']", "{'a': 1, 'a': 2}",
        "[" * 40 + "'a'" + "]" * 40, "['a', __import__('os')]",
    ],
)  # fmt: skip
def test_a_truncated_or_broken_list_is_an_error_with_its_row(read_rows_as_train: Any, text: str) -> None:
    with pytest.raises(CellError):
        parse_cell(text)
    rows = [{"question": "Q?", "contexts": held, "answer": "yes"} for held in ("plain", text)]
    with pytest.raises(InputError, match=r"t\.csv:3: contexts is .* begins like a list .*write it as JSON"):
        read_rows_as_train(rows, "t.csv")


def test_any_text_is_read_or_refused_and_in_linear_time() -> None:
    for text in (
        "['" + "a" * 300_000,
        "['a', " * 100_000,
        "{" * 100_000,
        "['" + "\\" * 100_001,
        "[" + "1 " * 100_000,
    ):
        with contextlib.suppress(CellError):
            parse_cell(text)


@pytest.mark.parametrize(
    ("cell", "contexts", "names"),
    [
        ("['a', 'b']", ("a", "b"), ()),
        ("['a'\n 'b']", ("a", "b"), ()),
        ("array(['a', 'b'], dtype=object)", ("a", "b"), ()),
        ("['it\\'s', \"a 'q'\", 'line\\nbreak']", ("it's", "a 'q'", "line\nbreak"), ()),
        ("['a', nan, None, 'b']", ("a", "b"), ()),
        ("('a', 'b')", ("a", "b"), ()),
        ('["a", "b"]', ("a", "b"), ()),
        ("{'contexts': array(['a', 'b'], dtype=object), 'labels': ['M', 'R']}", ("a", "b"), ("M", "R")),
        ("{'METHODS': 'a', 'RESULTS': 'b'}", ("a", "b"), ("METHODS", "RESULTS")),
        ("[{'title': 'T', 'text': 'a'}, {'title': 'U', 'text': 'b'}]", ("a", "b"), ("T", "U")),
        ("[]", (), ()),
    ],
)  # fmt: skip
def test_contexts_in_cells_are_parsed(
    read_rows_as_train: Any, cell: str, contexts: tuple, names: tuple
) -> None:
    [record], _ = read_rows_as_train([{"question": "Q?", "contexts": cell, "answer": "yes"}], "t.csv")
    assert (record.contexts, record.context_labels) == (contexts, names)


def test_topics_answers_and_rationales_in_cells_are_parsed(read_rows_as_train: Any) -> None:
    row = {
        "question": "Q?",
        "answer": "['yes']",
        "meshes": "['Adult' 'Female']",
        "ideal_answer": "['It fell.' 'So.']",
    }
    [record], _ = read_rows_as_train([row], "t.csv")
    assert (record.answer, record.topics, record.long_answer) == ("yes", ("Adult", "Female"), "It fell. So.")


def test_a_list_as_text_in_jsonl_is_parsed(read_rows_as_train: Any) -> None:
    [record], _ = read_rows_as_train([{"question": "Q?", "contexts": "['a', 'b']", "answer": "yes"}])
    assert record.contexts == ("a", "b")


@pytest.mark.parametrize(
    ("value", "contexts", "names"),
    [
        (None, (), ()),
        (["a", None, " ", "b"], ("a", "b"), ()),
        ({"METHODS": "a", "RESULTS": ["b", "c"], "OTHER": None}, ("a", "b c"), ("METHODS", "RESULTS")),
        ([{"title": "T", "text": "a"}, {"text": "b"}], ("a", "b"), ()),
        ([{"label": "METHODS", "text": "a"}], ("a",), ("METHODS",)),
        ({"title": ["T", "U"], "sentences": [["a", "b"], ["c"]]}, ("a b", "c"), ("T", "U")),
        ([["T", ["a", "b"]]], ("a b",), ("T",)),
        ([["a"], ["b", None]], ("a", "b"), ()),
        ({"contexts": ["a", "b"], "labels": ["M"], "meshes": None}, ("a", "b"), ()),
    ],
)  # fmt: skip
def test_contexts_are_read_in_every_form(
    read_rows_as_train: Any, value: object, contexts: tuple, names: tuple
) -> None:
    [record], _ = read_rows_as_train([{"question": "Q?", "contexts": value, "answer": "yes"}])
    assert (record.contexts, record.context_labels) == (contexts, names)


@pytest.mark.parametrize(
    "value",
    [
        {"contexts": ["a"], "labels": [], "final_decision": "yes"},
        {"contexts": ["a"], "labels": [], "meshes": [], "long_answer": "yes"},
        {"METHODS": "a", "reasoning_required_pred": "yes"},
        {"METHODS": "a", "my_pred": "yes"},
        [{"text": "a", "label": "yes"}],
        [{"text": "a", "label": 1}],
        [{"text": "a", "is_correct": True}],
        {"text": "a", "Answer": "yes"},
        [{"title": "T", "text": "a", "meta": {"gold": "yes"}}],
        "{'METHODS': 'a', 'correct_answer': 'yes'}",
    ],
)
def test_an_answer_inside_the_contexts_is_an_error_with_its_row(
    read_rows_as_train: Any, value: object
) -> None:
    good = {"question": "P?", "contexts": ["a"], "answer": "no"}
    with pytest.raises(
        InputError, match=r"t\.jsonl:2: contexts holds '\w+', which gives the answer away: take it out"
    ):
        read_rows_as_train([good, {"question": "Q?", "contexts": value, "answer": "yes"}])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['We asked '\n 'them all.',\n 'They said so.']", ["We asked them all.", "They said so."]),
        (
            "{'a': 'We asked '\n      'them all.', 'b': 'It was.'}",
            {"a": "We asked them all.", "b": "It was."},
        ),
        ("{'a': ('We asked '\n 'them all.')}", {"a": "We asked them all."}),
        ("['We asked.'\n 'They said so.']", ["We asked.", "They said so."]),  # numpy's
        ("{'a': array(['We asked.', 'It was.'], dtype=object)}", {"a": ["We asked.", "It was."]}),
    ],
)
def test_a_text_split_by_pprint_is_joined(text: str, value: Any) -> None:
    assert parse_cell(text) == value


@pytest.mark.parametrize(
    "section", ["METHODOLOGY", "STUDY SELECTION", "Zielsetzung", "ICU LOS", "Gold standard"]
)
def test_a_passage_label_is_its_section_unless_it_is_an_answer(read_rows_as_train: Any, section: str) -> None:
    row = {"question": "Q?", "answer": "yes", "contexts": [{"label": section, "text": "We asked."}]}
    [record], _ = read_rows_as_train([row])
    assert (record.contexts, record.context_labels) == (("We asked.",), (section,))
    for answer in ("yes", "No.", "B", 1, "0"):
        row["contexts"] = [{"label": answer, "text": "We asked."}]
        with pytest.raises(InputError, match=r"contexts holds '?label'?, which gives the answer away"):
            read_rows_as_train([row])
