"""A reader makes usable records of any file or raises a one-line error; nothing else happens."""

import gzip
import re
import zlib
from pathlib import Path

import pytest
from fuzzing import SLOW_INPUTS, fuzz
from hypothesis import strategies as st
from reader_cases import CASES, Case, check_message

from medqlora.data import JSONLines
from medqlora.errors import InputError
from medqlora.records import Record

HOSTILE = (
    *(
        b"\xff",
        b"\x00",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\r",
        b"\n",
        b"\t",
        b"\x1b[2J",
        b"\x1f\x8b",
        b"\xff\xfe",
        b"",
    ),
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"null",
        b"true",
        b"-0",
        b"--5",
        b"1.5",
        b"9" * 5000,
        b'"9"',
        b"{}",
        b"[]",
    ),
    *(
        b'"',
        b"'",
        b",",
        b":",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\\",
        b'""',
        b"\\u0000",
        b"\\ud800",
        b"\\ud83d\\ude00",
    ),
    *(b'{"a": 1, "a": 2}', b'"id": "r0", ', b'"answer": [], ', b"[" * 2000, b'{"a":' * 2000, b" " * 500),
    *(
        "\u202e".encode(),
        "\u2028".encode(),
        "\ufdd0".encode(),
        "é".encode("latin-1"),
        "١٢".encode(),
        b"a" * 3000,
    ),
    *(
        b"<|eot_id|>",
        b"</s>",
        b"0" * 3000 + b"x",
        b"pmid" * 500,
        b"/" * 3000,
        b"question",
        b"options",
        b"answer",
    ),
)
#: replacement JSON values: another type, missing, too long, too deep, invisible
VALUES = (
    *(
        b"null",
        b"true",
        b"0",
        b"-1",
        b"1.5",
        b"1e999",
        b"1e15",
        b'""',
        b'" "',
        b"[]",
        b"{}",
        b"[[]]",
        b'["x"]',
    ),
    *(
        b'"\\u0000"',
        b'"\\u202e"',
        b'"\\ud800"',
        b'"\\n"',
        b'"A"',
        b'"yes"',
        b"[null]",
        b'{"A": 1}',
        b'{"": ""}',
    ),
    *(b"7" * 400, b'"--5"', b'"' + b"7" * 5000 + b'"', b"[" * 900 + b"]" * 900, b'"a\\u2028b"', b'[1, "x"]'),
)
VALUE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+|null|\[[^\[\]]*\]|\{[^{}]*\}')
PLACES = st.floats(0, 1, exclude_max=True)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("insert", "replace", "flip", "delete", "repeat", "cut", "swap", *["retype"] * 5)),
        PLACES,
        st.integers(0, 60),
        st.one_of(st.sampled_from(HOSTILE), st.binary(max_size=6), st.text(max_size=4).map(str.encode)),
    ),
    min_size=1,
    max_size=4,
)
INPUTS = st.tuples(st.sampled_from(sorted(CASES)), CHANGES, st.booleans())


