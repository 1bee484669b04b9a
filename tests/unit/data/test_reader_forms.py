"""The same records give the same rows in every format, and a remark describes the format."""

import bz2
import json
import re
from pathlib import Path

import pytest
from reader_forms import COMPRESSED, ENCODED, JSON, ROWS, lines, table, workbook

from medqlora.data import JSONLines, read_questions
from medqlora.data.readers import ReadOptions, read_rows, read_table
from medqlora.data.shapes import find
from medqlora.errors import InputError

SEPARATORS = {",": "','-separated", ";": "';'-separated", "\t": "tab-separated", "|": "'|'-separated"}
TRAIN = "--data.source.train"


def put(folder: Path, name: str, data: str | bytes) -> str:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def read(path: str, **options: str) -> tuple[list[dict], str]:
    rows, remark = read_table(path, TRAIN, None, ReadOptions(**options))
    return [dict(row.value) for row in rows], remark


def refused(path: str, **options: str) -> str:
    with pytest.raises(InputError) as found:
        read(path, **options)
    assert str(found.value).isprintable()
    return str(found.value)


# --- tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
def test_a_table_is_read_whatever_its_separator_encoding_and_extension(
    tmp_path: Path, encoding: str, separator: str, suffix: str
) -> None:
    path = put(tmp_path, f"ward{suffix}", ENCODED[encoding](table(ROWS, separator)))
    rows, remark = read(path)
    assert rows == ROWS
    said = {"UTF-8": "", "UTF-16": ", UTF-16", "cp1252": ", cp1252", "latin-1": ", cp1252"}
    assert (
        remark
        == f"ward{suffix}: 12 rows, {SEPARATORS[separator]}{said[re.split(' (?:with|LE|BE)', encoding)[0]]}"
    )


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("line", ["sep={}\r\n", "SEP={}\n", '"sep={}"\r\n', "sep={}{}{}\r\n"])
def test_excels_separator_line_is_not_a_row(tmp_path: Path, separator: str, line: str) -> None:
    rows, remark = read(put(tmp_path, "a.csv", line.replace("{}", separator) + table(ROWS, separator)))
    assert rows == ROWS
    assert SEPARATORS[separator] in remark


def test_line_numbers_include_excels_separator_line(tmp_path: Path) -> None:
    rows = read_rows(put(tmp_path, "a.csv", "sep=^\nq^a\n1^2\n"), "--x")
    assert [(row.number, dict(row.value)) for row in rows] == [(3, {"q": "1", "a": "2"})]
    assert "a.csv:4: has 3 cells, and the header 2" in refused(
        put(tmp_path, "a.csv", "sep=^\nq^a\n1^2\n1^2^3")
    )


@pytest.mark.parametrize("separator", SEPARATORS)
def test_separators_inside_names_or_cells_do_not_change_the_detection(tmp_path: Path, separator: str) -> None:
    """The rows decide if the header has several candidates."""
    others = [one for one in SEPARATORS if one != separator]
    rows = [
        {
            "id": str(n),
            f"question ({others[0]} or {others[1]})": f"is it{others[0]} {n}?" + others[1] * n,
            "answer": "yes",
        }
        for n in range(1, 9)
    ]
    text = "\n".join(separator.join(cells) for cells in (rows[0], *(row.values() for row in rows)))
    assert read(put(tmp_path, "a.txt", text))[0] == rows


@pytest.mark.parametrize("join", ["", "\n"])
def test_concatenated_files_are_one_table(tmp_path: Path, join: str) -> None:
    first, second = table(ROWS[:5], ";", "\n").rstrip("\n"), table(ROWS[5:], ";", "\n")
    path = put(tmp_path, "a.csv", "\ufeff" + first + join + "\ufeff" + second)
    rows, remark = read(path)
    assert rows == ROWS
    assert "the header appears twice" in remark
    path = put(
        tmp_path, "a.jsonl", "\ufeff" + lines(ROWS[:5]).rstrip("\n") + join + "\ufeff" + lines(ROWS[5:])
    )
    assert read(path)[0] == ROWS


