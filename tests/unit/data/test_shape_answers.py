"""Answers: labels in every spelling, numbers and booleans with named meanings, and rationales."""

from pathlib import Path
from typing import Any

import jsonargparse
import pytest

from medqlora.data import JSONLines, Source
from medqlora.errors import InputError


def rows(answers: list[Any], **more: Any) -> list[dict[str, Any]]:
    return [
        {"question": f"Is drug {number} of use?", "answer": answer, **more}
        for number, answer in enumerate(answers)
    ]


def answers_of(read: Any, given: list[Any], name: str = "t.jsonl", **options: Any) -> list[str]:
    return [record.answer for record in read(rows(given), name, **options)[0]]


@pytest.mark.parametrize(
    "written",
    [
        "Yes", "YES", "yes ", " yes", "yes.", "yes,", "“Yes.”", '"yes"', "'Yes'", "**Yes**", "(yes)", "yes!", "Ｙｅｓ",
        "\u200byes\ufeff", "yes\n", "Answer: yes", "The answer is yes.", "`yes`", "»Yes«", "yes\u00a0", "y\u00ades",
    ],
)  # fmt: skip
def test_a_label_is_read_in_every_spelling(read_rows_as_train: Any, written: str) -> None:
    for name in ("t.jsonl", "t.csv"):
        assert answers_of(read_rows_as_train, [written, "no"], name) == ["yes", "no"]


@pytest.mark.parametrize(
    "written",
    [
        "No evidence supports it",
        "yes or no",
        "yes/no",
        "yes, no",
        "no-one knows",
        "nope",
        "yes no",
        "unclear",
        "1",
        "ye s",
    ],
)
def test_an_answer_that_is_not_a_label_is_an_error(read_rows_as_train: Any, written: str) -> None:
    with pytest.raises(
        InputError, match=r"t\.jsonl:1: answer is .* none of yes, no, maybe: .*--data\.source\.labels"
    ):
        read_rows_as_train(rows([written, "no"]))


@pytest.mark.parametrize(
    ("written", "label", "rationale"),
    [
        ("Yes, because it fell.", "yes", "because it fell."),
        ("No. The trial found none.", "no", "The trial found none."),
        ("Maybe - it fell in women only", "maybe", "it fell in women only"),
        ("yes: it fell", "yes", "it fell"),
        ("NO\n\nThe trial found none.", "no", "The trial found none."),
        ("**Yes**, it fell.", "yes", "it fell."),
        ("Yes because it fell", "yes", "because it fell"),
        ("Yes (p < 0.01).", "yes", "(p < 0.01)."),
        ("Yes — it fell by 5 cm², no more", "yes", "it fell by 5 cm², no more"),
        ("Answer: no. None was found.", "no", "None was found."),
        ("**Answer:** yes, it fell.", "yes", "it fell."),
        ("yes，降了。", "yes", "降了。"),
    ],
)
def test_text_after_a_label_is_the_rationale(
    read_rows_as_train: Any, written: str, label: str, rationale: str
) -> None:
    [record, _], remarks = read_rows_as_train(rows([written, "yes"]))
    assert (record.answer, record.long_answer) == (label, rationale)
    assert "in 1 of 2 rows text follows the label: learned as the rationale" in remarks
    [record, _], remarks = read_rows_as_train(rows([written, "yes"], long_answer="So it is."))
    assert (record.answer, record.long_answer) == (label, "So it is.")
    assert "text follows the label: left out, since long_answer holds the rationale" in remarks


def test_custom_labels_are_read_alike(read_rows_as_train: Any) -> None:
    assert answers_of(read_rows_as_train, ["JA", "nein."], labels=["ja", "nein"]) == ["ja", "nein"]
    assert answers_of(read_rows_as_train, ["ii", "I. It is."], labels=["I", "II"]) == ["II", "I"]
    assert answers_of(read_rows_as_train, ["ja", "Nein"], labels={"ja": True, "nein": False}) == ["yes", "no"]
    # labels that differ only in case must match exactly
    assert answers_of(read_rows_as_train, ["a", "A"], labels=["A", "a"]) == ["a", "A"]
    with pytest.raises(InputError, match="none of A, a"):
        read_rows_as_train(rows(["a.", "A"]), labels=["A", "a"])
    assert answers_of(read_rows_as_train, ["+", "-"], labels=["+", "-"]) == ["+", "-"]


