"""What an index holds: documents with their origin, and the passages that are found."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

#: most words of a passage; an abstract of this length is one passage
PASSAGE_WORDS = 300
#: a passage may be this much longer, so that no rest of a few words stands alone
_SLACK = 1.25

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9(\[])")
_WORD = re.compile(r"\S+")
#: MeSH check tags: a study with the first and without the second is one of animals alone
_ANIMALS, _HUMANS = "Animals", "Humans"
_RETRACTED = ("retracted publication",)


class Section(NamedTuple):
    """A part of a document: its heading ("METHODS"; "" for none) and its text."""

    label: str
    text: str


class Deletion(NamedTuple):
    """A document that a later file withdraws."""

    key: str


@dataclass(frozen=True, slots=True)
class Document:
    """One article, file or row.

    Attributes:
        key: unique within an index ("pmid:29768149"); a later document of the same key replaces this one.
        ident: its id in its source: the PMID, the row's id, the file's name.
        source: the source's name ("PubMed", "PMC", a file's name).
        title: its title; may be empty.
        abstract, body: the sections, in order.
        pmid, pmcid, doi: identifiers; "" where unknown.
        journal: name of the journal.
        year: of publication; None where unknown.
        types: publication types.
        mesh: MeSH headings.
        licence: the licence's name or text; "" where none is given.
        retracted: whether the source marks it as retracted.
        version: the source's version number; a lower one never replaces a higher one.
    """

    key: str
    ident: str
    source: str
    title: str = ""
    abstract: tuple[Section, ...] = ()
    body: tuple[Section, ...] = ()
    pmid: str = ""
    pmcid: str = ""
    doi: str = ""
    journal: str = ""
    year: int | None = None
    types: tuple[str, ...] = ()
    mesh: tuple[str, ...] = ()
    licence: str = ""
    retracted: bool = False
    version: int = 1

    @property
    def animal(self) -> bool:
        """Whether MeSH says that animals and no humans were studied."""
        return _ANIMALS in self.mesh and _HUMANS not in self.mesh


class Passage(NamedTuple):
    """A piece of a document.

    Attributes:
        section: the heading that it stands under; "ABSTRACT" for a whole abstract.
        text: its text; the sections of an abstract stand on a line each.
        start, end: its characters in the document's text (`text_of`).
        parts: (label, start, end) of the sections within `text`; empty where there is one without a label.
    """

    section: str
    text: str
    start: int
    end: int
    parts: tuple[tuple[str, int, int], ...] = ()


#: what a source yields
Entry: TypeAlias = Document | Deletion


def with_title(title: str, text: str) -> str:
    """Title and text of a passage as one text."""
    return f"{title}. {text}" if title and text else title + text


def text_of(document: Document) -> str:
    """The document's text: its sections, a line each, the abstract first."""
    return "\n".join(section.text for section in (*document.abstract, *document.body))


def passages_of(document: Document, words: int = PASSAGE_WORDS) -> Iterator[Passage]:
    """The passages of a document, in order.

    An abstract of at most `words` words is one passage; a longer one, and each section of the body, is divided at the
    ends of sentences.

    Args:
        document: with sections of stripped text.
        words: most words of a passage, but for a last sentence and a short rest.
    """
    position = 0
    whole = document.abstract
    if whole and sum(len(_WORD.findall(section.text)) for section in whole) <= words * _SLACK:
        yield _joined(whole)
        position = sum(len(section.text) + 1 for section in whole)
        whole = ()
    for section in (*whole, *document.body):
        for start, end in _pieces(section.text, words):
            label = section.label or ("ABSTRACT" if section in whole else "")
            yield Passage(label, section.text[start:end], position + start, position + end)
        position += len(section.text) + 1


def _joined(sections: Sequence[Section]) -> Passage:
    parts, position = [], 0
    for label, text in sections:
        parts.append((label, position, position + len(text)))
        position += len(text) + 1
    text = "\n".join(section.text for section in sections)
    labelled = tuple(parts) if len(parts) > 1 or parts[0][0] else ()
    return Passage("ABSTRACT", text, 0, len(text), labelled)


def _pieces(text: str, words: int) -> list[tuple[int, int]]:
    """(start, end) of pieces of at most about `words` words, at ends of sentences where there are any."""
    if len(text) <= 2 * words or len(_WORD.findall(text)) <= words * _SLACK:
        return [(0, len(text))] if text else []
    pieces: list[tuple[int, int]] = []
    begin = count = last = 0
    for start, end in _sentences(text, words):
        length = len(_WORD.findall(text[start:end]))
        if count and count + length > words:
            pieces.append((begin, last))
            begin, count = start, 0
        count, last = count + length, end
    pieces.append((begin, len(text)))
    if len(pieces) > 1 and count < words * (_SLACK - 1):
        *pieces, (begin, _), (_, end) = pieces
        pieces.append((begin, end))
    return pieces


def _sentences(text: str, words: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence; one of more than `words` words is cut between words."""
    start = 0
    for stop in (*_SENTENCE_END.finditer(text), None):
        end, following = (len(text), len(text)) if stop is None else stop.span()
        spans = [word.span() for word in _WORD.finditer(text, start, end)]
        for first in range(0, len(spans), words):
            last = spans[min(first + words, len(spans)) - 1]
            yield spans[first][0], last[1]
        start = following


def is_retraction_type(types: Sequence[str]) -> bool:
    """Whether publication types say that the article itself was retracted."""
    return any(kind.casefold() in _RETRACTED for kind in types)
