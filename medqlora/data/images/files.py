"""Image files: recognised by their first bytes, limited in size, identified by their SHA-256."""

import hashlib
from pathlib import Path

from medqlora.errors import InputError
from medqlora.records import ImageFile
from medqlora.utils.cache import cache_folder
from medqlora.utils.digests import file_digest
from medqlora.utils.files import replacing
from medqlora.utils.terminal import printable_line

#: bytes of a file that is read as an image, at most; an uncompressed 16-bit radiograph of 4k x 4k pixels has 32 MiB
MAX_BYTES = 64 << 20
DICOM = "DICOM"
#: the name that Pillow has for a format → what its files begin with
_SIGNATURES = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\x00", b"MM\x00*"),
}
FORMATS = (*_SIGNATURES, "WEBP", DICOM)
_LONGEST_PATH = 300  # characters
_HEAD = 132  # bytes; DICOM's mark stands behind 128 bytes of preamble


def image_kind(head: bytes) -> str | None:
    """The format of a file with these first bytes; None for no image."""
    if head[128:132] == b"DICM":
        return DICOM
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    for kind, signatures in _SIGNATURES.items():
        if head.startswith(signatures):
            return kind
    return None


def image_file(path: Path, where: str) -> ImageFile:
    """The image in a file, with its digest.

    Args:
        path: the file.
        where: what named it ("questions.jsonl:7: image"), for messages.

    Raises:
        InputError: there is no such file, it is too large, or its first bytes are no image's.
    """
    named = shown_path(path)
    try:
        if not path.is_file():
            raise InputError(f"{where}: there is no image file {named}: correct the path")
        with path.open("rb") as stream:
            kind = image_kind(stream.read(_HEAD))
        check_kind(kind, path.stat().st_size, f"{where}: {named}")
        return ImageFile(str(path), file_digest(path)["sha256"])
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"{where}: {named} can't be read ({reason}): correct the path") from error


def shown_path(path: Path) -> str:
    """A path for messages: one line, and its end where it is very long."""
    line = printable_line(str(path))
    return line if len(line) <= _LONGEST_PATH else f"…{line[-_LONGEST_PATH:]}"


def check_kind(kind: str | None, size: int, where: str) -> None:
    """Raises InputError for bytes that are no image, or too many of them."""
    if kind is None:
        raise InputError(f"{where} is no image: give one of {', '.join(FORMATS)}")
    if size > MAX_BYTES:
        raise InputError(
            f"{where} has {size / 2**20:.0f} MiB, and an image may have {MAX_BYTES >> 20}: make it smaller"
        )


def stored_image(content: bytes, where: str) -> ImageFile:
    """An image whose bytes stand in a table, or came over the network, as a file in the cache folder.

    The file is named by its SHA-256, so the same image is stored once.

    Raises:
        InputError: the bytes are no image, or the cache can't be written.
    """
    kind = image_kind(content[:_HEAD])
    check_kind(kind, len(content), where)
    digest = hashlib.sha256(content).hexdigest()
    try:
        path = cache_folder("images") / f"{digest}.{str(kind).lower()}"
        if not path.is_file():
            with replacing(path, durable=False) as stream:
                stream.write(content)
    except OSError as error:
        raise InputError(
            f"{where}: the cache can't be written ({error.strerror or error}): set MEDQLORA_CACHE to a folder that can"
        ) from error
    return ImageFile(str(path), digest)
