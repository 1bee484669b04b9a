"""The text of PDF files by `pypdf`: one reader for the index and for the page of `serve`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

if TYPE_CHECKING:
    from pypdf import PdfReader

Fault = Literal["no pypdf", "damaged", "encrypted", "too many pages", "no text"]


class PdfText(NamedTuple):
    """What a PDF holds.

    Attributes:
        title: of its metadata; "" for none.
        pages: the text of each page; "" for one without.
    """

    title: str
    pages: list[str]


class PdfError(Exception):
    """A PDF has no text that can be read.

    Args:
        fault: why.
        detail: what pypdf said, in one line; may be empty.
    """

    def __init__(self, fault: Fault, detail: str = "") -> None:
        super().__init__(f"{fault}: {detail}" if detail else fault)
        self.fault: Fault = fault
        self.detail = detail


def read_pdf_text(source: Path | BinaryIO, most_pages: int | None = None) -> PdfText:
    """The text of each page, by characters that are Unicode.

    Args:
        source: a file.
        most_pages: a PDF with more is refused; None for any number.

    Raises:
        PdfError: it can't be read, or none of its pages holds text.
    """
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise PdfError("no pypdf") from error
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it remarks on each small fault of a file
    try:
        reader = PdfReader(source)
        # a file with an empty password opens as any other
        if reader.is_encrypted and not reader.decrypt(""):
            raise PdfError("encrypted")
        if most_pages is not None and len(reader.pages) > most_pages:
            raise PdfError("too many pages")
        pages = [_plain(page.extract_text() or "") for page in reader.pages]
        title = _title(reader)
    except (PdfError, MemoryError):
        raise
    except Exception as error:  # pypdf raises many kinds for damaged files
        raise PdfError("damaged", (str(error).splitlines() or [type(error).__name__])[0]) from error
    if not any(page.strip() for page in pages):
        raise PdfError("no text")
    return PdfText(title, pages)


def _title(reader: "PdfReader") -> str:
    try:
        return _plain(str((reader.metadata.title if reader.metadata else None) or ""))
    except Exception:  # damaged metadata of readable pages
        return ""


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
