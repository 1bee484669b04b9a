"""The files of an index's sources, and their entries."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from medqlora.errors import InputError
from medqlora.retrieval.documents import Entry
from medqlora.retrieval.reading import jats, pubmed
from medqlora.retrieval.reading.tables import COLUMNS, OnBad, read_csv, read_jsonl, read_pubmedqa
from medqlora.retrieval.reading.texts import read_pdf, read_text

#: field of a document → column of the user's tables
Fields = Mapping[str, str]

_SUFFIXES = (
    *(".xml", ".nxml", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".md", ".markdown", ".pdf"),
)
_HEAD = 8192
_PUBMED = re.compile(rb"<(PubmedArticleSet|PubmedArticle|PubmedBookArticle|DeleteCitation|DeleteDocument)\b")
_JATS = re.compile(rb"<(article|pmc-articleset)\b")


class SourceFile(NamedTuple):
    """A file to index.

    Attributes:
        path: where it lies.
        name: its path within the folder that was given; else its own name.
        size, modified_ns: as the file system has them, to notice a changed file.
    """

    path: Path
    name: str
    size: int
    modified_ns: int


def source_files(given: Sequence[str]) -> list[SourceFile]:
    """The files of SOURCES, those of a folder by name; hidden files and files of other kinds in folders are left out.

    Raises:
        InputError: a path doesn't exist, is of no known kind, or a folder holds no such file.
    """
    files: list[SourceFile] = []
    for word in given:
        path = Path(word).expanduser()
        if path.is_dir():
            inside = [
                one
                for one in sorted(path.rglob("*"))
                if one.is_file()
                and _kind(one)
                and not any(p.startswith(".") for p in one.relative_to(path).parts)
            ]
            if not inside:
                raise InputError(f"{word}: the folder holds no file to index ({', '.join(_SUFFIXES)})")
            files += [_source_file(one, one.relative_to(path).as_posix()) for one in inside]
        elif not path.is_file():
            raise InputError(f"{word}: there is no such file or folder: check the path")
        elif not _kind(path):
            raise InputError(
                f"{word}: not a kind that can be indexed: {', '.join(_SUFFIXES)}, each also with .gz"
            )
        else:
            files.append(_source_file(path, path.name))
    return files


def parse_fields(text: str | None) -> dict[str, str]:
    """`--fields id=accession,text=body` as a mapping.

    Raises:
        InputError: it has another form, or a field is unknown.
    """
    fields: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in (text or "").split(","))):
        field, equals, column = (part.strip() for part in pair.partition("="))
        if not equals or not column or field not in COLUMNS:
            raise InputError(f"--fields {pair}: write FIELD=COLUMN with a field of {', '.join(COLUMNS)}")
        fields[field] = column
    return fields


def read_entries(
    file: SourceFile, fields: Fields, on_bad: OnBad, position: Callable[[int], None] = lambda done: None
) -> Iterator[Entry]:
    """The documents and deletions of a file, in its order, always the same.

    Args:
        file: the file.
        fields: field → column, for tables.
        on_bad: takes the message on a row or a file that can't be used; raises it, or lets the reading go on.
        position: called now and then with the number of bytes that were read of the file.

    Raises:
        InputError: the file can't be read, is damaged, or is of another format than its name says.
    """
    kind = _kind(file.path)
    try:
        if kind == ".pdf":
            yield from read_pdf(file.path, file.name)
            return
        with closing(_Stream(file.path, position)) as stream:
            yield from _entries(kind, stream, file, fields, on_bad)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{file.path}: not a whole gzip file ({error}): download it again") from error
    except OSError as error:
        raise InputError(f"{file.path}: can't be read ({error.strerror or error}): check the file") from error


def _entries(
    kind: str, stream: "_Stream", file: SourceFile, fields: Fields, on_bad: OnBad
) -> Iterator[Entry]:
    binary, where = cast(BinaryIO, stream), str(file.path)
    if kind in (".xml", ".nxml"):
        head = stream.peek()
        if _PUBMED.search(head):
            yield from pubmed.read(binary, where)
        elif _JATS.search(head):
            yield from jats.read(binary, where)
        else:
            raise InputError(f"{where}: neither PubMed's XML (PubmedArticleSet) nor a JATS article")
    elif kind in (".jsonl", ".ndjson"):
        yield from read_jsonl(binary, where, fields, on_bad)
    elif kind in (".csv", ".tsv"):
        yield from read_csv(binary, where, "\t" if kind == ".tsv" else ",", fields, on_bad)
    elif kind == ".json":
        yield from read_pubmedqa(binary, where)
    else:
        yield from read_text(binary, file.path, file.name)


class _Stream:
    """A file's bytes, unpacked, with its beginning to look at first; reports the position in the file.

    The interface is the part of a binary file that the readers use.
    """

    def __init__(self, path: Path, position: Callable[[int], None]) -> None:
        self._raw = path.open("rb")
        packed = path.suffix.casefold() == ".gz"
        self._stream = gzip.GzipFile(fileobj=self._raw) if packed else self._raw
        self._position = position
        self._reads = 0

    def peek(self) -> bytes:
        """The first bytes."""
        return self._stream.peek(_HEAD)[:_HEAD]

    def read(self, size: int = -1) -> bytes:
        self._count()
        return self._stream.read(size)

    def read1(self, size: int = -1) -> bytes:
        self._count()
        return self._stream.read1(size)

    def readline(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads % 256 == 0:
            self._position(self._raw.tell())
        return self._stream.readline(size)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return self._raw.closed

    def flush(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        self._stream.close()
        self._raw.close()

    def _count(self) -> None:
        self._position(self._raw.tell())


def _source_file(path: Path, name: str) -> SourceFile:
    found = path.stat()
    return SourceFile(path, name, found.st_size, found.st_mtime_ns)


def _kind(path: Path) -> str:
    """The extension that says how it is read, without .gz; "" for other files."""
    name = path.name.casefold()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix == ".pdf" and name.endswith(".gz"):
        return ""
    return suffix if suffix in _SUFFIXES else ""
