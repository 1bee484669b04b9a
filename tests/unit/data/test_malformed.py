"""Malformed input of every kind, for every reader: a one-line error with file and line, or accepted on purpose."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest
from reader_cases import CASES, TEXT, Case, check_message

from medqlora.data import JSONLines, Mirage
from medqlora.data.json_text import MalformedError, parse_json
from medqlora.data.readers import fingerprint, read_rows
from medqlora.data.sources.pubmedqa import reject_test_pmids
from medqlora.errors import InputError
from medqlora.records import Record


def refused(case: Case, path: Path, data: bytes | None) -> str:
    """The one-line error of the reader for these bytes."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError) as found:
        case.read(path)
    check_message(str(found.value))
    return str(found.value)


@pytest.fixture(params=sorted(TEXT))
def case(request: pytest.FixtureRequest) -> Case:
    """Each reader of text files."""
    return CASES[request.param]


@pytest.fixture(params=sorted(name for name in TEXT if not TEXT[name].file.endswith((".csv", ".tsv"))))
def json_case(request: pytest.FixtureRequest) -> Case:
    """Each reader of JSON files."""
    return CASES[request.param]


def spoiled_value(case: Case, value: bytes) -> tuple[bytes, int]:
    """The file with another value for a key of a question, and the line of the value."""
    keys = b"question|QUESTION|sent1|body"
    found = list(re.finditer(rb'"(?:' + keys + rb')": ("[^"]*")', case.good))[-1]
    data = case.good[: found.start(1)] + value + case.good[found.end(1) :]
    return data, case.good[: found.start(1)].count(b"\n") + 1


# --- accepted on purpose ----------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["bom", "crlf", "bom and crlf"])
def test_a_bom_and_windows_line_ends_change_nothing(tmp_path: Path, case: Case, change: str) -> None:
    path = tmp_path / case.file
    path.write_bytes(case.good)
    expected = case.read(path)
    data = case.good.replace(b"\n", b"\r\n") if "crlf" in change else case.good
    path.write_bytes(b"\xef\xbb\xbf" + data if "bom" in change else data)
    assert case.read(path) == expected


def test_additional_fields_change_nothing(tmp_path: Path, json_case: Case) -> None:
    path = tmp_path / json_case.file
    path.write_bytes(json_case.good)
    expected = json_case.read(path)
    more = b'{"another": [1, {"x": null}], "\\u202eodd \\n name": 2.5, "'
    data = re.sub(rb'\{\s*"(?=id|question|pubid|QUESTION)', lambda _: more, json_case.good)
    assert data != json_case.good
    path.write_bytes(data)
    assert json_case.read(path) == expected


def test_direction_marks_and_control_characters_of_texts_are_kept(tmp_path: Path, json_case: Case) -> None:
    """They are ordinary text; the page and the terminal escape them."""
    path = tmp_path / json_case.file
    data, _ = spoiled_value(json_case, b'"a \\u202e\\u0000\\u001b[2J b\\u2028 c?"')
    path.write_bytes(data)
    assert "a \u202e\x00\x1b[2J b\u2028 c?" in [record.question for record in json_case.read(path)]


# --- refused ----------------------------------------------------------------------------------------


def test_invalid_utf8_is_an_error_with_its_line(tmp_path: Path, case: Case) -> None:
    at = case.good.rindex(b"?")
    line = case.good[:at].count(b"\n") + 1
    data = (
        case.good[:at] + b"\xc3\xa9 \xe9" + case.good[at:]
    )  # with a valid UTF-8 letter it is not cp1252 either
    for before in (b"", b"\xef\xbb\xbf"):  # a BOM changes neither the byte nor its line
        said = refused(case, tmp_path / case.file, before + data)
        assert f"{case.file}:{line}: the byte 0xe9 is not UTF-8: save the file as UTF-8" in said


def test_a_truncated_file_is_an_error_with_its_line(tmp_path: Path, json_case: Case) -> None:
    data = json_case.good.rstrip()[:-9]
    assert re.search(rf"{json_case.file}:\d+: not JSON", refused(json_case, tmp_path / json_case.file, data))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b'"\\ud800 a"', r"\ud800 is half of a surrogate pair: write the whole character"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' appears twice: remove one"),
        (b"[" * 5000 + b"]" * 5000, "it is nested too deep (100 levels at most): flatten it"),
        (b"9" * 5000, "a number there is too long: write it as a text"),
        (b'"a \x01"', "not JSON (Invalid control character at"),
    ],
)
def test_nonstandard_json_is_an_error_with_its_line(
    tmp_path: Path, json_case: Case, value: bytes, why: str
) -> None:
    data, line = spoiled_value(json_case, value)
    assert f"{json_case.file}:{line}: {why}" in refused(json_case, tmp_path / json_case.file, data)


