"""Files that are not data are recognised, and files that unpack to excessive sizes are refused."""

import bz2
import gzip
import io
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from reader_cases import CASES
from reader_forms import COMPRESSED, ROWS, lines, table

from medqlora.data import JSONLines
from medqlora.data.readers import compression, read_table
from medqlora.errors import InputError

NAMES = ["a.csv", "a.jsonl", "a.json", "a.tsv"]


def put(folder: Path, name: str, data: str | bytes) -> str:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def refused(path: str) -> str:
    with pytest.raises(InputError) as found:
        read_table(path, "--data.source.train")
    assert str(found.value).isprintable()
    assert Path(path).name in str(found.value)
    return str(found.value)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 53321\n"
PAGES = [
    "<!DOCTYPE html>\n<html><body>Sign in</body></html>",
    "\n  <html lang=en><head></head></html>",
    "\ufeff<!doctype HTML><p>Not found",
    "<!-- saved -->\n<html></html>",
    '<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "x"><html/>',
]


@pytest.mark.parametrize("name", [*NAMES, "a.parquet", "a.arrow", "a.xlsx", "a.jsonl.gz", "a.zip", "a.txt"])
def test_lfs_pointers_and_html_pages_are_recognised_under_every_name(tmp_path: Path, name: str) -> None:
    assert "this is a Git LFS pointer, not the data: run git lfs pull" in refused(put(tmp_path, name, LFS))
    for page in PAGES:
        assert "this is an HTML page, not the data" in refused(put(tmp_path, name, page))
    assert "this is XML: save the rows" in refused(put(tmp_path, name, "<?xml version='1.0'?><Workbook/>"))


def test_an_html_page_inside_a_compressed_file_is_recognised(tmp_path: Path) -> None:
    assert "this is an HTML page" in refused(put(tmp_path, "a.csv.gz", gzip.compress(PAGES[0].encode())))
    assert "this is a Git LFS pointer" in refused(put(tmp_path, "a.csv.bz2", bz2.compress(LFS.encode())))


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.csv"), io.BytesIO(b""))
    return stream.getvalue()