@pytest.mark.parametrize(
    ("given", "labels", "answers"),
    [
        ([0, 1, 2], ["yes", "no", "maybe"], ["yes", "no", "maybe"]),
        ([1, 2, 3], ["yes", "no", "maybe"], ["yes", "no", "maybe"]),
        ([1, 0, 1], ["no", "yes"], ["yes", "no", "yes"]),
        (["1", "0"], ["no", "yes"], ["yes", "no"]),
        (["1.0", "0.0"], ["no", "yes"], ["yes", "no"]),
        (["1.00", "0,00"], ["no", "yes"], ["yes", "no"]),
        ([1.0, 0.0], ["no", "yes"], ["yes", "no"]),
        ([True, False], ["yes", "no"], ["yes", "no"]),
        ([True, False], ["no", "yes"], ["yes", "no"]),
        (["True", "False"], ["no", "yes"], ["yes", "no"]),
        ([True, False], ["nein", "ja"], ["ja", "nein"]),
        ([True, False], {True: "malignant", False: "benign"}, ["malignant", "benign"]),
        ([3, 7], {3: "no", 7: "yes"}, ["no", "yes"]),
        (["0", "1", "yes"], {"0": "no", "1": "yes"}, ["no", "yes", "yes"]),
        ([0, 1], [0, 1], ["0", "1"]),
    ],
)
def test_numbers_and_booleans_stand_for_named_labels(
    read_rows_as_train: Any, given: list[Any], labels: Any, answers: list[str]
) -> None:
    assert answers_of(read_rows_as_train, given, labels=labels) == answers


