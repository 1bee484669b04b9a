"""Builds an index, and adds to one: streaming, resumable, and replaced as a whole.

The work is done on a file beside the index. It commits the documents together with how far it has read, so a killed
build goes on there when the same command is run again. At the end it is packed and renamed. The order and number of
commits leave no trace in the packed file: the same sources give the same bytes.
"""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from medqlora.errors import InputError
from medqlora.retrieval.documents import PASSAGE_WORDS
from medqlora.retrieval.reading import Fields, SourceFile, read_entries
from medqlora.retrieval.store import (
    COMMON,
    SCHEMA,
    beside,
    check_sqlite,
    open_index,
    read_meta,
    remove_database,
)
from medqlora.retrieval.writer import Writer
from medqlora.utils.files import flush
from medqlora.utils.locks import hold

#: entries of one transaction
BATCH = 2000
#: called with a step's name, and how much of how much is done
Progress = Callable[[str, int, int], None]


class Built(NamedTuple):
    """What a build did.

    Attributes:
        documents, passages: in the index now.
        added, replaced, deleted, ignored: documents of this build; `ignored` are older versions.
        resumed_at: entries that an earlier, killed build had already indexed.
        skipped: messages on rows and files that were left out.
    """

    documents: int
    passages: int
    added: int
    replaced: int
    deleted: int
    ignored: int
    resumed_at: int
    skipped: list[str]


@dataclass(frozen=True)
class BuildRequest:
    """What to index.

    Args:
        out: the index.
        files: the files, in order.
        fields: field → column of tables.
        words: most words of a passage.
        skip_bad: leave unusable rows and files out.
        add: start from the index that is at `out`.
    """

    out: Path
    files: Sequence[SourceFile]
    fields: Fields = field(default_factory=dict)
    words: int = PASSAGE_WORDS
    skip_bad: bool = False
    add: bool = False

    def plan(self) -> str:
        """What decides the result, as text: a killed build goes on only with the same."""
        base = None
        if self.add:
            found = self.out.stat()
            base = [found.st_size, found.st_mtime_ns]
        files = [[str(one.path.resolve()), one.name, one.size, one.modified_ns] for one in self.files]
        return json.dumps([base, files, dict(self.fields), self.words, self.skip_bad], sort_keys=True)


def build_index(request: BuildRequest, progress: Progress = lambda step, done, total: None) -> Built:
    """Builds or extends the index; `request.out` is replaced at the very end.

    Raises:
        InputError: a source can't be read, another process is building the same index, or the disk is full.
    """
    check_sqlite("--out")
    out = request.out
    if not out.name or out.is_dir():
        raise InputError(f"--out {out}: is a folder: name a file in it, as {out / 'literature.mqi'}")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}: make it first")
    try:
        release = hold(out)
    except BlockingIOError:
        raise InputError(f"--out {out}: another process is building it: wait for its end") from None
    try:
        if request.add:
            with closing(open_index(out, "INDEX")) as index:
                request = BuildRequest(
                    out, request.files, request.fields, int(read_meta(index)["words"]), request.skip_bad, True
                )
        return _Build(request, progress).run()
    except sqlite3.Error as error:
        raise InputError(
            f"--out {out}: can't be written ({error}): free some space, or choose another folder"
        ) from error
    except OSError as error:
        raise InputError(
            f"--out {out}: can't be written ({error.strerror}): choose another folder"
        ) from error
    finally:
        release()