def _office(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
        archive.writestr(name, "<x/>")
    return stream.getvalue()


def _database() -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table a (b)")
        return connection.serialize() if hasattr(connection, "serialize") else b"SQLite format 3\x00"


BINARY: dict[str, tuple[Callable[[], bytes], str]] = {
    "gzip": (lambda: gzip.compress(b"x"), "gzip: let its name end in .gz, or unpack it"),
    "bzip2": (lambda: bz2.compress(b"x"), "bzip2: let its name end in .bz2, or unpack it"),
    "xz": (lambda: lzma.compress(b"x"), "xz: let its name end in .xz, or unpack it"),
    "zst": (lambda: COMPRESSED[".zst"](b"xy", ""), "Zstandard: let its name end in .zst, or unpack it"),
    "zip": (lambda: COMPRESSED[".zip"](b"q,a\n", "a.csv"), "a zip archive: let its name end in .zip, or unpack it"),
    "xlsx": (lambda: CASES["own.xlsx"].good, "an Excel workbook: let its name end in .xlsx"),
    "docx": (lambda: _office("word/document.xml"), "a Word document: save the rows"),
    "xlsb": (lambda: _office("xl/workbook.bin"), "a binary Excel workbook: save it as .xlsx"),
    "xls": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old or encrypted Excel workbook: save it"),
    "parquet": (lambda: CASES["own.parquet"].good, "Parquet: let its name end in .parquet"),
    "arrow": (lambda: CASES["own.arrow"].good, "Arrow: let its name end in .arrow"),
    "pdf": (lambda: b"%PDF-1.7\n", "a PDF document: save the rows"),
    "tar": (_tar, "a tar archive: unpack it"),
    "sqlite": (_database, "an SQLite database: save the rows"),
    "pickle": (lambda: pickle.dumps(ROWS, 4), "a Python pickle, which is never loaded: save the rows"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("name", NAMES)
def test_a_binary_file_with_a_text_extension_is_recognised(tmp_path: Path, kind: str, name: str) -> None:
    make, said = BINARY[kind]
    assert f"{name}: this is {said}" in refused(put(tmp_path, name, make()))


@pytest.mark.parametrize("kind", ["parquet", "arrow", "xlsx"])
def test_a_table_without_an_extension_is_read_by_its_bytes(tmp_path: Path, kind: str) -> None:
    """Files in the Hub's cache are named by their digests."""
    make, _ = BINARY[kind]
    assert len(read_table(put(tmp_path, "0123abcd", make()), "--x").rows) == 4


def test_an_old_workbook_is_recognised(tmp_path: Path) -> None:
    make, said = BINARY["xls"]
    assert f"a.xlsx: this is {said}" in refused(put(tmp_path, "a.xlsx", make()))
    assert f"a.xls: this is {said}" in refused(put(tmp_path, "a.xls", make()))
    assert "the extension .xls is not known" in refused(put(tmp_path, "a.xls", table(ROWS)))
    assert "a.xlsx: this is not an Excel workbook" in refused(put(tmp_path, "a.xlsx", table(ROWS)))


# --- compressed files -------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", COMPRESSED)
def test_a_truncated_or_invalid_compressed_file_is_an_error(tmp_path: Path, packed: str) -> None:
    data = COMPRESSED[packed](lines(ROWS).encode(), "a.jsonl")
    for name in (f"a.jsonl{packed}", f"a{packed}"):
        for broken in (data[: len(data) // 2], data[:-5], b"no such file", b""):
            if broken == b"" and packed in (".gz", ".bz2", ".zst"):
                continue  # no member, hence no rows
            said = refused(put(tmp_path, name, broken))
            assert "not a whole " in said
            assert "download or compress it again" in said


@pytest.mark.parametrize("packed", COMPRESSED)
def test_a_file_compressed_twice_is_an_error(tmp_path: Path, packed: str) -> None:
    data = gzip.compress(lines(ROWS).encode())
    said = refused(put(tmp_path, f"a.jsonl{packed}", COMPRESSED[packed](data, "a.jsonl")))
    assert said.endswith(f"this is gzip in {packed[1:] if packed != '.gz' else 'gzip'}: unpack it once")


def test_an_archive_of_several_files_names_them(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("set/train.csv", table(ROWS))
        archive.writestr("set/test.csv", table(ROWS))
        archive.writestr("set/.DS_Store", "x")
    said = refused(put(tmp_path, "a.zip", stream.getvalue()))
    assert said.endswith("holds 2 files (set/train.csv, set/test.csv): unpack it and name one file")
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w"):
        pass
    assert "holds no file" in refused(put(tmp_path, "a.zip", empty.getvalue()))


@pytest.mark.parametrize("packed", COMPRESSED)
def test_a_file_that_unpacks_to_more_than_data_can_have_is_refused(
    tmp_path: Path, packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, f"a.csv{packed}", COMPRESSED[packed](b"q,a\n" + b"x,yes\n" * 500_000, "a.csv"))
    monkeypatch.setattr(compression, "LARGEST", 1 << 20)
    assert "unpacks to more than 0.000976562 GiB: unpack it and split it" in refused(path)
    monkeypatch.undo()
    monkeypatch.setattr(compression, "LARGE", 1 << 20)
    monkeypatch.setattr(compression, "STEEPEST", 10)
    assert "unpacks to more than 10 times its size" in refused(path)


def test_a_workbook_that_unpacks_to_more_than_data_can_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "a.xlsx", CASES["own.xlsx"].good)
    monkeypatch.setattr(compression, "LARGEST", 1 << 10)
    assert "unpacks to more than" in refused(path)


def test_the_example_pointer_is_recognised(cases: Path) -> None:
    with pytest.raises(InputError, match=r"lfs\.jsonl: this is a Git LFS pointer"):
        JSONLines(str(cases / "data" / "lfs.jsonl")).read()
