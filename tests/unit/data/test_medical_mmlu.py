"""The medical subjects of MMLU, from the authors' folder of CSV files and from the Hub's table."""

import csv
import json
from pathlib import Path

import pytest
from tokenizer_families import family

from medqlora.data import MedicalMMLU
from medqlora.data.encoding.encode import encode
from medqlora.data.sources.medical_mmlu import HUB, SUBJECTS
from medqlora.errors import InputError

LETTERS = ("A", "B", "C", "D")


def row(subject: str, number: int, **changes: object) -> dict:
    """A row of the Hub's table."""
    values = {
        "question": f"What of {subject}, number {number}?",
        "subject": subject,
        "choices": [f"{subject} {number}{letter}" for letter in LETTERS],
        "answer": number % 4,
    }
    return {**values, **changes}


WHOLE = [row(subject, number) for subject, size in SUBJECTS.items() for number in range(size)]


def write_csv(folder: Path, rows: list[dict], kind: str = "test") -> str:
    """The authors' folder: a file a subject, without header."""
    folder.mkdir(exist_ok=True)
    for subject in dict.fromkeys(one["subject"] for one in rows):
        with (folder / f"{subject}_{kind}.csv").open("w", newline="", encoding="utf-8") as file:
            mine = [one for one in rows if one["subject"] == subject]
            csv.writer(file).writerows(
                [one["question"], *one["choices"], LETTERS[one["answer"]]] for one in mine
            )
    return str(folder)


def plain(records):
    return [(r.id, r.question, r.options, r.labels, r.answer, r.subject, r.topics) for r in records]


def test_the_official_sizes_are_1089_in_six_subjects():
    assert list(SUBJECTS.values()) == [135, 265, 144, 173, 100, 272]
    assert sum(SUBJECTS.values()) == 1089


def test_the_authors_folder_holds_1089_questions_with_their_subjects(tmp_path):
    train, dev, test = MedicalMMLU(write_csv(tmp_path / "test", WHOLE)).read()
    assert (len(train), len(dev), len(test)) == (0, 0, 1089)
    record = test[135 + 6]
    assert record.id == "clinical_knowledge-006"
    assert (record.subject, record.topics) == ("clinical knowledge", ("clinical knowledge",))
    assert record.options["B"] == "clinical_knowledge 6B"
    assert (record.labels, record.answer, record.contexts) == (LETTERS, "C", ())
    assert record.where.endswith("clinical_knowledge_test.csv:7")
    assert test[-1].id == "professional_medicine-271"


@pytest.mark.parametrize("name", ["test.jsonl", "all/test-00000-of-00001.parquet"])
def test_the_hubs_table_gives_the_same_records_and_other_subjects_are_left_out(lines, tmp_path, name):
    expected = plain(MedicalMMLU(write_csv(tmp_path / "csv", WHOLE)).read().test)
    mixed = [row("astronomy", 1), *WHOLE, row("virology", 2)]
    path = Path(lines(mixed, name))
    given = str(path.parent) if path.parent.name == "all" else str(path)
    assert plain(MedicalMMLU(given).read().test) == expected


def test_letters_as_answers_are_taken_too(lines):
    lettered = [{**one, "answer": LETTERS[one["answer"]]} for one in WHOLE]
    test = MedicalMMLU(lines(lettered, "test.jsonl")).read().test
    assert [record.answer for record in test[:5]] == ["A", "B", "C", "D", "A"]


def test_the_hub_is_read_subject_by_subject(hub):
    for subject, size in SUBJECTS.items():
        hub[HUB, subject, "test"] = [row(subject, number) for number in range(size)]
        hub[HUB, subject, "dev"] = [row(subject, number) for number in range(5000, 5005)]
        hub[HUB, subject, "validation"] = [row(subject, number) for number in range(6000, 6010)]
    assert [len(part) for part in MedicalMMLU().read()] == [0, 0, 1089]
    train, dev, test = MedicalMMLU(train="hub", dev="hub").read()
    assert (len(train), len(dev), len(test)) == (30, 60, 1089)
    assert test[0].where == "cais/mmlu/anatomy/test:1"


def test_the_authors_dev_and_val_files_are_train_and_dev(tmp_path):
    test = write_csv(tmp_path / "test", WHOLE)
    train = write_csv(tmp_path / "dev", [row("anatomy", n) for n in range(5000, 5005)], "dev")
    dev = write_csv(tmp_path / "val", [row("anatomy", n) for n in range(6000, 6014)], "val")
    assert [len(part) for part in MedicalMMLU(test, train, dev).read()] == [5, 14, 1089]


def test_a_question_of_the_test_set_is_left_out_of_dev_and_counted(tmp_path):
    test = write_csv(tmp_path / "test", WHOLE)
    dev = write_csv(tmp_path / "val", [row("anatomy", 3), row("anatomy", 6000)], "val")
    source = MedicalMMLU(test, dev=dev)
    assert len(source.read().dev) == 1
    assert source.remarks == ("1 of 2 dev questions are in test too, and left out",)