@pytest.mark.parametrize("behind", [",", ",,", ",,,"])
def test_trailing_empty_columns_are_dropped(tmp_path: Path, behind: str) -> None:
    clean = table([{key: value.replace("\n", " ") for key, value in row.items()} for row in ROWS], ",", "\n")
    wanted = read(put(tmp_path, "clean.csv", clean))[0]
    every = clean.replace("\n", behind + "\n")
    assert read(put(tmp_path, "every.csv", every))[0] == wanted
    header, _, rest = clean.partition("\n")
    assert read(put(tmp_path, "header.csv", header + behind + "\n" + rest))[0] == wanted
    assert read(put(tmp_path, "rows.csv", header + "\n" + rest.replace("\n", behind + "\n")))[0] == wanted
    blank = every + behind + behind + "\n"
    assert read(put(tmp_path, "blank.csv", blank))[0] == wanted


def test_an_unnamed_column_with_values_is_kept(tmp_path: Path) -> None:
    rows, _ = read(put(tmp_path, "pandas.csv", ",q,a,\n0,x,yes,\n1,y,no,\n"))
    assert rows == [{"": "0", "q": "x", "a": "yes"}, {"": "1", "q": "y", "a": "no"}]
    said = refused(put(tmp_path, "a.csv", "q,a,,\nx,yes,,\ny,no,1,well\n"))
    assert "a.csv:3: column 4 holds 'well' and has no name: give it one in the header" in said


def test_spaces_around_names_and_after_separators_are_removed(tmp_path: Path) -> None:
    rows, _ = read(put(tmp_path, "a.csv", ' id , Question, "answer"\n1, "Is it, really?", yes\n2, No?, no\n'))
    assert rows == [
        {"id": "1", "Question": "Is it, really?", "answer": "yes"},
        {"id": "2", "Question": "No?", "answer": "no"},
    ]