@pytest.mark.parametrize(
    "value",
    [b"null", b"NaN", b'""', b'" \\n "', b"3", b"true", b'["a"]', b'{"a": "b"}', b"[" * 90 + b"]" * 90],
)
def test_a_question_of_another_type_is_an_error_with_its_location(
    tmp_path: Path, json_case: Case, value: bytes
) -> None:
    data, line = spoiled_value(json_case, value)
    said = refused(json_case, tmp_path / json_case.file, data)
    where = rf"{re.escape(json_case.file)}(:{line}:|: (item|question) \d+:|: (key|bioasq) \w+:)"
    assert re.search(where, said)
    assert re.search(r"(question|QUESTION|sent1|body) is ", said)


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity"])
def test_nan_and_infinity_count_as_null(tmp_path: Path, json_case: Case, value: bytes) -> None:
    """Python and pandas write them for missing values."""
    data, _ = spoiled_value(json_case, value)
    null, _ = spoiled_value(json_case, b"null")
    path = tmp_path / json_case.file
    assert refused(json_case, path, data) == refused(json_case, path, null)


def test_a_missing_field_is_an_error_with_its_location(tmp_path: Path, json_case: Case) -> None:
    data = re.sub(rb'"(question|QUESTION|sent1|body)"', b'"asked"', json_case.good)
    said = refused(json_case, tmp_path / json_case.file, data)
    assert json_case.file in said
    assert re.search(r"(question|QUESTION|sent1|body)\b", said)


@pytest.mark.parametrize("name", CASES)
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    assert "anatomy" in refused(case, tmp_path / case.file, b"") or case.file in refused(
        case, tmp_path / case.file, b""
    )


@pytest.mark.parametrize("name", sorted(set(CASES) - {"mmlu authors"}))
def test_a_folder_instead_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    (tmp_path / case.file).mkdir()
    assert re.search(r"--data\.\w+.*: the folder .* holds no", refused(case, tmp_path / case.file, None))


def test_a_folder_among_bioasqs_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "12B1_golden.json").mkdir()
    case = CASES["bioasq"]._replace(file=tmp_path.name)
    with pytest.raises(InputError, match=r"12B1_golden\.json can't be read \(Is a directory\)"):
        case.read(tmp_path)


def test_gzip_without_its_extension_is_recognised(tmp_path: Path, case: Case) -> None:
    said = refused(case, tmp_path / case.file, gzip.compress(case.good))
    assert f"{case.file}: this is gzip: let its name end in .gz, or unpack it" in said


def test_gzip_in_gzip_is_an_error(tmp_path: Path) -> None:
    case = CASES["own.jsonl.gz"]
    assert "gzip in gzip" in refused(case, tmp_path / case.file, gzip.compress(case.good))


def test_an_mmlu_question_needs_every_field(tmp_path: Path) -> None:
    rows = [
        {"question": "Which?", "subject": "anatomy", "A": "a"},
        {"question": "Q?", "subject": "anatomy", "A": "a", "answer": 3},
    ]
    for row in rows:
        said = refused(CASES["mmlu hub"], tmp_path / "mmlu.jsonl", json.dumps(row).encode())
        assert "mmlu.jsonl:1: answer is " in said
    row = {**rows[0], "answer": "A", "A": "", "B": None}
    assert "are all empty" in refused(CASES["mmlu hub"], tmp_path / "mmlu.jsonl", json.dumps(row).encode())


@pytest.mark.parametrize("cop", ["--5", "5-", "9" * 5000, "1e3", "²"])
def test_a_correct_option_that_is_not_a_number_is_refused(tmp_path: Path, cop: str) -> None:
    case = CASES["medmcqa"]
    data = case.good.replace(b'"cop": 1', b'"cop": ' + json.dumps(cop).encode())
    assert "dev.json:2: cop is " in refused(case, tmp_path / case.file, data)


@pytest.mark.parametrize(
    "id_",
    ["a\nb", "a\x1b[2Jb", "a\u202eb", "x" * 501, "a\u2028b", "\x00"],
    ids=["lf", "esc", "rlo", "long", "ls", "nul"],
)
def test_an_id_that_would_break_a_line_or_a_table_is_refused(tmp_path: Path, id_: str) -> None:
    row = {"id": id_, "question": "Q?", "answer": "yes"}
    said = refused(CASES["own.jsonl"], tmp_path / "own.jsonl", json.dumps(row).encode())
    assert "own.jsonl:1: id is " in said
    keyed = {id_: {"question": "Q?", "options": {"A": "yes", "B": "no"}, "answer": "A"}}
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps({"bioasq": keyed}))
    with pytest.raises(InputError, match="key is ") as found:
        Mirage("bioasq", str(path), allow_partial=True).read()
    check_message(str(found.value))


