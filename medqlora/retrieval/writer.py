"""Writes documents into the tables of an index; a later document replaces an earlier one of the same key."""

import json
import sqlite3

from medqlora.retrieval.documents import Deletion, Document, Entry, Passage, passages_of

_DOCUMENT = f"INSERT INTO documents VALUES ({', '.join('?' * 17)})"
_PASSAGE = "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?)"
_INDEXED = "INSERT INTO passage_index (rowid, title, text) VALUES (?, ?, ?)"
_NOT_INDEXED = "INSERT INTO passage_index (passage_index, rowid, title, text) VALUES ('delete', ?, ?, ?)"


class Writer:
    """Collects entries, and writes them together.

    Args:
        connection: the database; transactions are the caller's.
        words: most words of a passage.

    Attributes:
        seen: entries since the last reset by the caller.
    """

    def __init__(self, connection: sqlite3.Connection, words: int) -> None:
        self.connection = connection
        self.words = words
        self.seen = 0
        self._added = self._replaced = self._deleted = self._ignored = 0
        self._pending: dict[str, tuple[Document, str] | None] = {}

    def add(self, entry: Entry, file: str) -> None:
        """Takes an entry of `file`, to be written by `write`."""
        self.seen += 1
        if isinstance(entry, Deletion):
            self._pending.pop(entry.key, None)
            self._pending[entry.key] = None
            return
        held = self._pending.get(entry.key)
        if held is not None and held[0].version > entry.version:
            self._ignored += 1
            return
        self._replaced += held is not None
        self._pending.pop(entry.key, None)
        self._pending[entry.key] = (entry, file)

    def write(self) -> None:
        """Writes the collected entries, in their order, within the caller's transaction."""
        pending, self._pending = self._pending, {}
        known = self._known(list(pending))
        documents, passages, indexed, headings = [], [], [], []
        document_id, passage_id = self._next("documents"), self._next("passages")
        for key, held in pending.items():
            if key in known:
                number, version = known[key]
                if held is not None and version > held[0].version:
                    self._ignored += 1
                    continue
                self._remove(number)
                self._replaced += held is not None
                self._deleted += held is None
            if held is None:
                continue
            document, file = held
            self._added += key not in known
            documents.append(_document_row(document_id, document, file))
            for passage in passages_of(document, self.words):
                passages.append(_passage_row(passage_id, document_id, passage))
                indexed.append((passage_id, document.title, passage.text))
                passage_id += 1
            if not passages or passages[-1][1] != document_id:  # a title alone
                passages.append((passage_id, document_id, "TITLE", "", 0, 0, "[]"))
                indexed.append((passage_id, document.title, ""))
                passage_id += 1
            headings += [(heading, document_id) for heading in sorted(document.mesh)]
            document_id += 1
        self.connection.executemany(_DOCUMENT, documents)
        self.connection.executemany(_PASSAGE, passages)
        self.connection.executemany(_INDEXED, indexed)
        self.connection.executemany("INSERT OR IGNORE INTO headings VALUES (?, ?)", headings)

    def counts(self) -> tuple[int, int, int, int]:
        """Documents added, replaced, deleted, and ignored as older versions."""
        return self._added, self._replaced, self._deleted, self._ignored

    def _known(self, keys: list[str]) -> dict[str, tuple[int, int]]:
        """Key → number and version, of those that the index holds."""
        known: dict[str, tuple[int, int]] = {}
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            marks = ", ".join("?" * len(some))
            rows = self.connection.execute(
                f"SELECT key, id, version FROM documents WHERE key IN ({marks})", some
            )
            known.update((key, (number, version)) for key, number, version in rows)
        return known

    def _next(self, table: str) -> int:
        return int(self.connection.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])

    def _remove(self, document: int) -> None:
        """Removes a document with its passages; the full-text index needs their texts for that."""
        rows = self.connection.execute(
            "SELECT passages.id, documents.title, passages.text FROM passages JOIN documents "
            "ON documents.id = passages.document WHERE document = ?",
            (document,),
        ).fetchall()
        self.connection.executemany(_NOT_INDEXED, rows)
        self.connection.execute("DELETE FROM passages WHERE document = ?", (document,))
        self.connection.execute("DELETE FROM headings WHERE document = ?", (document,))
        self.connection.execute("DELETE FROM documents WHERE id = ?", (document,))


def _document_row(number: int, one: Document, file: str) -> tuple[object, ...]:
    return (
        number,
        one.key,
        one.ident,
        one.source,
        one.title,
        one.pmid,
        one.pmcid,
        one.doi,
        one.journal,
        one.year,
        json.dumps(one.types, ensure_ascii=False),
        json.dumps(one.mesh, ensure_ascii=False),
        one.licence,
        int(one.retracted),
        int(one.animal),
        one.version,
        file,
    )


def _passage_row(number: int, document: int, passage: Passage) -> tuple[object, ...]:
    parts = json.dumps(passage.parts, ensure_ascii=False, separators=(",", ":"))
    return (number, document, passage.section, passage.text, passage.start, passage.end, parts)
