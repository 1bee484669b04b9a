"""Text, Markdown and PDF files: each is a document."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from medqlora.errors import InputError
from medqlora.retrieval.documents import Document, Entry, Section
from medqlora.utils.pdf import Fault, PdfError, read_pdf_text

#: bytes of a text that no article or book has
_LARGEST = 256 << 20
_FAULTS: Mapping[Fault, str] = {
    "no pypdf": "PDF needs pypdf: pip install 'medqlora[pdf]'",
    "damaged": "no readable PDF ({detail}): export it again, or convert it to text",
    "encrypted": "the PDF is encrypted: save it without a password",
    "too many pages": "the PDF has too many pages: split it",
    "no text": "the PDF holds no text (scanned pages?): run OCR on it first",
}
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$", re.MULTILINE)


def read_text(stream: BinaryIO, path: Path, name: str) -> Iterator[Entry]:
    """A text file as one document, its title the file's name; Markdown's headings make sections.

    Args:
        stream: the file, unpacked.
        path: its path, for messages.
        name: its path within the given folder: the document's id.

    Raises:
        InputError: it is too large, or not UTF-8.
    """
    data = stream.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise InputError(f"{path}: more than {_LARGEST >> 20} MiB of text: split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text in UTF-8 ({error.reason}): save it as one") from error
    markdown = name.casefold().removesuffix(".gz").endswith((".md", ".markdown"))
    sections = _markdown(text) if markdown else [Section("", _plain(text))]
    yield from _document(name, "text", path.name, sections)


def read_pdf(path: Path, name: str) -> Iterator[Entry]:
    """A PDF as one document with a section a page; text alone, scanned pages have none.

    Raises:
        InputError: `pypdf` is not installed, or the file is damaged, encrypted, or without text.
    """
    try:
        found = read_pdf_text(path)
    except PdfError as error:
        raise InputError(f"{path}: {_FAULTS[error.fault].format(detail=error.detail)}") from error
    pages = [Section(f"page {number}", _plain(text)) for number, text in enumerate(found.pages, 1)]
    sections = [section for section in pages if section.text]
    yield from _document(name, "PDF", _plain(found.title) or path.name, sections)


def _document(name: str, source: str, title: str, sections: list[Section]) -> Iterator[Entry]:
    kept = tuple(section for section in sections if section.text)
    if kept:
        yield Document(key=f"file:{name}", ident=name, source=source, title=title, body=kept)


def _markdown(text: str) -> list[Section]:
    sections, label, start = [], "", 0
    for heading in (*_HEADING.finditer(text), None):
        end = len(text) if heading is None else heading.start()
        sections.append(Section(label, _plain(text[start:end])))
        if heading is not None:
            label, start = _plain(heading.group(2)), heading.end()
    return sections


def _plain(text: str) -> str:
    """White space as single spaces, without what is no character."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
