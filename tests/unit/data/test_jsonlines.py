"""A set of one's own: any file, any names of the columns, three kinds of answers, and no leaks."""

import csv
import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medqlora.data import JSONLines, official_test_ids
from medqlora.errors import InputError

ROWS = [
    {
        "id": f"r{n}",
        "question": f"Question {n}, really?",
        "contexts": [f"Methods {n}.", "Results."],
        "answer": ("yes", "no", "maybe")[n % 3],
        "long_answer": f"Because, {n}.",
        "topics": ["Cardiology"],
    }
    for n in range(40)
]


@pytest.fixture
def put(tmp_path):
    def write(rows, name: str = "train.jsonl") -> str:
        path = tmp_path / name
        if isinstance(rows, str):
            path.write_text(rows, "utf-8")
        elif name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        elif name.endswith(".json"):
            path.write_text(json.dumps(rows), "utf-8")
        elif name.endswith(".csv"):
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else:
            import pyarrow as pa
            import pyarrow.parquet

            pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
        return str(path)

    return write


def plain(records):
    return [
        tuple(getattr(r, name) for name in type(r).__dataclass_fields__ if name != "where") for r in records
    ]


def others(n: int, first: int = 1000) -> list[dict]:
    return [{**ROWS[0], "id": f"t{k}", "question": f"Another {k}?"} for k in range(first, first + n)]


# --- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.json", "a.parquet", "a.csv"])
def test_every_kind_of_file_gives_the_same_records(put, name):
    rows = ROWS
    if name == "a.csv":  # lists stand in a CSV as JSON
        rows = [{**row, "contexts": json.dumps(row["contexts"]), "topics": "Cardiology"} for row in ROWS]
    expected = JSONLines(put(ROWS)).read()
    found = JSONLines(put(rows, name)).read()
    assert [plain(part) for part in found] == [plain(part) for part in expected]
    assert found.train[0].contexts == ("Methods 0.", "Results.")
    assert f"{name}:" in found.train[0].where


def test_columns_are_mapped(put):
    rows = [{"Q": "Why?", "abstract": "[12] patients.", "label": "no", "n": n} for n in (7, 8)]
    names = {"question": "Q", "contexts": "abstract", "answer": "label", "id": "n"}
    record = JSONLines(put(rows, "a.csv"), dev_fraction=0, fields=names).read().train[0]
    assert (record.id, record.question, record.contexts, record.answer) == (
        "7",
        "Why?",
        ("[12] patients.",),
        "no",
    )


def test_ids_default_to_the_files_stem_and_line(put):
    rows = [{key: value for key, value in row.items() if key != "id"} for row in ROWS[:2]]
    splits = JSONLines(put(rows), test=put(others(1)[:1], "test.jsonl"), dev_fraction=0).read()
    assert [record.id for record in splits.train] == ["train:1", "train:2"]


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"options": {"A": "Aspirin", "B": "Atenolol"}}, None),
        ({"options": ["Aspirin", "Atenolol"]}, None),
        ({"A": "Aspirin", "B": "Atenolol", "C": None}, None),
        ({"opa": "Aspirin", "opb": "Atenolol", "opc": ""}, {"options": "opa, opb, opc"}),
        ({"choices": '{"A": "Aspirin", "B": "Atenolol"}'}, {"options": "choices"}),
        ({"options": {"A": "Aspirin", "B": "Atenolol", "C": None}}, None),
    ],
)
@pytest.mark.parametrize("answer", ["B", "Atenolol"])
def test_multiple_choice_in_every_form(put, row, fields, answer):
    path = put([{"question": "Which?", "answer": answer, **row}])
    record = JSONLines(path, dev_fraction=0, fields=fields).read().train[0]
    assert record.options == {"A": "Aspirin", "B": "Atenolol"}
    assert record.labels == ("A", "B")
    assert record.answer == "B"


def test_free_answers_and_labels_of_ones_own(put):
    record = (
        JSONLines(put([{"question": "What?", "answer": "A drug."}]), dev_fraction=0, labels=[])
        .read()
        .train[0]
    )
    assert (record.labels, record.answer) == ((), "A drug.")
    rows = [{"question": "Stage?", "answer": "II"}]
    record = JSONLines(put(rows), dev_fraction=0, labels=["I", "II"]).read().train[0]
    assert (record.labels, record.answer) == (("I", "II"), "II")


def test_a_test_file_may_lack_answers(put):
    rows = [{"question": "Why?"}, {"question": "Why not?", "answer": None}]
    assert [record.answer for record in JSONLines(put(ROWS), test=put(rows, "t.jsonl")).read().test] == [
        None,
        None,
    ]


# --- the splits -------------------------------------------------------------------------------------


