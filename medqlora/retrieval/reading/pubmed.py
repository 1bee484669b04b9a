"""PubMed and MEDLINE XML: `PubmedArticleSet` with articles, books and deletions.

Source: https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd. One record, shortened:

    <PubmedArticle><MedlineCitation><PMID Version="1">29768149</PMID><Article>
      <ArticleTitle>Inhaled Combined Budesonide-Formoterol as Needed in Mild Asthma.</ArticleTitle>
      <Abstract><AbstractText Label="METHODS">We conducted a 52-week … β<sub>2</sub>-agonist …</AbstractText></Abstract>
      <PublicationTypeList><PublicationType>Randomized Controlled Trial</PublicationType></PublicationTypeList>
    </Article><MeshHeadingList>…<DescriptorName>Asthma</DescriptorName>…</MeshHeadingList></MedlineCitation>
    <PubmedData><ArticleIdList><ArticleId IdType="doi">10.1056/NEJMoa1715274</ArticleId></ArticleIdList></PubmedData>
    </PubmedArticle>
"""

import re
from collections.abc import Iterator
from typing import BinaryIO
from xml.etree.ElementTree import Element

from medqlora.retrieval.documents import Deletion, Document, Entry, Section, is_retraction_type
from medqlora.retrieval.reading.xml_stream import elements, plain_text

NAME = "PubMed"
TAGS = frozenset({"PubmedArticle", "PubmedBookArticle", "DeleteCitation", "DeleteDocument"})
_YEAR = re.compile(r"\b(1[5-9]\d\d|20\d\d)\b")
#: "[Effect of aspirin on pain]." is how PubMed writes a title that it translated
_TRANSLATED = re.compile(r"\[(.+)\]\.?")
_RETRACTED_BY = ("RetractionIn", "RetractedandRepublishedIn")


def read(stream: BinaryIO, where: str) -> Iterator[Entry]:
    """The articles and deletions of a file, in its order.

    Raises:
        InputError: the file is no XML.
    """
    for element in elements(stream, TAGS, where):
        if element.tag in ("DeleteCitation", "DeleteDocument"):
            for pmid in element.iter("PMID"):
                yield Deletion(f"pmid:{plain_text(pmid)}")
            continue
        document = _document(element)
        if document is not None:
            yield document


def _document(element: Element) -> Document | None:
    """The article; None without PMID or any text."""
    book = element.tag == "PubmedBookArticle"
    citation = element.find("BookDocument" if book else "MedlineCitation")
    article = citation if book else element.find("MedlineCitation/Article")
    if citation is None or article is None:
        return None
    number = citation.find("PMID")
    pmid = plain_text(number)
    title = _title(article)
    abstract = _abstract(citation, article)
    if not pmid or not (title or abstract):
        return None
    ids = {one.get("IdType"): plain_text(one) for one in element.findall(".//ArticleIdList/ArticleId")}
    if not ids.get("doi"):
        ids |= {one.get("EIdType"): plain_text(one) for one in article.findall("ELocationID")}
    types = tuple(filter(None, map(plain_text, article.iter("PublicationType"))))
    comments = citation.findall("CommentsCorrectionsList/CommentsCorrections")
    retracted = is_retraction_type(types) or any(one.get("RefType") in _RETRACTED_BY for one in comments)
    return Document(
        key=f"pmid:{pmid}",
        ident=pmid,
        source=NAME,
        title=title,
        abstract=abstract,
        pmid=pmid,
        pmcid=ids.get("pmc", ""),
        doi=ids.get("doi", ""),
        journal=plain_text(article.find("Journal/Title")) or plain_text(article.find("Book/BookTitle")),
        year=_year(article),
        types=types,
        mesh=tuple(dict.fromkeys(filter(None, map(plain_text, citation.iter("DescriptorName"))))),
        licence=plain_text(article.find("Abstract/CopyrightInformation")),
        retracted=retracted,
        version=_whole(number.get("Version") if number is not None else None),
    )


def _title(article: Element) -> str:
    """The title in English, without the brackets of a translation; else the title in the article's own language."""
    title = plain_text(article.find("ArticleTitle"))
    if match := _TRANSLATED.fullmatch(title):
        title = match.group(1)
    return title or plain_text(article.find("VernacularTitle"))


def _abstract(citation: Element, article: Element) -> tuple[Section, ...]:
    """The sections of the abstract; without one, those of the first other abstract (in English, if there is one)."""
    sections = _sections(article.find("Abstract"))
    if sections:
        return sections
    others = citation.findall("OtherAbstract")
    others.sort(key=lambda one: one.get("Language", "eng") != "eng")
    return next(filter(None, map(_sections, others)), ())


def _sections(abstract: Element | None) -> tuple[Section, ...]:
    if abstract is None:
        return ()
    sections = (
        Section((part.get("Label") or "").strip().upper(), plain_text(part))
        for part in abstract.findall("AbstractText")
    )
    return tuple(section for section in sections if section.text)


def _year(article: Element) -> int | None:
    """The year of the issue ("2018", or in a MedlineDate "1998 Dec-1999 Jan"), or of the electronic article."""
    for path in ("Journal/JournalIssue/PubDate", "Book/PubDate", "ArticleDate", "ContributionDate"):
        found = _YEAR.search(plain_text(article.find(path)))
        if found:
            return int(found.group())
    return None


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 1
