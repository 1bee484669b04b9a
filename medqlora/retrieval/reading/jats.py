"""Full texts in JATS, the format of PubMed Central (.nxml).

Source: https://jats.nlm.nih.gov/archiving/. One article, shortened:

    <article article-type="research-article"><front><article-meta>
      <article-id pub-id-type="pmid">21045829</article-id><article-id pub-id-type="pmc">2994229</article-id>
      <title-group><article-title>Oral contraceptives, reproductive history …</article-title></title-group>
      <abstract><sec><title>Methods:</title><p>We …</p></sec></abstract></article-meta></front>
    <body><sec><title>Results</title><p>…<xref ref-type="bibr">3</xref>…</p></sec></body></article>
"""

from collections.abc import Iterator
from typing import BinaryIO
from xml.etree.ElementTree import Element

from medqlora.retrieval.documents import Document, Entry, Section
from medqlora.retrieval.reading.xml_stream import elements, plain_text

NAME = "PMC"
TAGS = frozenset({"article"})
#: blocks that are no running text, and what a paragraph holds besides its words
_NO_TEXT = frozenset(
    {
        *(
            "table-wrap",
            "fig",
            "fig-group",
            "disp-formula",
            "tex-math",
            "supplementary-material",
            "media",
            "label",
        ),
        *("boxed-text", "graphic", "inline-graphic", "object-id", "fn", "ref-list", "alternatives"),
    }
)
#: abstracts that repeat the article in other words or pictures
_OTHER_ABSTRACTS = ("graphical", "teaser", "toc", "executive-summary", "video", "key-points", "precis")
_PARAGRAPHS = ("p", "list", "disp-quote", "def-list", "verse-group", "statement")


def read(stream: BinaryIO, where: str) -> Iterator[Entry]:
    """The articles of a file.

    Raises:
        InputError: the file is no XML.
    """
    for article in elements(stream, TAGS, where):
        yield _document(article, where)


def _document(article: Element, where: str) -> Document:
    meta = article.find("front/article-meta")
    meta = Element("article-meta") if meta is None else meta
    ids: dict[str, str] = {}
    for one in meta.findall("article-id"):
        ids.setdefault(one.get("pub-id-type", ""), plain_text(one))
    number = (ids.get("pmc") or ids.get("pmcid") or "").upper().removeprefix("PMC")
    pmid, doi = ids.get("pmid", ""), ids.get("doi", "")
    name = where.replace("\\", "/").rpartition("/")[2]
    kind = article.get("article-type", "")
    return Document(
        key=f"pmcid:PMC{number}" if number else f"pmc-pmid:{pmid}" if pmid else f"doi:{doi}" if doi else name,
        ident=f"PMC{number}" if number else pmid or doi or name,
        source=NAME,
        title=plain_text(meta.find("title-group/article-title"), frozenset({"xref", "fn"})),
        abstract=tuple(_abstract(meta)),
        body=tuple(_body(article)),
        pmid=pmid,
        pmcid=f"PMC{number}" if number else "",
        doi=doi,
        journal=plain_text(article.find("front/journal-meta//journal-title")),
        year=_year(meta),
        types=(kind,) if kind else (),
        mesh=(),
        licence=_licence(meta),
        # a notice of a retraction has the type "retraction", the retracted article its own
        retracted=any(
            one.get("related-article-type") in ("retraction-forward", "retracted-article-of")
            for one in meta.findall("related-article")
        )
        or kind == "retracted-article",
    )


def _abstract(meta: Element) -> Iterator[Section]:
    for abstract in meta.findall("abstract"):
        if abstract.get("abstract-type") not in _OTHER_ABSTRACTS:
            for section in _sections(abstract, ""):
                yield Section(section.label.rstrip(":").strip().upper(), section.text)


def _body(article: Element) -> Iterator[Section]:
    body = article.find("body")
    if body is not None:
        yield from _sections(body, "")


def _sections(parent: Element, path: str) -> Iterator[Section]:
    """The text of an element and of the sections in it; the label is the path of titles, "Methods: Chemicals"."""
    own: list[str] = []
    for child in parent:
        if child.tag in _PARAGRAPHS:
            own.append(plain_text(child, _NO_TEXT))
        elif child.tag == "sec":
            if any(own):
                yield Section(path, " ".join(filter(None, own)))
                own = []
            title = plain_text(child.find("title"), frozenset({"xref", "fn"}))
            below = ": ".join(filter(None, (path.rstrip(":"), title)))
            yield from _sections(child, below)
    if any(own):
        yield Section(path, " ".join(filter(None, own)))


def _year(meta: Element) -> int | None:
    """The earliest year of publication."""
    years = [plain_text(date.find("year")) for date in meta.findall("pub-date")]
    return min((int(year) for year in years if year.isdecimal()), default=None)


def _licence(meta: Element) -> str:
    """The licence's address, or its text; else the copyright statement."""
    licence = meta.find("permissions/license")
    if licence is not None:
        address = next((value for name, value in licence.attrib.items() if name.endswith("href")), "")
        text = address or licence.get("license-type") or plain_text(licence)
        if text:
            return text
    return plain_text(meta.find("permissions/copyright-statement"))
