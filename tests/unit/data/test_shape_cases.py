"""`JSONLines` reads small example files of other projects with the right values."""

from pathlib import Path
from typing import Any

import pytest

from medqlora.data import JSONLines, MedMCQA, lookup, read_questions
from medqlora.errors import InputError
from medqlora.records import Record

YES_NO_MAYBE = ["yes", "no", "maybe"] * 4
LETTERS = ["A", "B", "C", "D"] * 3


def read(cases: Path, name: str, **options: Any) -> tuple[list[Record], tuple[str, ...]]:
    source = JSONLines(str(cases / "data" / name), dev_fraction=0, **options)
    return source.read().train, source.remarks


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("messages.jsonl", "chat messages (last answer learned)"),
        ("sharegpt.json", "chat messages (last answer learned)"),
        ("prompt_completion.jsonl", "prompt and completion"),
        ("alpaca_verbose.json", "Alpaca (instruction, input, output)"),
        ("case.jsonl", "labels yes/no/maybe"),
        ("capital.jsonl", "labels yes/no/maybe"),
        ("csv_space.csv", "labels yes/no/maybe"),
        ("ctxnull.jsonl", "labels yes/no/maybe"),
        ("ctxdict.jsonl", "labels yes/no/maybe"),
        ("context_singular.jsonl", "labels yes/no/maybe"),
        ("listrepr.csv", "labels yes/no/maybe"),
        ("hf_to_csv.csv", "labels yes/no/maybe"),
        ("hf_pubmedqa.csv", "labels yes/no/maybe"),
    ],
)
def test_each_shape_gives_its_questions_and_labels(cases: Path, name: str, said: str) -> None:
    records, remarks = read(cases, name)
    assert [record.answer for record in records] == YES_NO_MAYBE
    assert records[0].question == "Does velomab prevent stroke after admission 0?"
    assert remarks[0].startswith(f"{name}: 12 rows")
    assert said in remarks[0].split(", ", 1)[1]
    if name not in ("sharegpt.json", "prompt_completion.jsonl", "messages.jsonl"):
        text = " ".join(records[0].contexts)
        assert text == "We gave velomab to 100 adults. Stroke fell from 30% to 10% (p < 0.01)."


@pytest.mark.parametrize(
    "name", ["ctxnull.jsonl", "ctxdict.jsonl", "listrepr.csv", "hf_to_csv.csv", "hf_pubmedqa.csv"]
)
def test_a_list_of_passages_is_two_passages(cases: Path, name: str) -> None:
    for record in read(cases, name)[0]:
        assert len(record.contexts) == 2
        assert record.context_labels == (
            ("METHODS", "RESULTS") if name in ("ctxdict.jsonl", "hf_pubmedqa.csv") else ()
        )


def test_alpacas_answers_give_label_and_rationale_or_are_free(cases: Path) -> None:
    records, remarks = read(cases, "alpaca_verbose.json")
    assert records[1].long_answer == "because Under corvastine, reflux: no."
    assert any("in 12 of 12 rows text follows the label" in line for line in remarks)
    records, remarks = read(cases, "alpaca.json")
    assert (records[0].labels, records[0].answer) == ((), "Under velomab, stroke: yes.")
    assert (records[0].contexts, len(records[1].contexts)) == ((), 1)
    assert remarks[0].endswith(", Alpaca (instruction, input, output), free answers")


def test_numbers_and_booleans_are_read_by_named_labels(cases: Path) -> None:
    for name, labels, answers in (
        ("int_labels.jsonl", ["yes", "no", "maybe"], YES_NO_MAYBE),
        ("int_labels.jsonl", {0: True, 1: False, 2: "maybe"}, YES_NO_MAYBE),
        ("bool_labels.jsonl", [True, False], ["yes", "no", "no"] * 4),
        ("bool_labels.jsonl", ["no", "yes"], ["yes", "no", "no"] * 4),
        ("yesno.jsonl", [True, False], None),
    ):
        records, _ = read(cases, name, labels=labels)
        assert answers in (None, [record.answer for record in records])
        assert {record.answer for record in records} <= {"yes", "no", "maybe"}
    for name in ("int_labels.jsonl", "bool_labels.jsonl"):
        with pytest.raises(InputError, match=rf"{name}:1: answer is .*--data\.source\.labels .*mapping"):
            read(cases, name)


@pytest.mark.parametrize(
    "name", ["mmlu.jsonl", "arc.jsonl", "opt_lower.jsonl", "optrepr.csv", "medmcqa0.jsonl"]
)
def test_multiple_choice_files_of_other_projects_are_read(cases: Path, name: str) -> None:
    records, _ = read(cases, name)
    assert [record.answer for record in records] == LETTERS
    assert dict(records[1].options) == {"A": "Liver 1", "B": "Kidney 1", "C": "Spleen 1", "D": "Heart 1"}
    asked = read_questions(str(cases / "data" / name), "--data.questions", ("yes", "no", "maybe"))
    assert [(one.options, one.labels, one.answer) for one in asked] == [
        (one.options, one.labels, None) for one in records
    ]


def test_the_medmcqa_reader_counts_from_0(cases: Path) -> None:
    test = MedMCQA(str(cases / "data" / "medmcqa0.jsonl"), allow_partial=True).read().test
    assert [record.answer for record in test] == LETTERS


@pytest.mark.parametrize("name", ["medical", "chat", "lm_eval"])
def test_the_annotators_answers_of_pubmedqa_as_csv_reach_no_prompt(cases: Path, name: str) -> None:
    for record in read(cases, "hf_pubmedqa.csv")[0]:
        body = lookup(name).body(
            record.question, record.contexts, record.options, record.labels, record.subject
        )
        assert "reasoning" not in body
        assert not any(mark in body for mark in "[]{}'")
        assert record.topics == ("Adult",)


def test_quality_remarks_of_a_file_are_reported(cases: Path) -> None:
    records, remarks = read(cases, "conflict.jsonl")
    assert len(records) == 13
    assert any("conflict:1 (yes), conflict:13 (no)" in line for line in remarks)
    records, remarks = read(cases, "sameid.jsonl")
    assert [record.id for record in records[:4]] == ["PMC0", "PMC0#2", "PMC0#3", "PMC1"]
    assert any("8 rows have ids" in line and "--data.source.fields.id" in line for line in remarks)
