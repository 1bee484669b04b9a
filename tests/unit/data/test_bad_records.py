"""`on_bad_record: skip` leaves out what can't be used, counts it and lists it; nothing else changes."""

import json
from pathlib import Path
from typing import Any

import pytest
from reader_cases import CASES

from medqlora.data import JSONLines, PubMedQA, official_folds, official_test_ids, read_questions
from medqlora.data.bad_records import write_bad_records
from medqlora.errors import InputError
from medqlora.records import BadRecord

ROWS: list[dict[str, Any]] = [
    {"id": f"r{n}", "question": f"Q {n}?", "answer": ("yes", "no")[n % 2]} for n in range(30)
]


def lines(*rows: object) -> bytes:
    return b"".join(
        row + b"\n" if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows
    )


def put(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


#: one of each kind that is bad by itself, with what is said of it
BAD: list[tuple[object, str]] = [
    (b'{"question": "a", ', "not JSON"),
    (b'{"question": "5 \xc2\xb5g \xff"}', "the byte 0xff is not UTF-8: save the file as UTF-8"),
    (b'{"question": NaN}', "question is missing or empty: every row needs one"),
    (b"[" * 50, "not JSON (Expecting value"),
    (b"[" * 5000 + b"]" * 5000, "it is nested too deep (100 levels at most): flatten it"),
    (b'{"id": 1, "id": 2}', "the key 'id' appears twice: remove one"),
    (b"[1]", "holds a list: each line has to be an object"),
    ({"id": "b6", "answer": "yes"}, "question is missing or empty: every row needs one"),
    (
        {"id": "b7", "question": "Q?", "answer": "perhaps"},
        "answer is 'perhaps', which is none of yes, no, maybe",
    ),
    ({"id": "b8", "question": "Q?"}, "answer is missing or empty: the train set needs answers"),
    ({"id": "b9", "question": "Q?", "answer": 3}, "answer is 3, which is none of yes, no, maybe"),
    ({"id": "b10", "question": ["Q?"], "answer": "yes"}, "question is ['Q?']: give a text"),
]


def test_bad_lines_of_each_kind_are_left_out_and_listed_with_line_and_reason(tmp_path: Path) -> None:
    path = put(tmp_path / "own.jsonl", lines(*ROWS[:20], *(row for row, _ in BAD), *ROWS[20:]))
    source = JSONLines(path, on_bad_record="skip")
    splits = source.read()
    assert sorted(record.id for part in splits for record in part) == sorted(row["id"] for row in ROWS)
    assert [bad.line for bad in sorted(source.skipped, key=lambda bad: bad.line)] == list(range(21, 33))
    by_line = {bad.line: bad for bad in source.skipped}
    for number, (_, why) in enumerate(BAD, 21):
        assert by_line[number].why.startswith(why)
        assert by_line[number].file == path
    assert (
        f"12 records of {path} were left out (lines or rows 21, 22, 23, …): a run's bad_records.jsonl says why"
        in (source.remarks)
    )
    # the default is an error at the first of them; bytes are looked at before lines
    with pytest.raises(InputError, match=r"own\.jsonl:22: the byte 0xff"):
        JSONLines(path).read()


def test_what_is_left_is_what_a_file_without_the_bad_ones_gives(tmp_path: Path) -> None:
    with_bad = put(tmp_path / "own.jsonl", lines(*ROWS, *(row for row, _ in BAD)))
    (tmp_path / "clean").mkdir()
    clean = put(tmp_path / "clean" / "own.jsonl", lines(*ROWS))
    found = JSONLines(with_bad, on_bad_record="skip").read()
    wanted = JSONLines(clean).read()
    assert [[record.id for record in part] for part in found] == [
        [record.id for record in part] for part in wanted
    ]
    source = JSONLines(clean, on_bad_record="skip")
    source.read()
    assert source.skipped == []
    assert not any("left out" in line for line in source.remarks)


def test_reading_twice_lists_each_once(tmp_path: Path) -> None:
    source = JSONLines(put(tmp_path / "own.jsonl", lines(*ROWS, [1])), on_bad_record="skip")
    source.read()
    source.read()
    assert len(source.skipped) == 1
    path, number = tmp_path / "own.jsonl", len(ROWS) + 1
    line = f"1 record of {path} was left out (line or row {number}): a run's bad_records.jsonl says why"
    assert source.remarks.count(line) == 1


def test_rows_of_a_table_and_items_of_a_list_are_left_out_too(tmp_path: Path) -> None:
    table = b"id,question,answer\n1,Q 1?,yes\n2,Q 2?,yes,too many\n3,Q \xff?,no\n4,5 \xc2\xb5g?,no\n"
    source = JSONLines(put(tmp_path / "a.csv", table), dev_fraction=0, on_bad_record="skip")
    assert [record.id for record in source.read().train] == ["1", "4"]
    assert [(bad.line, bad.why.partition(":")[0]) for bad in source.skipped] == [
        (3, "has 4 cells, and the header 3"),
        (4, "the byte 0xff is not UTF-8"),
    ]
    items = json.dumps([ROWS[0], 3, ROWS[1], {"question": 3}]).encode()
    source = JSONLines(put(tmp_path / "a.json", items), dev_fraction=0, on_bad_record="skip")
    assert [record.id for record in source.read().train] == ["r0", "r1"]
    assert [(bad.line, bad.why) for bad in source.skipped] == [
        (2, "is a number: each has to be an object"),
        (4, "question is 3: give a text"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("a.json", b'[{"question": "a", "answer": "yes"}, {"question"', r"a\.json:1: not JSON"),
        ("a.json", b'[{"question": "\xc2\xb5 \xff", "answer": "yes"}]', r"a\.json:1: the byte 0xff"),
        ("a.csv", b'question,answer\na,yes\n"b,no\nc,yes\n', r"a\.csv:3: not CSV"),
        ("a.csv", b"quest\xff,answer\n\xc2\xb5,yes\n", r"a\.csv:1: the byte 0xff"),
        ("a.jsonl.gz", b"\x1f\x8b no gzip", "not a whole gzip file"),
        ("a.jsonl", b'{"text": "a"}\n', "has the column 'question'"),
    ],
)
def test_what_leaves_the_rest_of_a_file_in_doubt_is_an_error_all_the_same(
    tmp_path: Path, name: str, data: bytes, match: str
) -> None:
    with pytest.raises(InputError, match=match):
        JSONLines(put(tmp_path / name, data), on_bad_record="skip").read()


@pytest.mark.parametrize("rows", [[b"[1]", b"{"], [{"question": "", "answer": "yes"}, [1]]])
def test_a_file_without_one_good_record_is_an_error(tmp_path: Path, rows: list[object]) -> None:
    path = put(tmp_path / "a.jsonl", lines(*rows))
    match = (
        r"--data\.source\.train: none of the 2 records of .*a\.jsonl can be used; the first, .*a\.jsonl:\d: "
    )
    with pytest.raises(InputError, match=match):
        JSONLines(path, on_bad_record="skip").read()
    with pytest.raises(InputError, match=match.replace(r"data\.source\.train", "questions")):
        read_questions(path, "--questions", ("yes", "no"), [])


def test_a_leak_is_no_bad_record_but_an_error(tmp_path: Path) -> None:
    leak = {**ROWS[0], "id": official_test_ids()[0]}
    with pytest.raises(InputError, match="official test set"):
        JSONLines(put(tmp_path / "a.jsonl", lines(*ROWS[1:], leak)), on_bad_record="skip").read()
    train = put(tmp_path / "train.jsonl", lines(*ROWS))
    test = put(tmp_path / "test.jsonl", lines({**ROWS[3], "id": "new"}))
    with pytest.raises(InputError, match="holds the same question"):
        JSONLines(train, test=test, on_bad_record="skip").read()


def test_questions_to_be_answered_can_be_left_out_too(tmp_path: Path) -> None:
    path = put(tmp_path / "asked.jsonl", lines({"question": "Q?"}, b"{", {"question": 3}, {"question": "R?"}))
    skipped: list[BadRecord] = []
    found = read_questions(path, "--questions", ("yes", "no"), skipped)
    assert [record.id for record in found] == ["asked:1", "asked:4"]
    assert [bad.line for bad in skipped] == [2, 3]


def test_pubmedqa_leaves_out_bad_records_and_says_that_the_set_is_not_whole(tmp_path: Path) -> None:
    rows = json.loads(CASES["pubmedqa github"].good)
    spoiled = official_folds()[0][1]
    rows[spoiled]["final_decision"] = "perhaps"
    path = put(tmp_path / "ori_pqal.json", json.dumps(rows).encode())
    source = PubMedQA(path, allow_partial=True, on_bad_record="skip")
    held = [record.id for part in source.read() for record in part]
    assert sorted([*held, spoiled]) == sorted(rows)
    (bad,) = source.skipped
    assert bad == (path, list(rows).index(spoiled) + 1, bad.why)
    assert bad.why.startswith("final_decision is 'perhaps'")
    assert source.remarks == (
        "ori_pqal.json: 6 rows, a JSON object of objects",
        f"1 record of {path} was left out (line or row {bad.line}): a run's bad_records.jsonl says why",
    )
    with pytest.raises(InputError, match=r"left out as bad: 1, the first .*final_decision is 'perhaps'"):
        PubMedQA(path, on_bad_record="skip").read()
    with pytest.raises(InputError, match=rf"key {spoiled}: final_decision is 'perhaps'"):
        PubMedQA(path, allow_partial=True).read()


def test_pubmedqas_extra_sets_are_read_by_the_same_rule(tmp_path: Path) -> None:
    path = put(tmp_path / "ori_pqal.json", CASES["pubmedqa github"].good)
    good = {
        "pubid": 1,
        "question": "Q?",
        "context": {"contexts": ["c"]},
        "final_decision": "yes",
        "long_answer": "a",
    }
    extra = put(tmp_path / "pqaa.jsonl", lines(good, {**good, "pubid": "x"}, b"{"))
    source = PubMedQA(path, artificial=extra, allow_partial=True, on_bad_record="skip")
    assert "1" in [record.id for record in source.read().train]
    assert sorted((bad.file, bad.line) for bad in source.skipped) == [(extra, 2), (extra, 3)]
    with pytest.raises(InputError, match=r"pqaa\.jsonl:3: not JSON"):
        PubMedQA(path, artificial=extra, allow_partial=True).read()


@pytest.mark.parametrize("source", [JSONLines, PubMedQA])
def test_the_choice_is_one_of_two_and_part_of_the_fingerprint(source: Any) -> None:
    with pytest.raises(InputError, match=r"--data\.source\.on_bad_record: 'ignore': give error or skip"):
        source("a.jsonl", on_bad_record="ignore")
    assert source("a.jsonl").fingerprint()["on_bad_record"] == "error"
    assert source("a.jsonl", on_bad_record="skip").fingerprint()["on_bad_record"] == "skip"


def test_the_list_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "bad_records.jsonl"
    write_bad_records(path, [BadRecord("a\u202e.jsonl", 3, "not JSON"), BadRecord("b.csv", 7, "has 4 cells")])
    assert [json.loads(line) for line in path.read_text("ascii").splitlines()] == [
        {"file": "a\u202e.jsonl", "line": 3, "why": "not JSON"},
        {"file": "b.csv", "line": 7, "why": "has 4 cells"},
    ]
    before = path.read_bytes()
    with pytest.raises(AttributeError):  # the list ends in something that is no record
        write_bad_records(path, [BadRecord("c", 1, "x"), None])  # type: ignore[list-item]
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["bad_records.jsonl"]