def test_cells_are_unchanged(tmp_path: Path) -> None:
    cells = ["NA", "nan", "null", "None", "No", "TRUE", "0012", "1e5", "1.0", "", "=1+1", "2024-01-31", " x "]
    rows, _ = read(
        put(tmp_path, "a.csv", "n,cell\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells)))
    )
    assert [row["cell"] for row in rows] == cells


def test_one_question_per_line_is_a_table_with_one_column(tmp_path: Path) -> None:
    rows, remark = read(put(tmp_path, "asked.txt", "question\nIs it, really?\nWhy; and how?\n"))
    assert [row["question"] for row in rows] == ["Is it, really?", "Why; and how?"]
    assert "one column" in remark
    # a .csv file has its cells quoted
    assert "has 2 cells, and the header 1" in refused(
        put(tmp_path, "asked.csv", "question\nIs it, really?\n")
    )


def test_quotes_that_enclose_no_cell_are_text_in_tsv(tmp_path: Path) -> None:
    rows = [{"q": '"Worse" since when?', "a": "yes"}, {"q": 'A 5" wound, "deep', "a": '"no"'}]
    path = put(tmp_path, "a.tsv", "q\ta\n" + "".join("\t".join(row.values()) + "\n" for row in rows))
    assert read(path)[0] == rows
    assert "a.tsv:2: not CSV" in refused(put(tmp_path, "a.tsv", 'q\ta\n"Worse" since\tyes\nno\n'))
    assert (
        read(put(tmp_path, "a.tsv", table(ROWS, "\t")))[0] == ROWS
    )  # with quotes around cells of several lines


# --- encodings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("form", ["lines", "pretty list", "pretty objects", "data", "pandas columns"])
def test_json_is_read_in_every_encoding(tmp_path: Path, encoding: str, form: str) -> None:
    for suffix in (".jsonl", ".json"):
        rows, remark = read(put(tmp_path, f"a{suffix}", ENCODED[encoding](JSON[form]())))
        assert rows == ROWS
        assert ("cp1252" in remark) == (encoding in ("cp1252", "latin-1"))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_broken_utf8_byte_is_an_error_and_never_read_as_cp1252(tmp_path: Path, name: str) -> None:
    text = {"a.csv": table(ROWS), "a.jsonl": lines(ROWS), "a.json": json.dumps(ROWS, ensure_ascii=False)}[
        name
    ]
    data = text.encode()
    at = data.rindex("é".encode())
    said = refused(put(tmp_path, name, data[: at + 1] + data[at + 2 :]))
    assert re.search(
        rf"{name}:\d+: the byte 0xc3 is not UTF-8: save the file as UTF-8, or name its encoding", said
    )


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("question,answer\nПомогает ли аспирин?,да\n", "cp1251"),
        ("question,answer\n阿司匹林对患者有帮助吗？,是\n", "gb18030"),
        ("question,answer\nアスピリンは有効ですか？,はい\n", "shift_jis"),
        ("question,answer\nΒοηθά η ασπιρίνη;,ναι\n", "cp1253"),
        ("question,answer\nAide-t-elle la mère à l’hôpital ?,oui\n", "mac_roman"),
        ("question,answer\nGrößer als üblich?,ja\n", "mac_roman"),
        ("question,answer\nGrößer als üblich?,ja\n", "cp850"),
        ("question,answer\nMénière ?,oui\n", "cp850"),
        ("question,answer\n¿Está indicado?,sí\n", "cp437"),
        ("question,answer\nCzy działa?,tak\n", "cp1250"),
        ("question,answer\nJe léčba účinná při bolesti hlavy?,ano\n", "iso8859-2"),
        ("question,answer\nJe li aspirin učinkovit? Liječenje je češće,da\n", "cp1250"),
        ("question,answer\nHatásos-e nőknél és időseknél? Köszönöm,igen\n", "iso8859-2"),
        ("question,answer\nAspirin ağrı için faydalı mı?,evet\n", "cp1254"),
        ("question,answer\nŽmonių gydymas yra šių dienų?,taip\n", "cp1257"),
        ("ερώτηση,απάντηση\nΒοηθά;,ναι\n", "utf-16-le"),
    ],
)
def test_another_code_page_is_an_error_unless_it_is_named(tmp_path: Path, text: str, encoding: str) -> None:
    path = put(tmp_path, "a.csv", text.encode(encoding))
    assert "name its encoding with --data.source.encoding" in refused(path)
    rows, remark = read(path, encoding=encoding)
    assert [",".join(rows[0]), ",".join(rows[0].values())] == text.splitlines()
    assert encoding in remark


@pytest.mark.parametrize("text", ["„Spaß“ groß’s", "« santé »", "CAFÉ…", "100 € – “ok”", "5 µg/m²", "¿Qué?"])
def test_punctuation_next_to_cp1252_letters_is_not_taken_for_utf8(tmp_path: Path, text: str) -> None:
    rows, remark = read(put(tmp_path, "a.csv", f"q,a\n{text},oui à\n".encode("cp1252")))
    assert rows == [{"q": text, "a": "oui à"}]
    assert "cp1252" in remark


def test_a_named_encoding_is_used(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "q,a\nMénière,oui\n".encode("cp1252"))
    assert read(path, encoding="latin-1")[0] == [{"q": "Ménière", "a": "oui"}]
    assert "a.csv:2: can't be read as --data.source.encoding has utf-8" in refused(path, encoding="utf-8")
    for unknown in ("utf-99", "hex", "rot13", "a\0b", ""):
        with pytest.raises(
            InputError, match=r"--data\.source\.encoding: .* is not an encoding that Python knows"
        ):
            JSONLines("a.csv", encoding=unknown)


