"""Options in every form, and answers that name one by letter, text or number."""

from typing import Any

import pytest

from medqlora.errors import InputError

TEXTS = ["Aspirin", "Atenolol", "Ibuprofen", "Digoxin"]
BY_LETTER = dict(zip("ABCD", TEXTS, strict=True))


def rows(answers: list[Any], options: Any = TEXTS, column: str = "options") -> list[dict[str, Any]]:
    return [
        {"question": f"Which of these, {number}?", column: options, "answer": answer}
        for number, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    "options",
    [
        TEXTS,
        BY_LETTER,
        {"text": TEXTS, "label": list("ABCD")},
        {"label": list("ABCD"), "text": TEXTS},
        [{"key": letter, "value": text} for letter, text in BY_LETTER.items()],
        [{"label": letter, "text": text} for letter, text in BY_LETTER.items()],
        [{letter: text} for letter, text in BY_LETTER.items()],
        [{"text": text} for text in TEXTS],
        {f"op{letter.lower()}": text for letter, text in BY_LETTER.items()},
        [f"{letter}. {text}" for letter, text in BY_LETTER.items()],
        "\n".join(f"{letter}) {text}" for letter, text in BY_LETTER.items()),
        "\n".join(f"({letter}) {text}" for letter, text in BY_LETTER.items()),
        " ".join(f"{letter}. {text}" for letter, text in BY_LETTER.items()),
        " , ".join(f"{letter.lower()} ) {text}" for letter, text in BY_LETTER.items()),
        "A: Aspirin; B: Atenolol; C: Ibuprofen; D: Digoxin",
    ],
)
def test_options_are_read_in_every_form_also_as_text_in_a_cell(read_rows_as_train: Any, options: Any) -> None:
    for name, held in (("t.jsonl", options), ("t.csv", options)):
        for column in ("options", "choices"):
            [record], _ = read_rows_as_train(rows(["Atenolol"], held, column), name)
            assert (dict(record.options), record.labels, record.answer) == (BY_LETTER, tuple("ABCD"), "B")


def test_numpy_arrays_in_a_cell_are_parsed(read_rows_as_train: Any) -> None:
    cell = "{'text': array(['x', 'y'], dtype=object), 'label': array(['A', 'B'], dtype=object)}"
    [record], _ = read_rows_as_train([{"question": "Q?", "choices": cell, "answerKey": "B"}], "t.csv")
    assert (record.options, record.answer) == ({"A": "x", "B": "y"}, "B")


def test_five_options_of_medqa_and_numeric_labels_are_read(read_rows_as_train: Any) -> None:
    five = {letter: f"Drug {letter}" for letter in "ABCDE"}
    row = {"question": "Q?", "answer": "Drug E", "options": five, "meta_info": "step1", "answer_idx": "E"}
    [record], remarks = read_rows_as_train([row])
    assert (record.labels, record.answer) == (tuple("ABCDE"), "E")
    assert "not used" not in remarks
    arc = {"text": TEXTS, "label": ["1", "2", "3", "4"]}
    [record], _ = read_rows_as_train([{"question": "Q?", "choices": arc, "answerKey": "2"}])
    assert (record.labels, record.options[record.answer or ""]) == (("1", "2", "3", "4"), "Atenolol")


@pytest.mark.parametrize(
    "answer",
    [
        "b", "B.", "(B)", "B)", " B ", "Option B", "option b", "Answer: B", "The correct answer is B.", "Ｂ", "[B]",
        "atenolol", "ATENOLOL.", " Atenolol ", "B. Atenolol", "B: atenolol", "(b) Atenolol", "B) Atenolol", "**B**",
        "Choice B", '"B"', "['B']", ["B"],
    ],
)  # fmt: skip
def test_an_answer_names_its_option_in_every_form(read_rows_as_train: Any, answer: Any) -> None:
    [record, _], _ = read_rows_as_train(rows([answer, "A"]))
    assert record.answer == "B"


