"""Every file format is read, and an invalid file is a one-line error with its location."""

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medqlora.data.readers import data_files, fingerprint, read_rows
from medqlora.data.wording import shown
from medqlora.errors import InputError

ROWS = [{"q": "Größe, µg?", "a": "yes"}, {"q": 'a "quoted"\nline', "a": "no"}]


def read(path) -> list[dict]:
    return [dict(row.value) for row in read_rows(str(path), "--x")]


def fails(path, match):
    with pytest.raises(InputError, match=match) as found:
        read_rows(str(path), "--x")
    assert "\n" not in str(found.value)


def put(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def as_jsonl(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    path = tmp_path / name
    if path.suffix in (".parquet", ".arrow"):
        import pyarrow as pa
        import pyarrow.parquet

        table = pa.Table.from_pylist(ROWS)
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(table, path)
        else:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["q", "a"], delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        path.write_text(json.dumps(ROWS) if path.suffix == ".json" else as_jsonl(ROWS), "utf-8")
    assert read(path) == ROWS
    if path.suffix not in (".parquet", ".arrow"):
        assert read(put(tmp_path, f"{name}.gz", gzip.compress(path.read_bytes()))) == ROWS
        bom = put(tmp_path, f"bom-{name}", b"\xef\xbb\xbf" + path.read_bytes())
        assert read(bom) == ROWS


def test_arrow_streams_and_folders_of_datasets(tmp_path):
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "set"), num_shards=2)
    assert len(data_files(str(tmp_path / "set"), "--x")) == 2
    assert read(tmp_path / "set") == ROWS


def test_json_may_be_a_list_an_object_of_objects_or_lines(tmp_path):
    assert read(put(tmp_path, "list.json", json.dumps(ROWS))) == ROWS
    assert read(put(tmp_path, "lines.json", as_jsonl(ROWS))) == ROWS
    rows = read_rows(str(put(tmp_path, "keyed.json", json.dumps({"7": ROWS[0], "8": ROWS[1]}))), "--x")
    assert [(row.key, row.value) for row in rows] == [("7", ROWS[0]), ("8", ROWS[1])]
    assert rows[1].where.endswith("keyed.json: key 8")


def test_crlf_blank_lines_and_line_separators_in_strings_are_read(tmp_path):
    text = '{"q": "a\u2028b"}\r\n\r\n{"q": "c"}\r\n'
    rows = read_rows(str(put(tmp_path, "a.jsonl", text)), "--x")
    assert [row.value["q"] for row in rows] == ["a\u2028b", "c"]
    assert rows[1].where.endswith("a.jsonl:3")


def test_csv_rows_have_their_line_and_long_fields_are_read(tmp_path):
    limit = csv.field_size_limit()
    long = "x" * 300_000
    rows = read_rows(str(put(tmp_path, "a.csv", f'q,a\r\n"two\r\nlines",1\r\n\r\n{long},2\r\n')), "--x")
    assert [row.number for row in rows] == [2, 5]
    assert [row.value["q"] for row in rows] == ["two\r\nlines", long]
    assert csv.field_size_limit() == limit


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.fixed_dictionaries({"q": st.text(st.characters(codec="utf-8"), min_size=1), "a": st.just("x")}),
        min_size=1,
    )
)
def test_any_text_is_read_from_jsonl_unchanged(tmp_path, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert read(put(tmp_path, "any.jsonl", text)) == rows


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("a.json", "{", r"a\.json:1: not JSON"),
        ("a.json", '[\n{"q": 1},\n{"q" 2}]', r"a\.json:3: not JSON"),
        ("a.json", '{"1": {}, "1": {}}', r"a\.json:1: the key '1' appears twice"),
        ("a.json", "[1]", r"a\.json: item 1 is a number"),
        ("a.json", "3", r"a\.json: holds a JSON number"),
        ("a.json", '{"version": 1, "data": []}', r"--x: .*a\.json holds no rows"),
        ("a.json", "[" * 100_000, r"a\.json.*(nested|not JSON)"),
        ("a.json", "[]", r"--x: .*a\.json holds no rows"),
        ("a.json", "", r"a\.json:1: not JSON"),
        ("a.jsonl", '{"q": 1}\n{"q": }\n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", '{"q": 1}\n[1]\n', r"a\.jsonl:2: holds a list"),
        ("a.jsonl", '{"q": 1, "q": 2}', r"a\.jsonl:1: the key 'q' appears twice"),
        ("a.jsonl", "\n\n", r"holds no rows"),
        ("a.jsonl", b'{"q": "a"}\n{"q": "\xff"}', r"a\.jsonl:2: the byte 0xff is not UTF-8"),
        (
            "a.jsonl",
            '{"q": "a"}'.encode("utf-16")[:-1],
            r"a\.jsonl:1: can't be read as its first bytes say UTF-16",
        ),
        ("a.csv", "q,a\n1,2,3\n", r"a\.csv:2: has 3 cells, and the header 2"),
        ("a.csv", "q,q\n1,2\n", r"a\.csv:1: the column 'q' appears twice"),
        ("a.csv", 'q,a\n"1,2\n', r"a\.csv:2: not CSV"),
        ("a.csv", "q,a\n", r"holds no rows"),
        ("a.parquet", "no parquet", r"a\.parquet: not a parquet file"),
        ("a.arrow", "no arrow", r"a\.arrow: not a arrow file"),
        ("a.jsonl.gz", "no gzip", r"not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"q": 1}' * 99, mtime=0)[:-20], r"not a whole gzip file"),
        ("a.xlsx", "", r"a\.xlsx: this is not an Excel workbook"),
        ("a.doc", "", r"--x: .*the extension \.doc is not known"),
        ("a", "", r"--x: .*the extension \(none\) is not known"),
    ],
)
def test_an_invalid_file_is_an_error_with_its_location(tmp_path, name, data, match):
    fails(put(tmp_path, name, data), match)


def test_missing_files_and_ambiguous_folders_are_errors(tmp_path):
    fails(tmp_path / "absent.json", r"--x: there is no file .*absent\.json")
    fails(tmp_path, r"--x: the folder .* holds no data file")
    put(tmp_path, "a.jsonl", '{"q": 1}')
    assert read(tmp_path) == [{"q": 1}]
    put(tmp_path, "b.json", "[]")
    fails(tmp_path, r"--x: the folder .* holds 2 data files \(a\.jsonl, b\.json\): name one")


def test_fingerprints_depend_on_content(tmp_path):
    path = put(tmp_path, "a.jsonl", '{"q": 1}')
    first = fingerprint(str(path))
    assert first["a.jsonl"]["bytes"] == 8
    put(tmp_path, "a.jsonl", '{"q": 2}')
    assert fingerprint(str(path)) != first
    assert fingerprint(str(tmp_path / "absent.json")) == {}


def test_long_values_are_shortened_in_messages():
    assert len(shown("x" * 1000)) == 60