def test_the_dev_set_goes_by_ids_whatever_the_order(put):
    many = [{**ROWS[0], "id": str(n), "question": f"Q {n}"} for n in range(2000)]
    first = JSONLines(put(many)).read()
    random.Random(1).shuffle(many)
    again = JSONLines(put(many)).read()
    assert {record.id for record in first.dev} == {record.id for record in again.dev}
    assert 150 < len(first.dev) < 250
    assert len(first.train) + len(first.dev) == 2000
    assert first.test == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions=st.lists(st.integers(0, 9), min_size=3, max_size=30), fraction=st.floats(0.01, 0.6))
def test_train_and_dev_share_no_id_and_no_question(put, questions, fraction):
    rows = [{"question": f"Q {question}", "answer": "yes"} for question in questions]
    try:
        splits = JSONLines(put(rows), dev_fraction=fraction).read()
    except InputError as error:
        assert "leaves nothing to train on" in str(error)  # noqa: PT017 - a few rows may all be set aside
        return
    assert splits.dev
    assert not {r.id for r in splits.dev} & {r.id for r in splits.train}
    assert not {r.question for r in splits.dev} & {r.question for r in splits.train}
    assert len(splits.dev) + len(splits.train) == len(rows)


def test_a_dev_fraction_of_zero_and_a_dev_file(put):
    assert JSONLines(put(ROWS), dev_fraction=0).read().dev == []
    splits = JSONLines(put(ROWS), dev=put(others(3), "dev.jsonl")).read()
    assert (len(splits.train), len(splits.dev)) == (40, 3)


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"question": ""}, r"train\.jsonl:2: question is missing or empty"),
        ({"question": ["a"]}, r"train\.jsonl:2: question is \['a'\]: give a text"),
        (
            {"answer": "perhaps"},
            r"train\.jsonl:2: answer is 'perhaps'.*none of yes, no, maybe.*--data\.source\.labels",
        ),
        ({"answer": True}, r"train\.jsonl:2: answer is True"),
        ({"answer": None}, r"train\.jsonl:2: answer is missing or empty: the train set needs answers"),
        ({"contexts": [1]}, r"train\.jsonl:2: contexts is 1: give a list of texts"),
        ({"contexts": {"a": 1}}, r"train\.jsonl:2: contexts is \{'a': 1\}"),
        ({"id": 1.5}, r"train\.jsonl:2: id is 1\.5"),
        ({"options": {"A": "x"}}, r"train\.jsonl:2: options is \{'A': 'x'\}: give two options or more"),
        ({"options": {"A": "x", "B": ""}}, r"train\.jsonl:2: options B is missing"),
        ({"options": 3}, r"train\.jsonl:2: options is 3"),
        ({"options": ["x", "y"], "answer": "C"}, r"train\.jsonl:2: answer is 'C', which is none of A, B"),
        ({"options": ["x", "x"], "answer": "x"}, r"train\.jsonl:2: answer is 'x', which is none of A, B"),
        ({"long_answer": 5}, r"train\.jsonl:2: long_answer is 5"),
        ({"topics": 5}, r"train\.jsonl:2: topics is 5"),
    ],
)
def test_a_bad_row_is_named_with_line_value_and_fix(put, changes, match):
    with pytest.raises(InputError, match=match) as found:
        JSONLines(put([ROWS[0], {**ROWS[1], **changes}, *ROWS[2:]])).read()
    assert "\n" not in str(found.value)


def test_slips_in_the_options_are_named(put):
    path = put(ROWS)
    for arguments, match in (
        ({"fields": {"qestion": "q"}}, r"--data\.source\.fields: 'qestion' is none of our columns"),
        ({"dev_fraction": 1.0}, r"--data\.source\.dev_fraction: 1\.0"),
        ({"labels": ["yes"]}, r"--data\.source\.labels: \['yes'\]"),
        ({"labels": ["a", "a"]}, r"--data\.source\.labels"),
    ):
        with pytest.raises(InputError, match=match):
            JSONLines(path, **arguments)
    for arguments, match in (
        (
            {"fields": {"question": "Q"}},
            r"no row of .*train\.jsonl has the column 'Q'; there are answer, .*fields\.question",
        ),
        ({"fields": {"options": "a,b"}}, r"has the column 'a'"),
        ({"dev": "absent.jsonl"}, r"--data\.source\.dev: there is no file absent\.jsonl"),
        ({"test": "absent.jsonl"}, r"--data\.source\.test: there is no file"),
    ):
        with pytest.raises(InputError, match=match):
            JSONLines(path, **arguments).read()
    with pytest.raises(InputError, match=r"its options are A, B, and --data\.source\.labels has yes, no"):
        JSONLines(put([{**ROWS[0], "options": ["x", "y"], "answer": "A"}]), labels=["yes", "no"]).read()


@pytest.mark.parametrize("column", ["Nr", "No", "No.", "ID", "#", "Case ID", "lfd. Nr."])
def test_a_column_that_numbers_the_rows_is_their_id(put, column):
    rows = [
        {column: 40 + number, **{k: v for k, v in row.items() if k != "id"}}
        for number, row in enumerate(ROWS)
    ]
    assert ids_of(JSONLines(put(rows), dev_fraction=0.0)) == [str(row[column]) for row in rows]