def spoiled(data: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    for how, place, length, piece in changes:
        at = int(place * len(data))
        end = min(len(data), at + length)
        if how == "insert":
            data = data[:at] + piece + data[at:]
        elif how == "replace":
            data = data[:at] + piece + data[end:]
        elif how == "flip" and data:
            data = data[:at] + bytes([data[at] ^ (1 << length % 8)]) + data[at + 1 :]
        elif how == "delete":
            data = data[:at] + data[end:]
        elif how == "repeat":
            data = data[:end] + data[at:end] + data[end:]
        elif how == "cut":
            data = data[:at]
        elif how == "retype":
            found = list(VALUE.finditer(data))
            if found:
                one = found[int(place * len(found))]
                data = data[: one.start()] + VALUES[length % len(VALUES)] + data[one.end() :]
        elif how == "swap":
            data = data[end:] + data[at:end] + data[:at]
    return data


def check_records(records: list[Record], case: Case) -> None:
    assert len({record.id for record in records}) == len(records)
    for record in records:
        assert record.question.strip()
        assert case.file in record.where
        texts = (record.id, record.question, *record.contexts, *record.options.values(), record.long_answer)
        "".join((*texts, *record.labels, *record.options, record.answer or "", *record.topics)).encode()
        assert record.where.isprintable()
        assert record.id.strip()
        assert not record.labels or record.answer in (*record.labels, None)


def check(folder: Path, name: str, changes: list[tuple[str, float, int, bytes]], inside: bool) -> bool:
    """Whether the corrupted file was read; `inside` corrupts the content of a gzip instead of the gzip."""
    case = CASES[name]
    if inside and case.file.endswith(".gz"):
        data = gzip.compress(spoiled(gzip.decompress(case.good), changes), 1, mtime=0)
    else:
        data = spoiled(case.good, changes)
    path = folder / case.file
    path.write_bytes(data)
    try:
        records = case.read(path)
    except InputError as error:
        message = str(error)
        assert case.file in message or str(folder) in message
        check_message(message)
        return False
    check_records(records, case)
    return True


def run_readers(folder: Path, inputs: int) -> None:
    read = [0, 0]
    folders = {name: folder / str(number) for number, name in enumerate(CASES)}
    for place in folders.values():
        place.mkdir()

    def every(value: tuple[str, list[tuple[str, float, int, bytes]], bool]) -> None:
        read[check(folders[value[0]], *value)] += 1

    fuzz(INPUTS, every, inputs)
    refused, taken = read
    assert refused > inputs // 10, "the files are hardly spoiled"
    assert taken > inputs // 100, "all files are spoiled alike"


@pytest.mark.parametrize("name", CASES)
def test_each_reader_reads_its_file_before_corruption(tmp_path: Path, name: str) -> None:
    path = tmp_path / CASES[name].file
    path.write_bytes(CASES[name].good)
    records = CASES[name].read(path)
    assert len(records) == CASES[name].count
    check_records(records, CASES[name])


def test_a_corrupted_file_gives_records_or_a_one_line_error(tmp_path: Path) -> None:
    run_readers(tmp_path, 300)


@pytest.mark.slow
def test_thousands_of_corrupted_files_give_records_or_a_one_line_error(tmp_path: Path) -> None:
    run_readers(tmp_path, SLOW_INPUTS["readers"])


LINES = st.lists(
    st.one_of(
        # with a letter that identifies the file as UTF-8
        st.integers(0, 30).map(lambda n: f'{{"question": "Q {n} µ?", "answer": "yes"}}'.encode()),
        st.binary(max_size=20).filter(lambda line: b"\n" not in line),
        st.sampled_from(
            [b"[1]", b"null", b'{"question": NaN}', b'{"question": "a", "answer": 3}', b'{"q": "\xff"}']
        ),
    ),
    min_size=1,
    max_size=12,
)


def run_skipping(folder: Path, inputs: int) -> None:
    path = folder / "own.jsonl"

    def every(lines: list[bytes]) -> None:
        path.write_bytes(b"\n".join(lines))
        source = JSONLines(str(path), dev_fraction=0, on_bad_record="skip")
        try:
            records = source.read().train
        except InputError as error:
            check_message(str(error))
            return
        filled = {
            number
            for number, line in enumerate(lines, 1)
            if line.decode("utf-8", "replace").lstrip("\ufeff").strip()
        }
        held = [int(record.where.rpartition(":")[2]) for record in records]
        left_out = [bad.line for bad in source.skipped]
        assert sorted([*held, *left_out]) == sorted(filled)
        assert all(lines[number - 1].startswith(b'{"question": "Q') for number in held)
        for bad in source.skipped:
            check_message(f"{bad.file}:{bad.line}: {bad.why}")

    fuzz(LINES, every, inputs)


def test_with_skip_each_line_is_a_record_or_listed(tmp_path: Path) -> None:
    run_skipping(tmp_path, 150)


@pytest.mark.slow
def test_with_skip_each_line_of_many_files_is_a_record_or_listed(tmp_path: Path) -> None:
    run_skipping(tmp_path, 1_000)


def test_the_corruption_of_gzip_is_effective(tmp_path: Path) -> None:
    """The corrupted gzip files are really invalid, so the fuzzing above tests something."""
    changed = spoiled(CASES["own.jsonl.gz"].good, [("replace", 0.5, 10, b"\xff" * 3)])
    with pytest.raises((OSError, zlib.error, EOFError)):
        gzip.decompress(changed)
    (tmp_path / "own.jsonl.gz").write_bytes(changed)
    with pytest.raises(InputError, match="not a whole gzip file"):
        CASES["own.jsonl.gz"].read(tmp_path / "own.jsonl.gz")