@pytest.mark.parametrize(
    "answer", ["E", "A, B", "A and B", "B. Aspirin", ["A", "B"], "Atenolol or Aspirin", "beta blocker"]
)
def test_an_answer_that_names_no_option_or_several_is_an_error(read_rows_as_train: Any, answer: Any) -> None:
    with pytest.raises(InputError, match=r"t\.jsonl:1: answer is .* none of A, B, C, D"):
        read_rows_as_train(rows([answer, "A"]))


def test_text_after_a_letter_is_the_rationale(read_rows_as_train: Any) -> None:
    [record, _], _ = read_rows_as_train(rows(["B, because it blocks beta receptors.", "A"]))
    assert (record.answer, record.long_answer) == ("B", "because it blocks beta receptors.")
    [record, _], _ = read_rows_as_train(rows(["B. Atenolol. It blocks beta receptors.", "A"]))
    assert (record.answer, record.long_answer) == ("B", "It blocks beta receptors.")


@pytest.mark.parametrize("answer", ["2", 2, "2.", "(2)", "Atenolol", "Option 2"])
def test_numbered_lines_keep_their_numbers(read_rows_as_train: Any, answer: Any) -> None:
    [record], _ = read_rows_as_train(rows([answer], "1. Aspirin\n2. Atenolol\n3. Ibuprofen"))
    assert (record.labels, record.answer) == (("1", "2", "3"), "2")


@pytest.mark.parametrize(
    ("names", "answer"),
    [(("option1", "option2"), "Option 2"), (("opa", "opb"), "opb"), (("ending0", "ending1"), "ending1")],
)
def test_an_answer_may_be_the_name_of_its_column(
    read_rows_as_train: Any, names: tuple[str, str], answer: str
) -> None:
    row = {"question": "Q?", **dict(zip(names, ("x", "y"), strict=True)), "answer": answer}
    assert read_rows_as_train([row])[0][0].answer == "B"


@pytest.mark.parametrize(
    ("answers", "letters"),
    [
        ([0, 1, 2, 3], "ABCD"),
        ([1, 2, 3, 4], "ABCD"),
        (["1", "0"], "BA"),
        (["2.0", "4.0"], "BD"),
        ([0, "B"], "AB"),
        ([3.0, 0.0], "DA"),
    ],
)
@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_the_first_number_is_detected_from_all_rows(
    read_rows_as_train: Any, answers: list[Any], letters: str, name: str
) -> None:
    records, _ = read_rows_as_train(rows(answers), name)
    assert "".join(record.answer or "" for record in records) == letters


def test_rows_with_fewer_options_determine_the_first_number(read_rows_as_train: Any) -> None:
    two = [*rows([1], ["x", "y"]), {**rows([2], ["x", "y"])[0], "question": "Which else?"}]
    assert [record.answer for record in read_rows_as_train(two)[0]] == ["A", "B"]