def test_readers_of_published_sets_guess_nothing(tmp_path: Path) -> None:
    """Readers of published sets show no remark, so a guess would go unnoticed."""
    path = put(tmp_path, "a.csv", "q,a\nMénière,oui\n".encode("cp1252"))
    match = r"a\.csv:2: the byte 0xe9 is not UTF-8: save the file as UTF-8$"
    with pytest.raises(InputError, match=match):
        read_rows(path, "--x")
    # PubMedQA has no option for the encoding, so no message names one
    path = put(tmp_path, "a.csv", "q,a\nMénière é,oui\n".encode() + b"\xe9")
    with pytest.raises(InputError, match=r"0xe9 is not UTF-8: save the file as UTF-8$"):
        read_table(path, "--x")


# --- compression ------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", COMPRESSED)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.xlsx"])
def test_compressed_files_are_read_with_or_without_the_extension_inside(
    tmp_path: Path, packed: str, name: str
) -> None:
    if name == "a.parquet":
        import pandas as pd

        pd.DataFrame(ROWS).to_parquet(tmp_path / name)
        data = (tmp_path / name).read_bytes()
    elif name == "a.xlsx":
        data = workbook({"S": [list(ROWS[0]), *(list(row.values()) for row in ROWS)]})
    else:
        text = {".csv": table(ROWS), ".tsv": table(ROWS, "\t")}.get(Path(name).suffix) or lines(ROWS)
        data = text.encode()
    for outer in (f"{name}{packed}", f"ward{packed}"):
        rows, remark = read(put(tmp_path, outer, COMPRESSED[packed](data, name)))
        assert rows == ROWS
        assert remark.startswith(f"{outer}: 12 rows")


# --- remarks ----------------------------------------------------------------------------------------


def test_the_source_and_the_questions_describe_the_format_of_each_file(tmp_path: Path) -> None:
    rows = [{"question": f"Does it help in Ménière's disease, {n}?", "answer": "no"} for n in range(20)]
    train = put(tmp_path, "ward.csv", table(rows, ";").encode("cp1252"))
    test = put(
        tmp_path, "test.jsonl.bz2", bz2.compress(lines([{"question": "Another?", "answer": "yes"}]).encode())
    )
    source = JSONLines(train, test=test)
    source.read()
    assert source.remarks[:2] == (
        "ward.csv: 20 rows, ';'-separated, cp1252, labels no",
        "test.jsonl.bz2: 1 row, JSON lines, labels yes",
    )
    remarks: list[str] = []
    read_questions(train, "--data.questions", ("yes", "no"), remarks=remarks)
    assert remarks == ["ward.csv: 20 rows, ';'-separated, cp1252"]
    assert JSONLines(train, encoding="cp1252", sheet="S").fingerprint()["encoding"] == "cp1252"


HANDED = {
    "semicolon.csv": "';'-separated", "sepline.csv": "';'-separated", "tabs.csv": "tab-separated",
    "commas.tsv": "','-separated", "trailing.csv": "','-separated", "upper.csv": "','-separated",
    "table.xlsx": "Excel", "unicode.tsv": "UTF-16", "ansi.csv": "cp1252", "jq.jsonl": "one after another",
    "array.jsonl": "a JSON list", "wrapped.json": "its list 'data'", "pandas_columns.json": "orient columns",
    "dictoflists.json": "of columns",
}  # fmt: skip


@pytest.mark.parametrize("name", HANDED)
def test_the_example_files_have_the_rows_of_the_reference(cases: Path, name: str) -> None:
    good, _ = read(str(cases / "data" / "good.jsonl.bz2"))
    rows, remark = read(str(cases / "data" / name))
    assert remark.startswith(f"{name}: 12 rows, ")
    assert HANDED[name] in remark
    for row, wanted in zip(rows, good, strict=True):
        plain = {str(find(key, row)): key for key in wanted if find(key, row)}
        held = {ours: row[theirs] for theirs, ours in plain.items()}
        assert len(held) == len(row)
        if isinstance(held["contexts"], str):
            wanted = {**wanted, "contexts": " ".join(wanted["contexts"])}
        if (name, held["id"]) == ("ansi.csv", "q3"):
            assert held.pop("question") == "Does naïve Ménière’s disease respond to ambrozol – yes or no?"
        assert held == {key: wanted[key] for key in held}


