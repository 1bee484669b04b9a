"""The file of an index: one SQLite database with FTS5.

Documents carry the provenance, passages the text. The full-text table stores no text of its own (external content),
and its tokenizer is Porter's stemmer (https://www.sqlite.org/fts5.html). A finished file is in no journal mode that
needs a second file, so it can be copied, and read from a folder that can't be written.
"""

import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medqlora.errors import InputError
from medqlora.utils.types import Json

#: PRAGMA application_id: "mqix"
APPLICATION = 0x6D716978
#: raised when the tables change
VERSION = 1
TOKENIZER = "porter unicode61 remove_diacritics 2"
#: a term in more passages than this has its count stored; others are counted when they are asked for
COMMON = 300

SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, ident TEXT NOT NULL, source TEXT NOT NULL, title TEXT NOT NULL,
    pmid TEXT NOT NULL, pmcid TEXT NOT NULL, doi TEXT NOT NULL, journal TEXT NOT NULL, year INTEGER,
    types TEXT NOT NULL, mesh TEXT NOT NULL, licence TEXT NOT NULL, retracted INTEGER NOT NULL,
    animal INTEGER NOT NULL, version INTEGER NOT NULL, file TEXT NOT NULL
);
CREATE INDEX documents_by_pmid ON documents (pmid) WHERE pmid != '';
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL, section TEXT NOT NULL, text TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, parts TEXT NOT NULL
);
CREATE INDEX passages_by_document ON passages (document);
CREATE TABLE headings (
    heading TEXT NOT NULL COLLATE NOCASE, document INTEGER NOT NULL, PRIMARY KEY (heading, document)
) WITHOUT ROWID;
CREATE INDEX headings_by_document ON headings (document);
CREATE TABLE terms (term TEXT PRIMARY KEY, passages INTEGER NOT NULL) WITHOUT ROWID;
CREATE VIEW passage_texts AS SELECT passages.id AS id, documents.title AS title, passages.text AS text
    FROM passages JOIN documents ON documents.id = passages.document;
CREATE VIRTUAL TABLE passage_index USING fts5 (
    title, text, content='passage_texts', content_rowid='id', tokenize='{TOKENIZER}'
);
CREATE VIRTUAL TABLE vocabulary USING fts5vocab (passage_index, row);
"""


class Found(NamedTuple):
    """A passage with its document's provenance.

    Attributes:
        id: number of the passage in the index.
        key, ident, source, title, pmid, pmcid, doi, journal, year, licence, retracted, animal: the document's.
        section, text, start, end, parts: the passage's, see `Passage`.
    """

    id: int
    key: str
    ident: str
    source: str
    title: str
    pmid: str
    pmcid: str
    doi: str
    journal: str
    year: int | None
    licence: str
    retracted: bool
    animal: bool
    section: str
    text: str
    start: int
    end: int
    parts: tuple[tuple[str, int, int], ...]

    @property
    def link(self) -> str:
        """Where the article can be read, as text; "" for files of one's own."""
        if self.pmcid:
            return f"https://pmc.ncbi.nlm.nih.gov/articles/{self.pmcid}/"
        if self.pmid:
            return f"https://pubmed.ncbi.nlm.nih.gov/{self.pmid}/"
        return f"https://doi.org/{self.doi}" if self.doi else ""

    def sections(self) -> list[tuple[str, str]]:
        """(label, text) of the passage's sections; of a passage without, its own."""
        if not self.parts:
            return [(self.section, self.text)]
        return [(label, self.text[start:end]) for label, start, end in self.parts]

    def provenance(self) -> dict[str, Json]:
        """Where the passage comes from, as plain values."""
        return {
            "document": self.key,
            "source": self.source,
            "title": self.title,
            "pmid": self.pmid or None,
            "pmcid": self.pmcid or None,
            "doi": self.doi or None,
            "journal": self.journal or None,
            "year": self.year,
            "section": self.section,
            "start": self.start,
            "end": self.end,
            "licence": self.licence or None,
            "link": self.link or None,
            "retracted": self.retracted,
            "animal_study": self.animal,
        }


COLUMNS = """passages.id, documents.key, documents.ident, documents.source, documents.title, documents.pmid,
documents.pmcid, documents.doi, documents.journal, documents.year, documents.licence, documents.retracted,
documents.animal, passages.section, passages.text, passages.first, passages.last, passages.parts"""


def found_of(row: Sequence[object]) -> Found:
    """A row of `COLUMNS`."""
    *values, parts = row
    values[11], values[12] = bool(values[11]), bool(values[12])
    marks = tuple((str(label), int(start), int(end)) for label, start, end in json.loads(str(parts)))
    return Found(*values, parts=marks)  # type: ignore[arg-type,misc]  # the columns' types are the schema's


def open_index(path: str | Path, option: str) -> sqlite3.Connection:
    """The finished index at `path`, for reading.

    Args:
        path: the file.
        option: what named it, for messages.

    Raises:
        InputError: there is no such file, or it is no index of this version.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"{option}: there is no file {path}: build it with `medqlora index build`")
    check_sqlite(option)
    try:
        made = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        application = made.execute("PRAGMA application_id").fetchone()[0]
        version = made.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"{option}: {path} is no index ({error}): build one with `medqlora index build`"
        ) from error
    if application != APPLICATION:
        made.close()
        raise InputError(
            f"{option}: {path} is another program's database: build an index with `medqlora index build`"
        )
    if version != VERSION:
        made.close()
        raise InputError(
            f"{option}: {path} is an index of version {version}, this medqlora reads version {VERSION}: build it again"
        )
    return made


def check_sqlite(option: str) -> None:
    """Raises InputError where Python's SQLite has no FTS5."""
    with sqlite3.connect(":memory:") as memory:
        try:
            memory.execute("CREATE VIRTUAL TABLE probe USING fts5 (text)")
        except sqlite3.OperationalError as error:
            raise InputError(
                f"{option}: this Python's SQLite has no FTS5 ({error}): take another build of Python"
            ) from error
    memory.close()


def read_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """What the index says of itself."""
    return dict(connection.execute("SELECT key, value FROM meta"))


def beside(path: str | Path, name: str) -> Path:
    """A hidden file in the folder of the index, that belongs to it."""
    file = Path(path).expanduser()
    return file.with_name(f".{file.name}.{name}")


def remove_database(path: Path) -> None:
    """Removes an unfinished database with its journal files."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{os.fspath(path)}{suffix}").unlink(missing_ok=True)
