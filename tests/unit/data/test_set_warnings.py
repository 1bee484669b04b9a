"""What a set says of its own quality is told with ids, and training goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from medqlora.data import JSONLines, read_questions
from medqlora.errors import InputError


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    answers = ("yes", "no", "maybe")
    return [
        {"id": f"r{n}", "question": f"Is drug {n} of use?", "answer": answers[n % 3]}
        for n in range(first, first + count)
    ]


def put(path: Path, held: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in held), "utf-8")
    return str(path)


def warned(source: JSONLines) -> list[str]:
    source.read()
    return [line for line in source.remarks if "Warning" in line]


def test_good_sets_are_not_warned_of(tmp_path: Path) -> None:
    train, dev = put(tmp_path / "train.jsonl", rows(40)), put(tmp_path / "dev.jsonl", rows(20, 100))
    assert warned(JSONLines(train, dev)) == []
    assert warned(JSONLines(train, dev_fraction=0)) == []


def test_one_question_with_two_answers_is_told_with_its_ids(tmp_path: Path) -> None:
    again = {**rows(1)[0], "id": "new", "question": "is drug 0  of USE?", "answer": "no"}
    [line] = warned(JSONLines(put(tmp_path / "t.jsonl", [*rows(40), again]), dev_fraction=0))
    assert line == (
        "Warning: train set: 1 question stands there more than once, with other answers: r0 (yes), new (no)"
    )


def test_one_question_with_one_answer_twice_is_told_too(tmp_path: Path) -> None:
    [line] = warned(
        JSONLines(put(tmp_path / "t.jsonl", [*rows(40), {**rows(1)[0], "id": "new"}]), dev_fraction=0)
    )
    assert line == "Warning: train set: 1 question stands there more than once: r0, new"


def test_options_in_another_order_are_no_other_answer(tmp_path: Path) -> None:
    held = [
        {"id": name, "question": "Which?", "options": ["x", "y"], "answer": answer}
        for name, answer in (("a", "A"), ("b", "y"), ("c", "x"))
    ]
    [line] = warned(JSONLines(put(tmp_path / "t.jsonl", held), dev_fraction=0))
    assert "a (A), b (B), c (A)" in line


def test_a_set_of_one_class_is_told(tmp_path: Path) -> None:
    held = [{**row, "answer": "yes"} for row in rows(30)]
    [line] = warned(JSONLines(put(tmp_path / "t.jsonl", held), dev_fraction=0))
    assert line == "Warning: every answer of the train set is yes: it can't teach how answers are told apart"
    free = put(tmp_path / "free.jsonl", held)
    assert warned(JSONLines(free, dev_fraction=0, labels=[])) == []


@pytest.mark.parametrize(("count", "told"), [(19, True), (20, False)])
def test_a_small_validation_set_is_told(tmp_path: Path, count: int, told: bool) -> None:
    train, dev = put(tmp_path / "train.jsonl", rows(40)), put(tmp_path / "dev.jsonl", rows(count, 100))
    lines = warned(JSONLines(train, dev))
    assert bool(lines) == told
    assert not told or "the validation set has 19 questions" in lines[0]
    assert not told or lines[0].endswith("--data.source.dev FILE or a larger --data.source.dev_fraction")


def test_duplicates_that_cross_train_and_validation_are_told_and_get_ids_of_their_own(tmp_path: Path) -> None:
    train, dev = put(tmp_path / "train.jsonl", rows(40)), put(tmp_path / "dev.jsonl", rows(30, 35))
    source = JSONLines(train, dev)
    splits = source.read()
    assert [record.id for record in splits.dev[:6]] == [
        "r35#dev",
        "r36#dev",
        "r37#dev",
        "r38#dev",
        "r39#dev",
        "r40",
    ]
    assert any("5 of 30 validation questions are in the training set too" in line for line in source.remarks)
    assert any("r35#dev (train: r35)" in line for line in source.remarks)
    assert any("5 ids of the dev set are in the training set too" in line for line in source.remarks)


def test_files_that_each_count_from_0_are_two_sets(tmp_path: Path) -> None:
    other = [{**row, "question": f"Other: {row['question']}"} for row in rows(30)]
    train, dev = put(tmp_path / "train.jsonl", rows(40)), put(tmp_path / "dev.jsonl", other)
    splits = JSONLines(train, dev).read()
    assert len({record.id for part in splits for record in part}) == 70


def test_files_of_one_name_without_ids_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for number, folder in enumerate(("a", "b", "c")):
        (tmp_path / folder).mkdir()
        held = [{key: row[key] for key in ("question", "answer")} for row in rows(20, 100 * number)]
        paths.append(put(tmp_path / folder / "data.jsonl", held))
    splits = JSONLines(*paths).read()
    assert [part[0].id for part in splits] == ["data-train:1", "data-dev:1", "data-test:1"]


def test_one_papers_id_on_several_questions(tmp_path: Path) -> None:
    held = [{**row, "id": f"PMC{n // 3}"} for n, row in enumerate(rows(60))]
    path = put(tmp_path / "t.jsonl", held)
    source = JSONLines(path)
    splits = source.read()
    ids = [record.id for part in splits for record in part]
    assert len(set(ids)) == 60
    assert {"PMC0", "PMC0#2", "PMC0#3"} <= set(ids)
    [line] = [line for line in source.remarks if "made unique" in line]
    assert line.startswith(
        "Warning: t.jsonl: 40 rows have ids that stand before them; made unique: PMC0#2, PMC0#3, "
    )
    assert "--data.source.fields.id COLUMN" in line
    # a paper's questions share its abstract: they stay on one side, whatever the order of the file
    papers = [{record.id.partition("#")[0] for record in part} for part in splits]
    assert not papers[0] & papers[1]
    again = JSONLines(put(tmp_path / "t.jsonl", held[::-1])).read()
    assert {record.question for record in again.dev} == {record.question for record in splits.dev}


def test_ids_that_look_like_ours_stay_unique(tmp_path: Path) -> None:
    names = ["a", "a#2", "a", "a#2", "a"]
    held = [{**row, "id": name} for row, name in zip(rows(5), names, strict=True)]
    ids = [record.id for record in JSONLines(put(tmp_path / "t.jsonl", held), dev_fraction=0).read().train]
    assert len(set(ids)) == 5
    assert ids[:2] == ["a", "a#2"]


def test_another_column_as_id_needs_no_change(tmp_path: Path) -> None:
    held = [{**row, "id": "PMC0", "number": n} for n, row in enumerate(rows(40))]
    assert warned(JSONLines(put(tmp_path / "t.jsonl", held), dev_fraction=0, fields={"id": "number"})) == []


def test_a_test_question_that_is_trained_on_stays_an_error(tmp_path: Path) -> None:
    train, test = put(tmp_path / "train.jsonl", rows(40)), put(tmp_path / "test.jsonl", rows(3, 39))
    with pytest.raises(InputError, match="the id r39 is already at"):
        JSONLines(train, test=test).read()
    other = [{**row, "id": f"t{n}"} for n, row in enumerate(rows(3, 39))]
    with pytest.raises(InputError, match="the same question and context as"):
        JSONLines(train, test=put(tmp_path / "test.jsonl", other)).read()


def test_predicts_questions_get_ids_of_their_own_too(tmp_path: Path) -> None:
    held = [{"id": "PMC0", "question": f"Q {n}?"} for n in range(2)]
    remarks: list[str] = []
    found = read_questions(
        put(tmp_path / "a.jsonl", held), "--data.questions", ("yes", "no"), remarks=remarks
    )
    assert [record.id for record in found] == ["PMC0", "PMC0#2"]
    assert "made unique: PMC0#2" in remarks[-1]
