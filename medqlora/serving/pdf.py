"""The text of a PDF, read in a process of its own: a file from anywhere may loop, or ask for any amount of memory.

`python -m medqlora.serving.pdf` reads the file from its input and writes JSON.
"""

import io
import json
import sys
from collections.abc import Mapping

from medqlora.serving.apart import SECONDS, limit_this_process, output_of
from medqlora.serving.errors import ServiceError
from medqlora.utils.pdf import Fault, PdfError, read_pdf_text

_MOST_PAGES = 300
_FAULTS: Mapping[Fault, str] = {
    "no pypdf": "PDFs need the package pypdf on the server: pip install -e '.[serve]'",
    "damaged": "the file is no PDF, or is damaged: paste its text",
    "encrypted": "the PDF is encrypted: paste its text",
    "too many pages": f"the PDF has more than {_MOST_PAGES} pages: paste the part that matters",
    "no text": "the PDF holds no text, such as a scan: paste its text",
}


async def text_of(data: bytes) -> dict[str, str | int]:
    """The text and the number of pages of a PDF.

    Raises:
        ServiceError: it is none, is encrypted, holds no text, or takes too long.
    """
    late = ServiceError(422, f"the PDF could not be read within {SECONDS} s: paste its text")
    output = await output_of(__name__, data, late)
    try:
        found = json.loads(output)
    except ValueError:
        raise ServiceError(422, "the PDF can't be read: paste its text") from None
    if "error" in found:
        raise ServiceError(422, str(found["error"]))
    return {"text": str(found["text"]), "pages": int(found["pages"])}


def main() -> None:
    """Reads standard input, writes one object."""
    limit_this_process()
    sys.stdout.write(json.dumps(_read(sys.stdin.buffer.read())))


def _read(data: bytes) -> dict[str, str | int]:
    try:
        found = read_pdf_text(io.BytesIO(data), _MOST_PAGES)
    except MemoryError:
        return {"error": "the PDF takes too much memory: paste its text"}
    except PdfError as error:
        return {"error": _FAULTS[error.fault]}
    return {"text": "\n\n".join(found.pages).strip(), "pages": len(found.pages)}


if __name__ == "__main__":
    main()