@pytest.mark.parametrize(
    ("given", "options", "match"),
    [
        ([0, 1], {}, r"t\.jsonl:1: answer is 0, .*--data\.source\.labels in their order, or as a mapping"),
        (
            [True, False],
            {},
            r"t\.jsonl:1: answer is True, .*--data\.source\.labels \[yes, no\], or a mapping",
        ),
        (
            [True, False],
            {"labels": ["benign", "malignant"]},
            r"answer is True, which is none of benign, malignant",
        ),
        (
            [1, 2, 1],
            {"labels": ["a", "b", "c"]},
            r"1, 2 fit a count from 0 as well .*answer_index 0 or 1",
        ),
        ([0, 3], {"labels": ["a", "b", "c"]}, r"both 0 and 3 of 3 occur, which mixes counts"),
        ([0, 1, 7], {"labels": ["a", "b", "c"]}, r"t\.jsonl:3: answer is 7: give a number of the 3 labels"),
        ([0, 2], {"labels": {0: "no", 1: "yes"}}, r"t\.jsonl:2: answer is 2, which is none of no, yes"),
    ],
)
def test_ambiguous_numbers_are_an_error(
    read_rows_as_train: Any, given: list[Any], options: dict[str, Any], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        read_rows_as_train(rows(given), **options)


def test_all_rows_take_their_answer_from_the_same_column(read_rows_as_train: Any) -> None:
    good = {"question": "P?", "answer": "yes", "label": "no"}
    for value, match in (("perhaps", "answer is 'perhaps'"), (None, "answer is missing or empty")):
        with pytest.raises(InputError, match=rf"t\.jsonl:2: {match}"):
            read_rows_as_train([good, {"question": "Q?", "answer": value, "label": "no"}])
    # a column without a readable answer in any row is not the answer
    rows = [
        {"question": f"Q {n}?", "answer": "It is not known.", "label": ("yes", "no")[n % 2]} for n in range(4)
    ]
    records, remarks = read_rows_as_train(rows)
    assert [record.answer for record in records] == ["yes", "no", "yes", "no"]
    assert "not used: answer" in remarks
    [record], _ = read_rows_as_train([{"question": "Q?", "answer": "A drug.", "label": 3}], labels=[])
    assert record.answer == "A drug."
    rows = [{"question": "Q?", "answer": "no"}, {"question": "R?", "label": "yes"}]
    assert [record.answer for record in read_rows_as_train(rows)[0]] == ["no", "yes"]


def test_the_first_number_can_be_set(read_rows_as_train: Any) -> None:
    labels = ["a", "b", "c"]
    assert answers_of(read_rows_as_train, [1, 2, 1], labels=labels, answer_index=0) == ["b", "c", "b"]
    assert answers_of(read_rows_as_train, [1, 2, 1], labels=labels, answer_index=1) == ["a", "b", "a"]
    for wrong in (2, True, "0"):
        with pytest.raises(InputError, match=r"--data\.source\.answer_index: .*: give 0, 1 or null"):
            JSONLines("t.jsonl", answer_index=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("[yes, no]", ("yes", "no")),
        ("[Yes, No]", ("yes", "no")),
        ("[no, yes, unclear]", ("no", "yes", "unclear")),
        ("{0: no, 1: yes}", ("no", "yes")),
        ("{ja: yes, nein: no}", ("yes", "no")),
        ("{true: malignant, false: benign}", ("malignant", "benign")),
        ("[1, 2, 3]", ("1", "2", "3")),
        ("[]", ()),
        ("ja, nein", ("ja", "nein")),
    ],
)
def test_yaml_booleans_are_read_as_the_words_in_the_file(
    tmp_path: Path, yaml: str, words: tuple[str, ...]
) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Source, "source")
    (tmp_path / "t.jsonl").write_text('{"question": "Q?", "No": "ja", "x": 1}\n')
    text = f"source:\n  class_path: medqlora.data.JSONLines\n  init_args:\n    train: t.jsonl\n    labels: {yaml}\n"
    (tmp_path / "c.yaml").write_text(text + "    fields: {answer: No}\n")
    given = parser.parse_args(["--config", str(tmp_path / "c.yaml")]).source.init_args
    source = JSONLines(**vars(given))
    assert tuple(_words(source.fingerprint()["labels"])) == words


def _words(labels: Any) -> list[str]:
    return list(dict.fromkeys(labels.values())) if isinstance(labels, dict) else labels


@pytest.mark.parametrize(
    "labels", [["yes"], ["a", "a"], [True, "yes"], {0: "no", 1: "no"}, ["a", " "], "5", "a,"]
)
def test_a_single_label_or_equal_labels_are_an_error(labels: Any) -> None:
    with pytest.raises(InputError, match=r"--data\.source\.labels: .*: give two or more different ones"):
        JSONLines("t.jsonl", labels=labels)


def test_a_file_without_answers_is_an_error_that_lists_its_columns(read_rows_as_train: Any) -> None:
    rows = [{"question": "Q?", "context": "It was.", "choice": "yes"}]
    with pytest.raises(
        InputError,
        match=r"no column of .*t\.jsonl holds the answers; there are choice, context, question: .*fields\.answer",
    ):
        read_rows_as_train(rows)


@pytest.mark.parametrize("word", ["\\N", "NULL", "nan", "NaN", "None", "<NA>", "null"])
def test_null_words_of_databases_are_no_passages_and_no_rationales(
    read_rows_as_train: Any, word: str
) -> None:
    [record], _ = read_rows_as_train(
        [{"question": "Q?", "context": word, "exp": word, "answer": "yes"}], "t.csv"
    )
    assert (record.contexts, record.long_answer) == ((), "")
    [record], _ = read_rows_as_train([{"question": "Q?", "options": ["yes", word], "answer": word}])
    assert record.answer == "B"