@pytest.mark.parametrize(
    ("answers", "match"),
    [
        (
            [1, 2, 3],
            r"the numbers answer as answers: 1, 2, 3 fit a count from 0 .*--data\.source\.answer_index",
        ),
        ([0, 4], r"both 0 and 4 of 4 occur"),
        ([0, 7], r"t\.jsonl:2: answer is 7: give a number of the 4 options"),
        ([4, 0.5], r"t\.jsonl:2: answer is 0\.5"),
        ([0, True], r"t\.jsonl:2: answer is True"),
    ],
)
def test_ambiguous_option_numbers_are_an_error(
    read_rows_as_train: Any, answers: list[Any], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        read_rows_as_train(rows(answers))


def test_the_first_option_number_can_be_set(read_rows_as_train: Any) -> None:
    for first, letters in ((0, ["B", "C", "D"]), (1, ["A", "B", "C"])):
        records, _ = read_rows_as_train(rows([1, 2, 3]), answer_index=first)
        assert [record.answer for record in records] == letters


def test_numbers_that_equal_option_texts_are_texts(read_rows_as_train: Any) -> None:
    ages = ["60", "80", "100"]
    assert [one.answer for one in read_rows_as_train(rows(["60", "80"], ages))[0]] == ["A", "B"]
    assert [one.answer for one in read_rows_as_train(rows([60, 80], [60, 80, 100]))[0]] == ["A", "B"]
    mixed = [*rows(["Aspirin"]), {**rows(["2"], ["1", "2", "3"])[0], "question": "How many?"}]
    assert [one.answer for one in read_rows_as_train(mixed)[0]] == ["A", "B"]
    with pytest.raises(InputError, match="each is the text of one option and the number of another"):
        read_rows_as_train(rows(["2", "1"], ["1", "2", "3"]))


def test_columns_that_name_different_options_are_an_error(read_rows_as_train: Any) -> None:
    row = {**rows(["Aspirin"])[0], "answer_idx": "B"}
    with pytest.raises(InputError, match=r"t\.jsonl:1: answer names option A and answer_idx option B"):
        read_rows_as_train([row])
    # the letter decides between equal texts
    twice = {"question": "Q?", "options": ["x", "x", "y"], "answer": "x", "answer_idx": "B"}
    assert read_rows_as_train([twice])[0][0].answer == "B"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"text": ["x", "y"], "label": ["A"]}, "give 2 different labels"),
        ({"text": ["x", "y"], "label": ["A", "A"]}, "give 2 different labels"),
        ([{"key": "A", "value": "x"}, {"key": "A", "value": "y"}], "give each option a label of its own"),
        ([{"key": "A"}, {"key": "B"}], 'give objects with "label" and "text"'),
        ([{"key": "A", "value": "x"}, "y"], 'give objects with "label" and "text"'),
        ("x or y", "give an object of letters and texts, or a list of texts"),
        ([str(number) for number in range(30)], "give 26 options at most"),
        ([True, False], "give a text"),
    ],
)
def test_invalid_options_are_an_error_with_their_row(
    read_rows_as_train: Any, options: Any, match: str
) -> None:
    with pytest.raises(InputError, match=rf"t\.jsonl:1: options.*{match}"):
        read_rows_as_train(rows(["A"], options))


@pytest.mark.parametrize(
    "row",
    [
        {"options": "A Aspirin\nB Atenolol\nC Digoxin\n"},
        {"options": "A. Aspirin<br>B. Atenolol<br/>C. Digoxin"},
        {"options": "A、Aspirin B、Atenolol C、Digoxin"},
        {"option": {"A": "Aspirin", "B": "Atenolol", "C": "Digoxin"}},
        {
            "options": [
                {"aid": "A", "atext": "Aspirin"},
                {"aid": "B", "atext": "Atenolol"},
                {"aid": "C", "atext": "Digoxin"},
            ]
        },
    ],
)
def test_option_formats_of_exams_in_other_countries_are_read(
    read_rows_as_train: Any, row: dict[str, Any]
) -> None:
    [record], _ = read_rows_as_train([{"question": "Q?", "answer": "B", **row}])
    assert (dict(record.options), record.answer) == ({"A": "Aspirin", "B": "Atenolol", "C": "Digoxin"}, "B")


@pytest.mark.parametrize("name", ["gold", "correct_answers", "answer"])
def test_a_list_of_one_number_is_that_number(read_rows_as_train: Any, name: str) -> None:
    rows = [{"question": f"Q {n}?", "choices": ["x", "y", "z"], name: [n]} for n in range(3)]
    assert [record.answer for record in read_rows_as_train(rows)[0]] == ["A", "B", "C"]
    rows[1][name] = [1, 2]
    with pytest.raises(InputError, match="none of A, B, C"):
        read_rows_as_train(rows)


@pytest.mark.parametrize("texts", [["True", "False"], ["Yes", "No"], ["yes", "no", "maybe"]])
def test_a_boolean_names_the_option_with_its_meaning(read_rows_as_train: Any, texts: list[str]) -> None:
    rows = [{"question": f"Q {n}?", "choices": texts, "answer": n == 0} for n in range(2)]
    assert [record.answer for record in read_rows_as_train(rows)[0]] == ["A", "B"]
    rows[0]["choices"] = ["Aspirin", "Atenolol"]
    with pytest.raises(InputError, match="answer is True, which is none of A, B"):
        read_rows_as_train(rows)
