"""The text of a PDF, read in a process of its own: a file from anywhere may loop, or ask for any amount of memory.

`python -m medqlora.serving.pdf` reads the file from its input and writes JSON.
"""

import io
import json
import sys

from medqlora.serving.apart import SECONDS, limit_this_process, output_of
from medqlora.serving.errors import ServiceError

_MOST_PAGES = 300


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
        from pypdf import PdfReader
    except ImportError:
        return {"error": "PDFs need the package pypdf on the server: pip install -e '.[serve]'"}
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted:
            return {"error": "the PDF is encrypted: paste its text"}
        if len(reader.pages) > _MOST_PAGES:
            return {"error": f"the PDF has more than {_MOST_PAGES} pages: paste the part that matters"}
        text = "\n\n".join(page.extract_text() for page in reader.pages).strip()
    except MemoryError:
        return {"error": "the PDF takes too much memory: paste its text"}
    except Exception:  # pypdf raises many kinds for damaged files
        return {"error": "the file is no PDF, or is damaged: paste its text"}
    if not text:
        return {"error": "the PDF holds no text, such as a scan: paste its text"}
    plain = text.encode("utf-8", "replace").decode()
    return {"text": plain, "pages": len(reader.pages)}


if __name__ == "__main__":
    main()
