"""`fit` and `predict` find the same columns by the usual names, and report unused columns."""

from typing import Any

import pytest

from medqlora.data import read_questions
from medqlora.data.shapes.columns import SYNONYMS, is_tell_tale
from medqlora.errors import InputError

TEXT = "We gave it to 100 adults, and half of them were well."


def test_fit_and_predict_read_every_synonym(read_rows_as_train: Any, tmp_path: Any) -> None:
    given = {"question": "Is it of use?", "contexts": TEXT, "options": ["x", "y"]}
    for ours, value in given.items():
        for name in SYNONYMS[ours]:
            for written in (name, name.upper(), f" {name.replace('_', ' ').title()}"):
                row = {
                    **{key: held for key, held in given.items() if key != ours},
                    written: value,
                    "answer": "B",
                }
                [record], remarks = read_rows_as_train([row])
                assert (record.question, record.contexts, record.options) == (
                    "Is it of use?", (TEXT,), {"A": "x", "B": "y"},
                ), written  # fmt: skip
                assert "not used" not in remarks
                [asked] = read_questions(str(tmp_path / "t.jsonl"), "--data.questions", ("yes", "no"))
                assert (asked.question, asked.contexts, asked.options) == (
                    record.question, record.contexts, record.options,
                )  # fmt: skip
                assert asked.answer is None


@pytest.mark.parametrize("name", SYNONYMS["answer"])
def test_every_synonym_of_answer_is_read(read_rows_as_train: Any, name: str) -> None:
    [record], _ = read_rows_as_train([{"question": "Q?", name: "no"}])
    assert record.answer == "no"


@pytest.mark.parametrize("name", SYNONYMS["long_answer"])
def test_every_synonym_of_rationale_is_read(read_rows_as_train: Any, name: str) -> None:
    [record], _ = read_rows_as_train([{"question": "Q?", "answer": "no", name: "It did not."}])
    assert record.long_answer == "It did not."