@pytest.mark.parametrize("name", ["good.jsonl.bz2", *(name for name in HANDED if name != "upper.csv")])
def test_the_example_files_are_read_for_training(cases: Path, name: str) -> None:
    splits = JSONLines(str(cases / "data" / name)).read()
    assert len(splits.train) + len(splits.dev) == 12
    assert {record.answer for part in splits for record in part} == {"yes", "no", "maybe"}


@pytest.mark.parametrize(
    "text",
    [
        "Það er gott að vita um áhrif lyfja, þýðir þetta að öll lyf séu æskileg?",
        "Hvussu nógv ár hevur hon havt sjúku, tað er øgiligt?",
        "Hvor ofte får børn på Ærø årlige undersøgelser, og er der én?",
        "As lesões são avaliadas? As funções põem à prova o teste de Müller.",
        "L’œuvre est-elle sûre où ça ? Noël, été, à la fin, Müller.",
        "È utile? Perché più di là, così, virtù",
        "Kas õhk on mõjuv? Šokk, žanr, öö, ü, ä",
    ],
)
def test_western_european_languages_are_detected_as_cp1252(tmp_path: Path, text: str) -> None:
    rows, remark = read(put(tmp_path, "a.csv", f"question;answer\n{text};yes\n".encode("cp1252")))
    assert rows[0]["question"] == text
    assert "cp1252" in remark


QUOTED_HEADER = '"id"{0}"question"{0}"answer"\n'


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_row_names_of_r_need_no_column_in_the_header(tmp_path: Path, separator: str) -> None:
    texts = [["1", "w1", "Is it, really?", "yes"], ["2", "w2", "Is that?", "no"]]
    body = "".join(separator.join(f'"{cell}"' for cell in row) + "\n" for row in texts)
    rows, _ = read(put(tmp_path, "t.csv", QUOTED_HEADER.format(separator) + body))
    assert [row["question"] for row in rows] == ["Is it, really?", "Is that?"]
    assert [row["id"] for row in rows] == ["w1", "w2"]


def test_a_separator_in_an_unquoted_text_is_not_a_row_name(tmp_path: Path) -> None:
    text = "id,question,answer\n1,Is it, really?,yes\n2,Is that, really?,no\n"
    with pytest.raises(InputError, match=r"t\.csv:2: has 4 cells, and the header 3"):
        read(put(tmp_path, "t.csv", text))


@pytest.mark.parametrize("separator", [",", ";"])
def test_quotes_escaped_by_a_backslash_are_read(tmp_path: Path, separator: str) -> None:
    text = f'"question"{separator}"answer"\n"Is \\"it\\"{separator} really?"{separator}"yes"\n'
    rows, _ = read(put(tmp_path, "t.csv", text))
    assert [row["question"] for row in rows] == [f'Is "it"{separator} really?']
    doubled = f'"question"{separator}"answer"\n"C:\\ is ""it""?"{separator}"yes"\n'
    assert read(put(tmp_path, "d.csv", doubled))[0][0]["question"] == 'C:\\ is "it"?'


@pytest.mark.parametrize(
    "value",
    [
        {"data": {str(n): row for n, row in enumerate(ROWS)}},
        {"medqa": {f"{n:04d}": row for n, row in enumerate(ROWS)}},
    ],
)
def test_a_nested_object_of_rows_by_number_is_not_a_table_of_columns(tmp_path: Path, value: object) -> None:
    rows, _ = read(put(tmp_path, "t.json", json.dumps(value)))
    assert len(rows) == len(ROWS)
    assert all("question" in row for row in rows)