@pytest.mark.parametrize("values", [["1", "1"], ["yes", "no"], [True, False], [0.2, 0.8], ["12", None]])
def test_a_column_of_such_a_name_that_tells_no_rows_apart_is_no_id(put, values):
    rows = [
        {"no": value, **{k: v for k, v in row.items() if k != "id"}}
        for value, row in zip(values, ROWS, strict=False)
    ]
    assert ids_of(JSONLines(put(rows), dev_fraction=0.0)) == ["train:1", "train:2"]
    named = [{"pmid": f"p{number}", **row, "no": number} for number, row in enumerate(rows)]
    assert ids_of(JSONLines(put(named), dev_fraction=0.0)) == ["p0", "p1"]  # a name of an id comes first


def test_numbers_of_rows_that_two_files_share_are_not_the_same_question(put):
    rows = [{"Nr": 1000 + n, **{k: v for k, v in row.items() if k != "id"}} for n, row in enumerate(ROWS)]
    test = [{**row, "Nr": rows[n]["Nr"]} for n, row in enumerate(others(2)) if row.pop("id")]
    found = JSONLines(put(rows), test=put(test, "test.jsonl"), dev_fraction=0.0).read()
    assert [record.id for record in found.test] == ["1000#test", "1001#test"]


def ids_of(source):
    return [record.id for record in source.read().train]


def test_a_file_too_small_to_set_a_part_aside_is_refused(put):
    with pytest.raises(InputError, match=r"--data\.source\.train: .* leaves nothing to train on"):
        JSONLines(put(ROWS[:1])).read()


# --- leaks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "dev"])
@pytest.mark.parametrize("column", ["id", "pmid", "pubid", "PMID"])
@pytest.mark.parametrize("form", [str, int, float, "PMID: {}".format])
def test_pubmedqas_test_questions_are_refused(put, name, column, form):
    pmid = official_test_ids()[3]
    leak = [*others(2), {**others(1, 5)[0], column: form(pmid)}]
    paths = {"train": put(ROWS), name: put(leak, f"{name}.jsonl")}
    with pytest.raises(
        InputError, match=rf"{name}\.jsonl:3: the {name} set holds the PMID {pmid}, .*official test"
    ):
        JSONLines(**paths).read()


def test_no_id_and_no_question_is_in_two_sets(put):
    train = put(ROWS)
    with pytest.raises(InputError, match=r"test\.jsonl:1: the id r3 is already at .*train\.jsonl:4"):
        JSONLines(train, test=put([{**others(1)[0], "id": "r3"}], "test.jsonl")).read()
    twin = {**ROWS[3], "id": "new", "question": "question 3,  REALLY?"}
    with pytest.raises(
        InputError, match=r"train\.jsonl:4: the (train|dev) set holds the same question .*test\.jsonl:1"
    ):
        JSONLines(train, test=put([twin], "test.jsonl")).read()
    # of the validation set it is told: training goes on
    source = JSONLines(train, dev=put([twin], "dev.jsonl"))
    assert [record.id for record in source.read().dev] == ["new"]
    assert any(
        "1 of 1 validation questions are in the training set too" in line and "new (train: r3)" in line
        for line in source.remarks
    )


def test_fingerprints_tell_settings_and_content(put):
    path = put(ROWS)
    first = JSONLines(path).fingerprint()
    assert json.loads(json.dumps(first)) == first
    assert JSONLines(path, dev_fraction=0.2).fingerprint() != first
    put(ROWS[:5])
    assert JSONLines(path).fingerprint() != first


def test_importing_the_sources_imports_nothing_heavy():
    import subprocess
    import sys

    heavy = ("torch", "transformers", "datasets", "numpy", "pyarrow", "tokenizers", "tqdm")
    code = f"import sys, medqlora.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_that_each_count_their_rows_from_zero_are_told_apart(tmp_path: Path) -> None:
    """A spreadsheet's row numbers are no identity; a paper's id on both sides stays an error."""

    def write(name: str, first: int, text: str) -> str:
        rows = [
            {"id": first + number, "question": f"{text} {number}?", "answer": "yes"} for number in range(30)
        ]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return str(tmp_path / name)

    source = JSONLines(write("a.jsonl", 0, "Is it safe"), test=write("b.jsonl", 0, "Is it cheap"))
    splits = source.read()
    assert len({record.id for records in splits for record in records}) == 60
    assert all(record.id.endswith("#test") for record in splits.test)
    assert any("count its rows" in line for line in source.remarks)
    papers = JSONLines(
        write("c.jsonl", 7_000_000, "Is it safe"), test=write("d.jsonl", 7_000_000, "Is it cheap")
    )
    with pytest.raises(InputError, match="the id 7000000 is already at"):
        papers.read()
