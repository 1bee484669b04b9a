"""MedMCQA: whose right options are counted from 0 on the Hub, and from 1 in the authors' files."""

import json

import pytest
from tokenizer_families import family

from medqlora.data import MedMCQA, PubMedQA
from medqlora.data.encoding.encode import encode
from medqlora.data.sources.medmcqa import HUB
from medqlora.data.sources.pubmedqa import official_test_ids
from medqlora.errors import InputError

LETTERS = ("A", "B", "C", "D")


def row(number: int, first: int = 0, **changes: object) -> dict:
    """A row of the Hub (`first` 0) or of the authors' file (1)."""
    values = {
        "id": f"45258d3d-{number:05d}",
        "question": f"Which nerve has {number} fibres?",
        "opa": f"Vagus {number}",
        "opb": f"Facial {number}",
        "opc": f"Optic {number}",
        "opd": "None of the above",
        "cop": number % 4 + first,
        "choice_type": "multi" if number % 3 == 0 else "single",
        "exp": f"Ans. is {number}" if number % 2 else None,
        "subject_name": "Anatomy",
        "topic_name": "Head" if number % 2 else None,
    }
    return {**values, **changes}


def rows(first: int = 0, count: int = 4183) -> list[dict]:
    return [row(number, first) for number in range(count)]


@pytest.mark.parametrize(("name", "first"), [("dev.json", 1), ("hub.jsonl", 0), ("hub.parquet", 0)])
def test_both_counts_of_the_right_option_give_the_same_answers(lines, name, first):
    test = MedMCQA(lines(rows(first), name)).read().test
    assert len(test) == 4183
    assert [record.answer for record in test[:5]] == ["A", "B", "C", "D", "A"]
    fifth = test[5]
    assert (fifth.id, fifth.question) == ("45258d3d-00005", "Which nerve has 5 fibres?")
    assert fifth.options == {"A": "Vagus 5", "B": "Facial 5", "C": "Optic 5", "D": "None of the above"}
    assert (fifth.labels, fifth.long_answer) == (LETTERS, "Ans. is 5")
    assert (fifth.subject, fifth.topics) == ("Anatomy", ("Anatomy", "Head"))
    assert (test[6].long_answer, test[6].topics) == ("", ("Anatomy", "choice_type multi"))


def test_right_options_in_a_csv_are_numbers_too(tmp_path):
    import csv

    with (tmp_path / "dev.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row(0)))
        writer.writeheader()
        writer.writerows(rows(1))
    assert [r.answer for r in MedMCQA(str(tmp_path / "dev.csv")).read().test[:4]] == list(LETTERS)


@pytest.mark.parametrize(
    ("cops", "match"),
    [
        (
            [1, 2, 3, 2],
            r"cop\) 1, 2, 3 alone, which fits the Hub's count from 0 as well as the authors' from 1",
        ),
        ([0, 1, 2, 4], r"cop\) 0 and 4: .*not a mixture"),
        ([-1, -1, None], r"has no answers \(cop\): .*give the validation split \(dev\.json\)"),
        ([0, 1, -1, 3], r"few\.jsonl:3: cop is -1: give the right option's number, 0 to 3"),
        ([1, 4, 5], r"few\.jsonl:3: cop is 5: give the right option's number, 1 to 4"),
        ([0, "a"], r"few\.jsonl:2: cop is 'a'"),
        ([0, True], r"few\.jsonl:2: cop is True"),
    ],
)
def test_right_options_that_can_not_be_told_apart_are_refused(lines, cops, match):
    few = [row(number, cop=cop) for number, cop in enumerate(cops)]
    with pytest.raises(InputError, match=match) as found:
        MedMCQA(lines(few, "few.jsonl"), allow_partial=True).read()
    assert "\n" not in str(found.value)


def test_a_test_file_without_the_column_of_answers_is_told_what_it_is(lines):
    unlabelled = [{key: value for key, value in one.items() if key != "cop"} for one in rows(count=5)]
    with pytest.raises(
        InputError,
        match=r"--data\.source\.test: no row of .*test\.json has the column 'cop' .*validation split",
    ):
        MedMCQA(lines(unlabelled, "test.json")).read()


def test_the_hub_is_tested_on_its_validation_split_and_counts_from_0(hub):
    hub[HUB, "validation"] = [row(number, cop=number % 3 + 1) for number in range(4183)]
    splits = MedMCQA().read()
    assert {record.answer for record in splits.test} == {"B", "C", "D"}
    hub[HUB, "train"] = [row(number) for number in range(5000, 5010)]
    assert [len(part) for part in MedMCQA(train="hub").read()] == [10, 0, 4183]
    hub[HUB, "train"][3]["cop"] = 4
    with pytest.raises(InputError, match=rf"{HUB}/train:4: cop is 4"):
        MedMCQA(train="hub").read()
    with pytest.raises(InputError, match=r"--data\.source\.dev: 'hub' is the validation split"):
        MedMCQA(dev="hub")


def test_an_unreachable_hub_says_which_option_takes_a_local_copy(hub):
    with pytest.raises(InputError, match=r"openlifescienceai/medmcqa .*--data\.source\.test FILE$"):
        MedMCQA().read()


def test_training_questions_of_the_validation_set_are_left_out_and_counted(lines):
    test, train = rows(), [row(number) for number in range(5000, 5010)]
    train += [row(number, id=f"x{number}") for number in range(7)]
    source = MedMCQA(lines(test, "dev.jsonl"), lines(train, "train.jsonl"))
    assert [record.id for record in source.read().train] == [one["id"] for one in train[:10]]
    assert source.remarks[-1:] == ("7 of 17 train questions are in dev or test too, and left out",)


def test_an_id_in_two_sets_is_refused(lines):
    with pytest.raises(InputError, match=r"train\.jsonl:1: the id .* is already at|is already at .*train"):
        MedMCQA(
            lines(rows(), "dev.jsonl"), lines([row(0, question="Other?"), row(5003)], "train.jsonl")
        ).read()


def test_a_pubmedqa_test_question_in_training_is_refused(lines):
    train = [*[row(number) for number in range(5000, 5004)], row(9, id=f"PMID: {official_test_ids()[0]}")]
    with pytest.raises(InputError, match=r"train\.jsonl:5: the train set holds the PMID"):
        MedMCQA(lines(rows(), "dev.jsonl"), lines(train, "train.jsonl")).read()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"question": None}, r":2: question is missing or empty"),
        ({"opb": 3}, r":2: opb is 3: give a text"),
        ({"id": None}, r":2: id is None: give a text or a whole number"),
        ({"exp": ["x"]}, r":2: exp is \['x'\]: give a text"),
    ],
)
def test_a_bad_row_is_named_with_line_value_and_fix(lines, changes, match):
    with pytest.raises(InputError, match=r"t\.jsonl" + match):
        MedMCQA(lines([row(0), row(1, **changes)], "t.jsonl"), allow_partial=True).read()