def test_a_subject_that_lacks_questions_is_named_and_refused_unless_allowed(tmp_path):
    some = write_csv(tmp_path / "some", [one for one in WHOLE if one["subject"] != "medical_genetics"])
    with pytest.raises(InputError, match=r"0 of the 100 questions of MMLU's test set of medical genetics"):
        MedicalMMLU(some).read()
    assert len(MedicalMMLU(some, allow_partial=True).read().test) == 989
    fewer = write_csv(tmp_path / "fewer", WHOLE[1:])
    with pytest.raises(InputError, match=r"134 of the 135 .* anatomy: .*--data\.source\.allow_partial true"):
        MedicalMMLU(fewer).read()
    more = write_csv(tmp_path / "more", [*WHOLE, row("anatomy", 999)])
    with pytest.raises(InputError, match=r"136 questions, and MMLU's test set of anatomy has 135"):
        MedicalMMLU(more, allow_partial=True).read()


def test_a_folder_without_the_files_says_which_it_wants(tmp_path, lines):
    (tmp_path / "empty").mkdir()
    write_csv(tmp_path / "val", WHOLE[:9], "val")
    for folder in ("empty", "val"):
        with pytest.raises(
            InputError, match=rf"--data\.source\.test: the folder .*{folder} holds no <subject>_test\.csv"
        ):
            MedicalMMLU(str(tmp_path / folder)).read()
    with pytest.raises(InputError, match=r"--data\.source\.test: there is no file /absent"):
        MedicalMMLU("/absent").read()
    with pytest.raises(InputError, match=r"holds 0 of the 135 questions"):
        MedicalMMLU(lines([row("astronomy", 1)], "other.jsonl"), allow_partial=True).read()


def test_an_unreachable_hub_says_which_option_takes_a_local_copy(hub):
    with pytest.raises(InputError, match=r"cais/mmlu \(anatomy, revision main\).*--data\.source\.test FILE$"):
        MedicalMMLU().read()


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("Why?,a,b,c,d,E", r"anatomy_test\.csv:2: answer is 'E', which is none of A, B, C, D"),
        ("Why?,a,b,c,A", r"anatomy_test\.csv:2: has 5 cells, not 6: quote the cells"),
        (",a,b,c,d,A", r"anatomy_test\.csv:2: question is missing or empty"),
    ],
)
def test_a_bad_line_of_the_csv_is_named(tmp_path, line, match):
    (tmp_path / "anatomy_test.csv").write_text(f"Which?,a,b,c,d,B\n{line}\n")
    with pytest.raises(InputError, match=match):
        MedicalMMLU(str(tmp_path), allow_partial=True).read()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"choices": ["a", "b", "c"]}, r":2: has 3 options"),
        ({"choices": "a, b"}, r":2: choices is 'a, b': give the list of the four options"),
        ({"answer": 4}, r":2: answer is 4: give the right option's number, 0 to 3"),
        ({"subject": None}, r":2: subject is missing or empty"),
    ],
)
def test_a_bad_row_of_the_table_is_named(lines, changes, match):
    few = [row("anatomy", 0), {**row("anatomy", 1), **changes}]
    with pytest.raises(InputError, match=r"t\.jsonl" + match):
        MedicalMMLU(lines(few, "t.jsonl"), allow_partial=True).read()


@pytest.mark.parametrize("subject", list(SUBJECTS))
def test_lm_eval_is_the_harness_prompt_byte_for_byte(lines, subject):
    # lm_eval 0.4.13: tasks/mmlu/default/_default_template_yaml and mmlu_<subject>.yaml
    few = [row(subject, 0, question="\n Which {subject} is it? ", choices=[" a", "b ", "{question}", "d"])]
    source = MedicalMMLU(lines(few, "t.jsonl"), allow_partial=True)
    record = source.read().test[0]
    prompt = source.prompt("lm_eval")
    named = {
        "anatomy": "anatomy",
        "clinical_knowledge": "clinical knowledge",
        "college_biology": "college biology",
        "college_medicine": "college medicine",
        "medical_genetics": "medical genetics",
        "professional_medicine": "professional medicine",
    }[subject]
    text = prompt.body(record.question, record.contexts, record.options, record.labels, record.subject)
    assert text == (
        f"The following are multiple choice questions (with answers) about {named}.\n\n"
        "Which {subject} is it?\nA.  a\nB. b \nC. {question}\nD. d\nAnswer:"
    )
    assert prompt.frame(None).delimiter + prompt.completion("B", "Because.", LETTERS) == " B"


@pytest.mark.parametrize("name", ["medical", "chat", "lm_eval"])
def test_the_answer_reaches_no_prompt(lines, name):
    few = [row("anatomy", number) for number in range(8)]
    source = MedicalMMLU(lines(few, "a.jsonl"), allow_partial=True)
    changed = [{**one, "answer": (one["answer"] + 1) % 4} for one in few]
    other = MedicalMMLU(lines(changed, "b.jsonl"), allow_partial=True).read().test
    for mine, theirs in zip(source.read().test, other, strict=True):
        assert mine.answer != theirs.answer
        found = [encode(r, source.prompt(name), family("qwen2"), 500).prompt for r in (mine, theirs)]
        assert found[0] == found[1]


def test_fingerprints_tell_settings_and_the_content_of_every_file(tmp_path):
    path = write_csv(tmp_path / "test", WHOLE)
    first = MedicalMMLU(path).fingerprint()
    assert json.loads(json.dumps(first)) == first
    assert len(first["files"]) == 6
    assert MedicalMMLU(path, train="hub").fingerprint() != first
    write_csv(tmp_path / "test", [*WHOLE[:-1], row("professional_medicine", 999)])
    assert MedicalMMLU(path).fingerprint() != first