@pytest.mark.parametrize("letter", ["", " ", "A\n", "\u202eA", "A" * 501])
def test_an_option_letter_has_only_visible_characters(tmp_path: Path, letter: str) -> None:
    row = {"question": "Q?", "options": {letter: "x", "B": "y"}, "answer": "B"}
    said = refused(CASES["choice"], tmp_path / "choice.jsonl", json.dumps(row).encode())
    assert "choice.jsonl:1: options: letter is " in said


def test_odd_and_many_columns_are_shortened_in_messages(tmp_path: Path) -> None:
    row = {f"column {number}\n\x1b[2J\u202e": 1 for number in range(3000)}
    said = refused(CASES["own.jsonl"], tmp_path / "own.jsonl", json.dumps(row).encode())
    assert "has the column 'question'" in said


# --- large ------------------------------------------------------------------------------------------

MEGABYTES = 50


def test_a_line_of_50_mb_is_read_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    good = '{"question": "Q?", "answer": "yes"}\n'
    long = json.dumps({"question": "Why?", "answer": "no", "contexts": ["a " * (MEGABYTES << 19)]})
    path.write_text(good + long + "\n")
    assert path.stat().st_size > MEGABYTES << 20
    records = CASES["own.jsonl"].read(path)
    assert [len(record.contexts) for record in records] == [0, 1]
    said = refused(CASES["own.jsonl"], path, (good + long[:-3]).encode())
    assert "own.jsonl:2: not JSON (Unterminated string" in said
    said = refused(
        CASES["own.jsonl"],
        path,
        (good + '{"question": 3, "x": "' + "\\n" * (MEGABYTES << 19) + '"}').encode(),
    )
    assert "own.jsonl:2: question is 3" in said


def test_a_repeated_key_among_many_is_found_in_linear_time(tmp_path: Path) -> None:
    """A quadratic search among 200,000 keys would take hours."""
    keys = ", ".join(f'"k{number}": 1' for number in range(200_000))
    said = refused(CASES["own.jsonl"], tmp_path / "own.jsonl", f'{{{keys}, "k199999": 2}}'.encode())
    assert "own.jsonl:1: the key 'k199999' appears twice" in said
    columns = ",".join(f"c{number}" for number in range(200_000))
    said = refused(CASES["own.csv"], tmp_path / "own.csv", f"{columns},c199999\n".encode())
    assert "own.csv:1: the column 'c199999' appears twice" in said


@pytest.mark.parametrize(
    "id_", ["0" * 200_000 + "x", "/" * 200_000, "pmid:" * 50_000, "/0" * 100_000, "12/" * 100_000]
)
def test_the_search_for_a_pmid_is_linear_in_a_long_address(id_: str) -> None:
    reject_test_pmids([Record(id=id_, question="Q?")], "train")


# --- the file system --------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "own.jsonl")
    assert "is no regular file" in refused(CASES["own.jsonl"], tmp_path / "own.jsonl", None)
    assert fingerprint(str(tmp_path / "own.jsonl")) == {}


@pytest.mark.parametrize(
    "path", ["x" * 5000 + ".jsonl", "~no-such-user/a.jsonl", "a\0b.jsonl", "a/" * 3000 + "b.jsonl"]
)
def test_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=r"^--x: "):
        read_rows(path, "--x")
    assert JSONLines(path).fingerprint()["files"] == {path: {}}


# --- reported lines ---------------------------------------------------------------------------------


def test_a_hundred_levels_are_read_and_no_more() -> None:
    """The limit is independent of the version of Python, whose own limits differ."""
    assert parse_json("[" * 100 + "]" * 100) == json.loads("[" * 100 + "]" * 100)
    assert parse_json('{"a": "' + "[" * 200 + '"}') == {"a": "[" * 200}
    assert len(parse_json("[" + "[[]], " * 200 + "[]]")) == 201
    for text in ("[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101):
        with pytest.raises(MalformedError, match="nested too deep"):
            parse_json(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[\n"\\\\ud800 \\ud83d\\ude00",\n"\\udc00"]', 3),
        ('[{"a": {"b": 1}, "c": "b"},\n{"b": 1, "a": [\n"b", {"b": 2}],\n"b" : 3}]', 4),
        ('["\\"", "\\u0061", {"a": 1,\n"\\u0061": 2}]', 2),
        ("[\n[]," + "\n".join("[" * 5000) + "\n" * 50 + "]" * 5000 + "]", 101),
        ("[1,\n2.5, -" + "8" * 5000 + "]", 2),
    ],
)
def test_the_reported_line_is_that_of_the_fault(text: str, line: int) -> None:
    with pytest.raises(MalformedError) as found:
        parse_json(text)
    assert found.value.line == line
