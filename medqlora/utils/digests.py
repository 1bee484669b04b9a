"""SHA-256 digests of files and texts."""

import hashlib
from pathlib import Path
from typing import TypedDict


class FileDigest(TypedDict):
    """A file's size in bytes and its SHA-256 in hexadecimal."""

    bytes: int
    sha256: str


def file_digest(path: Path) -> FileDigest:
    """The digest of a file, read in pieces of 1 MiB.

    Raises:
        OSError: the file can't be read.
    """
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def text_digest(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