@pytest.mark.parametrize(
    "names",
    [
        ("A", "B", "C"), ("a", "b", "c"), ("opa", "opb", "opc"), ("option_a", "option_b", "option_c"),
        ("Option A", "Option B", "Option C"), ("option1", "option2", "option3"), ("choice_0", "choice_1", "choice_2"),
        ("ending0", "ending1", "ending2"), ("opt_a", "opt_b", "opt_c"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_options_in_separate_columns_are_read(
    read_rows_as_train: Any, names: tuple[str, ...], name: str
) -> None:
    row = {"question": "Q?", **dict(zip(names, ("x", "y", "z"), strict=True)), "answer": "b"}
    [record], remarks = read_rows_as_train([row], name)
    assert (record.options, record.answer) == ({"A": "x", "B": "y", "C": "z"}, "B")
    assert "not used" not in remarks


def test_the_fields_own_name_wins_and_the_other_column_is_reported(read_rows_as_train: Any) -> None:
    row = {"question": "Q?", "answer": "yes", "label": "no", "contexts": [TEXT], "abstract": "Another text."}
    [record], remarks = read_rows_as_train([row])
    assert (record.answer, record.contexts) == ("yes", (TEXT,))
    assert "t.jsonl: not used: label, abstract" in remarks


def test_two_candidate_columns_are_an_error_unless_they_are_equal(read_rows_as_train: Any) -> None:
    row = {"question": "Q?", "answer": "yes", "passage": TEXT, "abstract": "Another text."}
    with pytest.raises(
        InputError, match=r"t\.jsonl:1: abstract and passage could both be the contexts: .*fields"
    ):
        read_rows_as_train([row])
    [record], _ = read_rows_as_train([{**row, "abstract": TEXT}])
    assert record.contexts == (TEXT,)
    [record], _ = read_rows_as_train([row], fields={"contexts": "passage"})
    assert record.contexts == (TEXT,)
    free = {"question": "Q?", "output": "A drug.", "target": "A bone."}
    with pytest.raises(InputError, match=r"target and output could both be the answer"):
        read_rows_as_train([free], labels=[])


def test_an_unused_column_with_content_is_reported(read_rows_as_train: Any) -> None:
    row = {"question": "Q?", "answer": "yes", "notes": TEXT, "year": "2001", "source": "PubMed", "n": 12}
    assert "not used: notes" in read_rows_as_train([row])[1].splitlines()[1]
    assert "not used" not in read_rows_as_train([{key: row[key] for key in row if key != "notes"}])[1]


def test_a_formatted_example_as_text_is_no_context(read_rows_as_train: Any) -> None:
    rows = [
        {
            "question": f"Is drug {n} of use?",
            "answer": "yes",
            "text": f"Question: Is drug {n} of use?\nAnswer: yes",
        }
        for n in range(3)
    ]
    records, remarks = read_rows_as_train(rows)
    assert [record.contexts for record in records] == [(), (), ()]
    assert "not used: text" in remarks
    assert "fields.contexts" not in remarks, "the text holds the answer"


def test_an_unused_column_is_offered_as_the_context_of_a_file_without_one(read_rows_as_train: Any) -> None:
    row = {"question": "Q?", "answer": "yes", "Abstract (EN)": TEXT}
    way = "not used: Abstract (EN); if it is the context: --data.source.fields.contexts 'Abstract (EN)'"
    assert way in read_rows_as_train([row])[1]
    [record], remarks = read_rows_as_train([row], fields={"contexts": "Abstract (EN)"})
    assert record.contexts == (TEXT,)
    assert "not used" not in remarks
    assert "fields.contexts" not in read_rows_as_train([{**row, "context": TEXT}])[1]


def test_rows_of_one_file_may_name_a_column_differently(read_rows_as_train: Any) -> None:
    rows = [
        {"question": "Q?", "context": TEXT, "answer": "yes"},
        {"question": "R?", "contexts": [TEXT], "answer": "no"},
    ]
    records, remarks = read_rows_as_train(rows)
    assert [record.contexts for record in records] == [(TEXT,), (TEXT,)]
    assert "not used" not in remarks


@pytest.mark.parametrize(
    ("written", "column"), [(False, "No"), (False, "no"), (True, "YES"), (False, "False"), (3, "3")]
)
def test_a_mapped_column_that_yaml_reads_as_a_boolean_is_found(
    read_rows_as_train: Any, written: object, column: str
) -> None:
    [record], _ = read_rows_as_train([{"question": "Q?", column: "maybe"}], fields={"answer": written})
    assert record.answer == "maybe"


def test_names_that_reveal_the_answer_are_recognised() -> None:
    for name in (
        "final_decision",
        "Answer",
        "label",
        "reasoning_free_pred",
        "is_correct",
        "correct_option",
        "gold",
        "cop",
    ):
        assert is_tell_tale(name), name
    for name in (
        "labels",
        "contexts",
        "METHODS",
        "Gold standard",
        "spread",
        "text",
        "title",
        "meshes",
        "RESULTS",
    ):
        assert not is_tell_tale(name), name


def test_predicts_file_without_a_question_is_an_error_that_lists_its_columns(tmp_path: Any) -> None:
    (tmp_path / "a.jsonl").write_text('{"foo": "Q?"}\n')
    with pytest.raises(
        InputError, match=r"--data\.questions: no row of .* 'question'; there are foo: rename one$"
    ):
        read_questions(str(tmp_path / "a.jsonl"), "--data.questions", ("yes", "no"))


def test_predict_reports_unused_columns(tmp_path: Any) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "Q?", "answer": 7, "notes": "' + TEXT + '"}\n')
    remarks: list[str] = []
    read_questions(str(tmp_path / "a.jsonl"), "--data.questions", ("yes", "no"), remarks=remarks)
    assert remarks[-1] == "a.jsonl: not used: notes"


def test_urls_are_no_passages_and_a_mongodb_id_is_its_text(read_rows_as_train: Any) -> None:
    row = {
        "_id": {"$oid": "65a0"},
        "body": "Is it?",
        "documents": ["http://www.ncbi.nlm.nih.gov/pubmed/1"],
        "snippets": [{"text": "It was."}],
        "exact_answer": "yes",
    }
    [record], _ = read_rows_as_train([row])
    assert (record.id, record.contexts) == ("65a0", ("It was.",))
