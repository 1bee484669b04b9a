"""JSON tables are read in every shape and under every extension; other JSON is an error with its location."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from reader_forms import JSON, ROWS, lines

from medqlora.data import JSONLines
from medqlora.data.readers import read_rows, read_table
from medqlora.errors import InputError
from medqlora.records import BadRecord

TRAIN = "--data.source.train"


def put(folder: Path, name: str, value: Any) -> str:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return str(path)


def read(path: str, option: str = TRAIN) -> list[dict]:
    return [dict(row.value) for row in read_rows(path, option)]


def refused(path: str, option: str = TRAIN) -> str:
    with pytest.raises(InputError) as found:
        read(path, option)
    assert str(found.value).isprintable()
    return str(found.value)


@pytest.mark.parametrize("form", JSON)
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".txt", ".csv", ""])
def test_the_same_records_in_every_shape_under_every_extension(
    tmp_path: Path, form: str, suffix: str
) -> None:
    path = put(tmp_path, f"a{suffix}", JSON[form]())
    rows, remark = read_table(path, TRAIN)
    assert [row.value for row in rows] == ROWS
    assert len({row.key or row.number for row in rows}) == len(rows), "ids are made of these"
    assert remark.startswith(f"a{suffix}: 12 rows, ")
    assert ("though named" in remark) == (suffix in (".txt", ".csv", ""))


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_table_with_a_json_extension_is_a_table(tmp_path: Path, suffix: str) -> None:
    path = put(tmp_path, f"a{suffix}", "q;a\nx;yes\ny;no\n")
    assert read(path) == [{"q": "x", "a": "yes"}, {"q": "y", "a": "no"}]
    assert f"';'-separated, though named {suffix}" in read_table(path, TRAIN).remark


# --- one object: a record, or a container of records ------------------------------------------------

RECORDS: list[dict[str, Any]] = [
    {"question": "Q?", "answer": "yes"},
    {"question": "Q?", "contexts": ["a", "b"], "answer": "yes"},
    {"question": "Q?", "options": {"A": "x", "B": "y"}, "answer": "A"},
    {"question": "Q?", "options": [{"key": "A", "value": "x"}, {"key": "B", "value": "y"}], "answer": "A"},
    {"question": "Q?", "contexts": [{"title": "t", "text": "x"}], "answer": "yes"},
    {"messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "yes"}]},
    {"id": "7", "conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "yes"}]},
    {"Frage": "Q?", "Kontexte": ["a", "b"], "Antwort": "ja"},
    {"Frage": "Q?", "Optionen": {"A": "x", "B": "y"}, "Antwort": "A"},
]


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_single_record_is_one_row(tmp_path: Path, record: dict, indent: int | None, suffix: str) -> None:
    assert read(put(tmp_path, f"a{suffix}", json.dumps(record, indent=indent))) == [record]


@pytest.mark.parametrize("record", RECORDS)
def test_each_line_is_one_row_with_any_content(tmp_path: Path, record: dict) -> None:
    assert read(put(tmp_path, "a.jsonl", lines([record, record]))) == [record, record]
    assert read(put(tmp_path, "a.json", [record])) == [record]
    assert read(put(tmp_path, "a.json", {"version": 2, "data": [record]})) == [record]


QUESTIONS = [{"question": f"Q {n}?", "answer": "yes"} for n in range(3)]


@pytest.mark.parametrize(
    "whole",
    [
        {"p1": QUESTIONS[0], "p2": QUESTIONS[1], "p3": QUESTIONS[2]},
        {"7": QUESTIONS[0], "8": QUESTIONS[1], "12": QUESTIONS[2]},
        {"7": QUESTIONS[0], "8": {**QUESTIONS[1]}, "9": dict(reversed(QUESTIONS[2].items()))},
    ],
)
def test_an_object_of_objects_by_id_gives_its_keys(tmp_path: Path, whole: dict) -> None:
    rows = read_rows(put(tmp_path, "a.json", whole), "--x")
    assert [(row.key, row.value) for row in rows] == list(whole.items())


def test_pandas_index_is_the_key_unless_it_is_a_count(tmp_path: Path) -> None:
    import pandas as pd

    named = pd.DataFrame(QUESTIONS, index=["p1", "p2", "p3"])
    counted = pd.DataFrame(QUESTIONS)
    custom = pd.DataFrame(
        [{"Frage": "Q?", "Antwort": "ja"}, {"Frage": "R?", "Antwort": "nein"}], index=[4, 2]
    )
    for orient in ("columns", "split"):
        rows = read_rows(put(tmp_path, "a.json", named.to_json(orient=orient)), "--x")
        assert [(row.key, row.value) for row in rows] == list(zip(["p1", "p2", "p3"], QUESTIONS, strict=True))
        assert [
            row.key for row in read_rows(put(tmp_path, "a.json", counted.to_json(orient=orient)), "--x")
        ] == [None] * 3
        rows = read_rows(put(tmp_path, "a.json", custom.to_json(orient=orient)), "--x")
        assert [(row.key, row.value["Antwort"]) for row in rows] == [("4", "ja"), ("2", "nein")]


def test_missing_cells_of_pandas_are_null(tmp_path: Path) -> None:
    text = '[{"q": "x", "context": NaN, "n": Infinity, "m": [-Infinity, 1]}]'
    assert read(put(tmp_path, "a.json", text)) == [{"q": "x", "context": None, "n": None, "m": [None, 1]}]


# --- splits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("train", "dev", "test"), ("Training", "validation", "TEST"), ("train", "val", "testing")]
)
@pytest.mark.parametrize("form", ["lists", "columns", "objects"])
def test_each_option_reads_its_split(tmp_path: Path, names: tuple[str, ...], form: str) -> None:
    rows = {name: [{"question": f"{name} {n}?", "answer": "yes"} for n in range(3)] for name in names}
    whole: dict[str, Any] = dict(rows)
    if form == "columns":
        whole = {name: {key: [row[key] for row in held] for key in held[0]} for name, held in rows.items()}
    if form == "objects":
        whole = {name: {f"{name}{n}": row for n, row in enumerate(held)} for name, held in rows.items()}
    path = put(tmp_path, "a.json", {"version": "1", **whole})
    for option, name in zip(("train", "dev", "test"), names, strict=True):
        assert read(path, f"--data.source.{option}") == rows[name]
        assert f"its part {name}" in read_table(path, f"--data.source.{option}").remark
    assert read(path, "--data.questions") == rows[names[2]]
    assert re.search(
        r"--data\.source\.path: .*a\.json holds the parts .*: save the one",
        refused(path, "--data.source.path"),
    )
    splits = JSONLines(path, dev=path, test=path).read()
    assert [{record.question[:-3] for record in part} for part in splits] == [{name} for name in names]


def test_a_missing_split_is_never_replaced_by_another(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", {"train": QUESTIONS, "validation": QUESTIONS})
    assert "holds the parts train, validation, and none of them is a test set" in refused(
        path, "--data.source.test"
    )
    path = put(tmp_path, "a.json", {"version": 1, "test": QUESTIONS})
    assert "holds only the part test, a test set: give it as --data.source.test" in refused(path)
    assert read(path, "--data.source.test") == QUESTIONS
    # `datasets` names the rows of any single file "train"
    assert read(put(tmp_path, "a.json", {"train": QUESTIONS}), "--data.source.test") == QUESTIONS


def test_other_lists_do_not_hide_the_splits(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", {"labels": ["yes", "no"], "info": {"by": "us"}, "test": QUESTIONS})
    assert "a test set: give it as --data.source.test" in refused(path)
    assert read(path, "--data.source.test") == QUESTIONS
    inside = put(tmp_path, "b.json", {"data": {"train": QUESTIONS[:1], "test": QUESTIONS[1:]}})
    assert read(inside, "--data.source.test") == QUESTIONS[1:]


def test_consecutive_lists_are_one_table(tmp_path: Path) -> None:
    text = json.dumps(QUESTIONS[:1]) + "\n\ufeff" + json.dumps(QUESTIONS[1:])
    assert read(put(tmp_path, "a.json", text)) == QUESTIONS


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.json", '{"answers": [{"a": 1}], "cited": [{"b": 2}]}', r"holds the lists answers, cited: save the one"),
        ("a.json", '{"q": ["x", "y"], "a": ["yes"]}', r"columns of different lengths \(q 2, a 1\)"),
        ("a.json", '{"columns": ["q", "a"], "data": [["x", "yes"], ["y"]]}', r"item 2 has 1 cells, and there are 2"),
        ("a.json", '[{"q": 1},\n{"q": 2},\n]', r"a\.json:3: not JSON"),
        ("a.json", '[\n{"q": 1,},\n{"q": 2}\n]', r"a\.json:2: not JSON"),
        ("a.jsonl", '[\n{"q": 1},\n{"q": 2,}\n]', r"a\.jsonl:3: not JSON"),
        ("a.jsonl", '{\n"q": 1\n}\n{\n"q": 2,\n}\n', r"a\.jsonl:6: not JSON"),
        ("a.jsonl", '{\n"q": 1\n}\n{\n"q": 2\n', r"a\.jsonl:\d: not JSON"),
        ("a.jsonl", '{\n"q": 1\n}\n{"q": 2,\n"q": 3}\n', r"a\.jsonl:5: the key 'q' appears twice"),
        ("a.jsonl", '{\n"q": 1\n}\n3\n', r"a\.jsonl:4: holds a number: each value has to be an object"),
        ("a.jsonl", '{"q": 1} {"q": 2} 3\n{"q": 4}\n', r"a\.jsonl:1: not JSON \(Extra data"),
        ("a.jsonl", '{"q": 1,}\n{"q": 2}\n', r"a\.jsonl:1: not JSON"),
        ("a.jsonl", '{"id": "q0", "ques\n{"q": 2}\n', r"a\.jsonl:1: not JSON"),
        ("a.jsonl", "{\n" + '"a": [' * 5000, r"a\.jsonl(:\d+)?: (it is nested too deep|not JSON)"),
        ("a.jsonl", '{"q": 1}\n' + "[" * 5000 + "]" * 5000, r"a\.jsonl:2: it is nested too deep"),
        ("a.json", '{"q": ' + "9" * 5000 + "}", r"a\.json:1: a number there is too long"),
        ("a.json", "{}", r"holds an empty object"),
        ("a.json", '["x"]', r"item 1 is a string: each has to be an object"),
        ("a.json", "nothing at all", r"a\.json:1: not JSON"),
        ("a.jsonl", "nothing at all\n", r"a\.jsonl:1: not JSON"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_a_table_is_an_error_with_its_location(
    tmp_path: Path, name: str, text: str, match: str
) -> None:
    assert re.search(match, refused(put(tmp_path, name, text)))


def test_a_truncated_first_line_is_skipped_and_the_others_are_read(tmp_path: Path) -> None:
    for first in ("{", "[", '{"question": "Q', "nonsense"):
        skipped: list[BadRecord] = []
        rows = read_rows(put(tmp_path, "a.jsonl", f"{first}\n" + lines(QUESTIONS)), "--x", skipped)
        assert [row.value for row in rows] == QUESTIONS
        assert [bad.line for bad in skipped] == [1]


def test_rows_of_several_lines_have_the_line_of_their_start(tmp_path: Path) -> None:
    text = "\n".join(json.dumps(row, indent=1) for row in QUESTIONS)
    rows = read_rows(put(tmp_path, "a.jsonl", text), "--x")
    assert [row.number for row in rows] == [1, 5, 9]
    assert rows[1].where.endswith("a.jsonl:5")