def test_data_of_another_kind_is_refused(lines):
    with pytest.raises(InputError, match=r"t\.jsonl:1: question is missing: .*JSONLines"):
        MedMCQA(lines([{"prompt": "a", "cop": 0}], "t.jsonl"), allow_partial=True).read()


def test_a_part_of_the_set_is_refused_unless_allowed(lines):
    few = lines(rows(count=4000), "few.jsonl")
    with pytest.raises(InputError, match=r"4,000 of the 4,183 questions of MedMCQA's validation set"):
        MedMCQA(few).read()
    assert len(MedMCQA(few, allow_partial=True).read().test) == 4000


def test_empty_and_equal_options_are_asked_as_they_are(lines):
    few = [row(0), row(1, opb="", opc="Vagus 1", opd=None)]
    test = MedMCQA(lines(few, "t.jsonl"), allow_partial=True).read().test
    assert test[1].options == {"A": "Vagus 1", "B": "", "C": "Vagus 1", "D": ""}


def test_lm_eval_is_the_harness_prompt_byte_for_byte(lines):
    # lm_eval 0.4.13: tasks/medmcqa/utils_medmcqa.py
    few = [row(0, question=" Serum is:", opa="Plasma ", opb="Blood", opc="{question}", opd="All")]
    source = MedMCQA(lines(few, "t.jsonl"), allow_partial=True)
    record = source.read().test[0]
    prompt = source.prompt("lm_eval")
    text = prompt.body(record.question, record.contexts, record.options, record.labels, record.subject)
    assert text == ("Question:  Serum is:\nChoices:\nA. Plasma \nB. Blood\nC. {question}\nD. All\nAnswer:")
    assert prompt.frame(None).delimiter + prompt.completion("D", "Because.", LETTERS) == " D"


@pytest.mark.parametrize("name", ["medical", "chat", "lm_eval"])
def test_neither_the_explanation_nor_the_answer_reaches_a_prompt(lines, name):
    source = MedMCQA(lines(rows(count=8), "a.jsonl"), allow_partial=True)
    changed = [
        row(n, cop=(n + 1) % 4, exp="GIVEAWAY", topic_name="GIVEAWAY", choice_type="GIVEAWAY")
        for n in range(8)
    ]
    other = MedMCQA(lines(changed, "b.jsonl"), allow_partial=True).read().test
    for mine, theirs in zip(source.read().test, other, strict=True):
        assert (mine.answer != theirs.answer, theirs.long_answer) == (True, "GIVEAWAY")
        found = [encode(r, source.prompt(name), family("qwen2"), 500) for r in (mine, theirs)]
        assert found[0].prompt == found[1].prompt
        assert len(found[0].labels) == 4


def test_fingerprints_tell_settings_and_content(lines):
    path = lines(rows(count=5), "t.jsonl")
    first = MedMCQA(path).fingerprint()
    assert json.loads(json.dumps(first)) == first
    assert MedMCQA(path, revision="v2").fingerprint() != first
    lines(rows(count=6), "t.jsonl")
    assert MedMCQA(path).fingerprint() != first


def test_a_source_without_prompts_of_its_own_has_everyones():
    from medqlora.data import lookup

    assert PubMedQA().prompt("lm_eval") is lookup("lm_eval")


def test_a_local_file_is_said_to_be_understood(lines):
    source = MedMCQA(lines(rows(count=4), "test.jsonl"), allow_partial=True)
    source.read()
    assert source.remarks == ("test.jsonl: 4 rows, JSON lines",)
