"""The vectors of an index: float16, memory-mapped, beside its file; searched exactly, by dot product.

literature.mqi  literature.mqi.vectors.npy  literature.mqi.vectors.json
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medqlora.errors import InputError
from medqlora.retrieval.build import Progress
from medqlora.retrieval.embedding import Encoder, check_folder, digest
from medqlora.retrieval.search import shown_text
from medqlora.retrieval.store import COLUMNS, beside, found_of, open_index, read_meta
from medqlora.utils.files import flush, write_text

#: passages that are encoded together, and rows of one block of a search
_CHUNK = 512
_ROWS = 65_536


def vector_files(index: Path) -> tuple[Path, Path]:
    """The vectors, and what is known of them."""
    return index.with_name(f"{index.name}.vectors.npy"), index.with_name(f"{index.name}.vectors.json")


def build_vectors(
    index: Path, folder: Path, query_folder: Path | None, device: str, progress: Progress
) -> tuple[int, int]:
    """Writes the vectors of all passages of an index; (passages, numbers of a vector).

    Args:
        index: a finished index.
        folder: the embedding model's.
        query_folder: the model of the questions, where it is another.
        device: of torch.
        progress: see `Progress`.

    Raises:
        InputError: a folder holds no model, or the vectors can't be written.
    """
    encoder = Encoder(folder, "--embedding", device)
    if query_folder is not None:
        check_folder(query_folder, "--query_embedding")
    vectors, notes = vector_files(index)
    part = beside(index, "vectors.part")
    with closing(open_index(index, "INDEX")) as connection:
        count = int(connection.execute("SELECT count(*) FROM passages").fetchone()[0])
        try:
            table = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=(count, encoder.size))
            done = 0
            for texts in _texts(connection):
                table[done : done + len(texts)] = encoder.documents(texts)
                done += len(texts)
                progress("embedding", done, count)
            table.flush()
            del table
            flush(part)
            notes.unlink(missing_ok=True)  # never new notes with old vectors
            part.replace(vectors)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise InputError(f"--embedding: {vectors} can't be written ({error.strerror})") from error
        known = {
            "content": read_meta(connection)["content"],
            "passages": count,
            "size": encoder.size,
            "embedding": str(folder.resolve()),
            "embedding_sha256": digest(folder),
            "query_embedding": str((query_folder or folder).resolve()),
        }
    write_text(notes, json.dumps(known, indent=2) + "\n")
    return count, encoder.size


class MappedVectors:
    """The vectors beside an index.

    Args:
        index: its file.
        connection: to it.
        content: the digest of its passages.
        device: of the questions' model.

    Raises:
        InputError: there are none, they belong to another state of the index, or their model has gone.
    """

    def __init__(
        self, index: Path, connection: sqlite3.Connection, content: str, device: str = "auto"
    ) -> None:
        file, notes = vector_files(index)
        rebuild = f"write them with `medqlora index embed {index} --embedding FOLDER`"
        try:
            known = json.loads(notes.read_text(encoding="utf-8"))
            self._table: NDArray[np.float16] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{index}: no vectors lie beside it ({error}): {rebuild}") from error
        if not isinstance(known, dict) or known.get("content") != content:
            raise InputError(f"{file}: of another state of the index: {rebuild}")
        rows = connection.execute("SELECT id FROM passages ORDER BY id")
        self._numbers = np.fromiter((row[0] for row in rows), dtype=np.int64)
        if self._table.shape != (len(self._numbers), known.get("size")):
            raise InputError(f"{file}: has the shape {self._table.shape}: {rebuild}")
        self._encoder = Encoder(Path(str(known["query_embedding"])), "query_embedding", device)
        if self._encoder.size != self._table.shape[1]:
            raise InputError(f"{file}: the question's model gives {self._encoder.size} numbers: {rebuild}")

    def nearest(self, query: str, count: int) -> list[tuple[int, float]]:
        """(passage's number, dot product), best first; of equal ones the first in the index."""
        wanted = self._encoder.query(query)
        scores = np.concatenate(
            [
                self._table[start : start + _ROWS].astype(np.float32) @ wanted
                for start in range(0, len(self._table), _ROWS)
            ]
        )
        count = min(count, len(scores))
        best = np.argpartition(-scores, count - 1)[:count] if count else np.empty(0, dtype=np.int64)
        order = np.lexsort((self._numbers[best], -scores[best]))
        return [(int(self._numbers[best[at]]), float(scores[best[at]])) for at in order]


def _texts(connection: sqlite3.Connection) -> Iterator[list[str]]:
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM passages JOIN documents ON documents.id = passages.document ORDER BY passages.id"
    )
    while some := rows.fetchmany(_CHUNK):
        yield [shown_text(found_of(row)) for row in some]