class _Build:
    def __init__(self, request: BuildRequest, progress: Progress) -> None:
        self.request = request
        self.progress = progress
        self.unfinished = beside(request.out, "building")
        self.skipped: list[str] = []

    def run(self) -> Built:
        try:
            result = self._built()
        except InputError:  # with the source mended it is another build
            remove_database(self.unfinished)
            raise
        remove_database(self.unfinished)
        return result

    def _built(self) -> Built:
        connection = self._opened()
        with closing(connection):
            writer = Writer(connection, self.request.words)
            first, done = self._state(connection)
            total = sum(one.size for one in self.request.files)
            read = sum(one.size for one in self.request.files[:first])
            resumed = int(read_meta(connection).get("entries", 0))
            for number in range(first, len(self.request.files)):
                self._file(writer, number, done if number == first else 0, read, total)
                read += self.request.files[number].size
            self.progress("reading", total or 1, total or 1)
            self._finish(connection, writer)
            documents, passages = (
                int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
                for table in ("documents", "passages")
            )
            added, replaced, deleted, ignored = writer.counts()
            result = Built(documents, passages, added, replaced, deleted, ignored, resumed, self.skipped)
            self._pack(connection)
        return result

    # ---- the unfinished file -----------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        """The unfinished database: a killed build's with the same plan, or a new one."""
        plan = self.request.plan()
        if self.unfinished.is_file():
            try:
                connection = _connect(self.unfinished)
                if read_meta(connection).get("plan") == plan:
                    return connection
                connection.close()
            except sqlite3.DatabaseError:
                pass  # killed before its first commit
            remove_database(self.unfinished)
        if self.request.add:
            part = beside(self.request.out, "copy")
            shutil.copyfile(self.request.out, part)
            part.replace(self.unfinished)
        connection = _connect(self.unfinished)
        if not self.request.add:
            connection.executescript(f"BEGIN; {SCHEMA}")
        else:
            connection.execute("BEGIN")
        _set_meta(connection, {"plan": plan, "file": "0", "done": "0", "entries": "0"})
        connection.execute("COMMIT")
        return connection

    def _state(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """The file to go on with, and how many of its entries are indexed."""
        meta = read_meta(connection)
        self.skipped = json.loads(meta.get("skipped", "[]"))
        return int(meta["file"]), int(meta["done"])

    # ---- reading -------------------------------------------------------------------------------------------

    def _file(self, writer: Writer, number: int, done: int, before: int, total: int) -> None:
        """Indexes one file from its entry `done` on."""
        file = self.request.files[number]
        noted = len(self.skipped)
        known = set(self.skipped)

        def on_bad(error: InputError) -> None:
            if not self.request.skip_bad:
                raise error
            if str(error) not in known:  # a resumed build reads the rows before its place again
                self.skipped.append(str(error))

        def position(read: int) -> None:
            self.progress("reading", min(before + read, total - 1), total)

        count = 0
        try:
            for count, entry in enumerate(read_entries(file, self.request.fields, on_bad, position), 1):
                if count > done:
                    writer.add(entry, file.name)
                    if count % BATCH == 0:
                        self._commit(writer, number, count)
        except InputError as error:
            if not self.request.skip_bad:
                raise
            on_bad(error)
        if count == 0 and len(self.skipped) == noted and not self.request.skip_bad:
            raise InputError(f"{file.path}: holds no document: check the file")
        self._commit(writer, number + 1, 0)

    def _commit(self, writer: Writer, file: int, done: int) -> None:
        """Writes what was read, together with the place to go on at."""
        connection = writer.connection
        connection.execute("BEGIN")
        writer.write()
        entries = {"entries": str(writer.seen + int(read_meta(connection)["entries"]))}
        writer.seen = 0
        _set_meta(
            connection, {"file": str(file), "done": str(done), "skipped": json.dumps(self.skipped), **entries}
        )
        connection.execute("COMMIT")

    # ---- the end -------------------------------------------------------------------------------------------

    def _finish(self, connection: sqlite3.Connection, writer: Writer) -> None:
        """Merges the full-text index, and counts the common terms for the search."""
        self.progress("merging", 0, 3)
        connection.execute("BEGIN")
        connection.execute("INSERT INTO passage_index (passage_index) VALUES ('optimize')")
        self.progress("merging", 1, 3)
        connection.execute("DELETE FROM terms")
        connection.execute(
            "INSERT INTO terms SELECT term, doc FROM vocabulary WHERE doc > ? ORDER BY term", (COMMON,)
        )
        if not connection.execute("SELECT 1 FROM passages LIMIT 1").fetchone():
            connection.execute("ROLLBACK")
            raise InputError("SOURCES: no document is left: nothing was written")
        connection.execute("DELETE FROM meta WHERE key IN ('plan', 'file', 'done', 'entries', 'skipped')")
        _set_meta(connection, {"words": str(self.request.words), "content": _content(connection)})
        connection.execute("COMMIT")
        self.progress("merging", 2, 3)

    def _pack(self, connection: sqlite3.Connection) -> None:
        """Copies the database without gaps, flushes it, and renames it to the index."""
        connection.execute("PRAGMA journal_mode = DELETE")
        part = beside(self.request.out, "part")
        part.unlink(missing_ok=True)
        try:
            connection.execute("VACUUM INTO ?", (os.fspath(part),))
            flush(part)
            part.replace(self.request.out)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self.progress("merging", 3, 3)


def _content(connection: sqlite3.Connection) -> str:
    """SHA-256 over the passages with their numbers and documents, in hex."""
    found = hashlib.sha256()
    rows = connection.execute(
        "SELECT passages.id, documents.key, documents.title, passages.section, passages.text FROM passages "
        "JOIN documents ON documents.id = passages.document ORDER BY passages.id"
    )
    for row in rows:
        found.update("\0".join(map(str, row)).encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -65536")
    return connection


def _set_meta(connection: sqlite3.Connection, values: dict[str, str]) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())
