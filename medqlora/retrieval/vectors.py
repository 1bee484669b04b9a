"""The vectors of an index: float16, memory-mapped, beside its file; searched exactly, by dot product.

literature.mqi  literature.mqi.vectors.npy  literature.mqi.vectors.keys.npy  literature.mqi.vectors.json

The keys are digests of the passages' texts: when the index has changed, the vectors of texts that stayed are copied.
Above a million passages an approximate index of faiss stands beside them, literature.mqi.vectors.faiss.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medqlora.errors import InputError
from medqlora.retrieval.approximate import (
    ApproximateRows,
    Approximation,
    build_approximation,
    check_faiss,
    exact_rows,
)
from medqlora.retrieval.build import Progress
from medqlora.retrieval.documents import with_title
from medqlora.retrieval.embedding import Encoder, check_folder, digest
from medqlora.retrieval.store import COLUMNS, beside, found_of, open_index, read_meta
from medqlora.utils.console import say
from medqlora.utils.files import flush, write_text

Keys = NDArray[np.uint64]
#: how vectors are searched: "exact" reads all of them, "faiss" an approximate index; "auto" chooses by their number
VectorSearch = Literal["auto", "exact", "faiss"]
#: most passages that "auto" searches exactly
MOST_EXACT = 1_000_000
#: passages that are encoded together
_CHUNK = 512


def vector_files(index: Path) -> tuple[Path, Path]:
    """The vectors, and what is known of them."""
    return index.with_name(f"{index.name}.vectors.npy"), index.with_name(f"{index.name}.vectors.json")


def keys_file(index: Path) -> Path:
    """The digests of the texts that the vectors belong to, [passages, 2] uint64."""
    return index.with_name(f"{index.name}.vectors.keys.npy")


def faiss_file(index: Path) -> Path:
    """The approximate index of the vectors, where there is one."""
    return index.with_name(f"{index.name}.vectors.faiss")


class Embedded(NamedTuple):
    """What was written.

    Attributes:
        passages: their number.
        size: numbers of a vector.
        kept: vectors that were copied, because their text and model are as before.
        approximation: of faiss; None where the search is exact.
    """

    passages: int
    size: int
    kept: int
    approximation: Approximation | None = None


def recorded_models(index: Path) -> tuple[Path, Path | None] | None:
    """The folders of the models of an index's vectors, passages' and questions'; None where the first has changed."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(vector_files(index)[1].read_text(encoding="utf-8"))
        folder, query = Path(known["embedding"]), Path(known["query_embedding"])
        if (folder / "config.json").is_file() and digest(folder) == known["embedding_sha256"]:
            return folder, None if query == folder else query
    return None


def recorded_search(index: Path) -> VectorSearch:
    """How the vectors beside an index were asked to be searched; "auto" where it is not known."""
    with suppress(OSError, ValueError, AttributeError):
        chosen = json.loads(vector_files(index)[1].read_text(encoding="utf-8")).get("search")
        return "exact" if chosen == "exact" else "faiss" if chosen == "faiss" else "auto"
    return "auto"


def build_vectors(
    index: Path,
    folder: Path,
    query_folder: Path | None,
    device: str,
    progress: Progress,
    search: VectorSearch = "auto",
) -> Embedded:
    """Writes the vectors of all passages of an index, and keeps those of texts that have one by the same model.

    Args:
        index: a finished index.
        folder: the embedding model's.
        query_folder: the model of the questions, where it is another.
        device: of torch.
        progress: see `Progress`.
        search: see `VectorSearch`.

    Raises:
        InputError: a folder holds no model, faiss is missing, or the vectors can't be written.
    """
    if search == "faiss":
        check_faiss("--vectors faiss")
    encoder = Encoder(folder, "--embedding", device)
    model = _model(encoder, folder)
    if query_folder is not None:
        check_folder(query_folder, "--query_embedding")
    vectors, notes = vector_files(index)
    part, keys_part = beside(index, "vectors.part"), beside(index, "keys.part")
    with closing(open_index(index, "INDEX")) as connection:
        try:
            count, kept = _write(connection, part, keys_part, encoder, _Before.read(index, model), progress)
            flush(part)
            flush(keys_part)
            notes.unlink(missing_ok=True)  # never new notes with old vectors
            faiss_file(index).unlink(missing_ok=True)
            part.replace(vectors)
            keys_part.replace(keys_file(index))
        except OSError as error:
            part.unlink(missing_ok=True)
            keys_part.unlink(missing_ok=True)
            raise InputError(f"--embedding: {vectors} can't be written ({error.strerror})") from error
        known: dict[str, object] = {
            "content": read_meta(connection)["content"],
            "passages": count,
            **model,
            "query_embedding": str((query_folder or folder).resolve()),
            "search": search,
            "faiss": None,
        }
    write_text(notes, json.dumps(known, indent=2) + "\n")
    # a process that is killed while it clusters has its vectors
    approximation = _approximation(index, count, search, progress)
    if approximation is not None:
        write_text(notes, json.dumps({**known, "faiss": approximation._asdict()}, indent=2) + "\n")
    return Embedded(count, encoder.size, kept, approximation)


def _model(encoder: Encoder, folder: Path) -> dict[str, object]:
    """What the notes say of the passages' model."""
    return {
        "size": encoder.size,
        "embedding": str(folder.resolve()),
        "embedding_sha256": digest(folder),
        "recipe": asdict(encoder.recipe),
    }


def _approximation(index: Path, count: int, search: VectorSearch, progress: Progress) -> Approximation | None:
    """Builds the approximate index, where it is asked for or needed."""
    if search == "exact" or (search == "auto" and count <= MOST_EXACT):
        return None
    try:
        check_faiss("--vectors auto")
    except InputError:
        say(
            f"Warning: {count:,} vectors are searched exactly, which reads all of them for each question: "
            "pip install 'medqlora[faiss]' and run `medqlora index embed` again"
        )
        return None
    table: NDArray[np.float16] = np.load(vector_files(index)[0], mmap_mode="r", allow_pickle=False)
    part = beside(index, "faiss.part")
    progress("clustering", 0, 1)
    try:
        approximation = build_approximation(table, part)
        flush(part)
        part.replace(faiss_file(index))
    except (OSError, RuntimeError) as error:  # faiss raises the second where it can't write
        part.unlink(missing_ok=True)
        raise InputError(
            f"--vectors: {faiss_file(index)} can't be written ({error}): free some space, or choose exact"
        ) from error
    progress("clustering", 1, 1)
    return approximation


def _write(
    connection: sqlite3.Connection,
    part: Path,
    keys_part: Path,
    encoder: Encoder,
    before: "_Before | None",
    progress: Progress,
) -> tuple[int, int]:
    """Writes the vectors and the keys of all passages; how many there are, and how many were copied."""
    count = int(connection.execute("SELECT count(*) FROM passages").fetchone()[0])
    table = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=(count, encoder.size))
    keys = np.empty((count, 2), dtype=np.uint64)
    done = kept = 0
    for passages in _passages(connection):
        rows = slice(done, done + len(passages))
        pairs = encoder.recipe.pairs
        keys[rows] = _keys([f"{one}\0{text}" if pairs else with_title(one, text) for one, text in passages])
        table[rows], copied = _vectors(passages, keys[rows], encoder, before)
        kept += copied
        done += len(passages)
        progress("embedding", done, count)
    table.flush()
    with keys_part.open("wb") as stream:
        np.save(stream, keys, allow_pickle=False)
    return count, kept


def _vectors(
    passages: Sequence[tuple[str, str]], keys: Keys, encoder: Encoder, before: "_Before | None"
) -> tuple[NDArray[np.float16], int]:
    """[len(passages), size] vectors, and how many of them were copied."""
    found = np.full(len(passages), -1) if before is None else before.rows(keys)
    made = np.empty((len(passages), encoder.size), dtype=np.float16)
    new = np.flatnonzero(found < 0)
    if len(new):
        made[new] = encoder.passages([passages[int(place)] for place in new])
    if before is not None:
        made[found >= 0] = before.table[found[found >= 0]]
    return made, len(passages) - len(new)


def _keys(texts: Sequence[str]) -> Keys:
    """[len(texts), 2]: 16 bytes of BLAKE2b of each text."""
    digests = [
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(len(texts), 2).astype(np.uint64)


class _Before:
    """The vectors that lie beside an index already, by the text that each is of."""

    def __init__(self, table: NDArray[np.float16], keys: Keys) -> None:
        self.table = table
        self._order = np.lexsort((keys[:, 1], keys[:, 0]))
        self._sorted = keys[self._order]

    @classmethod
    def read(cls, index: Path, model: dict[str, object]) -> "_Before | None":
        """None where there are none, or of another model."""
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            file, notes = vector_files(index)
            known = json.loads(notes.read_text(encoding="utf-8"))
            table: NDArray[np.float16] = np.load(file, mmap_mode="r", allow_pickle=False)
            keys: Keys = np.load(keys_file(index), allow_pickle=False)
            known["recipe"] = {"pairs": False, **known["recipe"]}  # which older notes don't have
            same = all(known.get(name) == value for name, value in model.items() if name != "embedding")
            if same and keys.dtype == np.uint64 and keys.shape == (len(table), 2) and len(keys):
                return cls(table, keys)
        return None

    def rows(self, keys: Keys) -> NDArray[np.int64]:
        """[len(keys)] the row of each key's vector; -1 for none."""
        places = np.searchsorted(self._sorted[:, 0], keys[:, 0])
        found = np.full(len(keys), -1, dtype=np.int64)
        for number, (place, key) in enumerate(zip(places, keys, strict=True)):
            # 64 bits of two texts may be equal, 128 are not
            while place < len(self._sorted) and self._sorted[place, 0] == key[0]:
                if self._sorted[place, 1] == key[1]:
                    found[number] = self._order[place]
                    break
                place += 1
        return found


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
        self._approximate: ApproximateRows | None = None
        if known.get("faiss"):
            check_faiss(str(index))
            looked_through = int(known["faiss"]["looked_through"])
            self._approximate = ApproximateRows(faiss_file(index), self._table, looked_through)
        self._encoder = Encoder(Path(str(known["query_embedding"])), "query_embedding", device)
        if self._encoder.size != self._table.shape[1]:
            raise InputError(f"{file}: the question's model gives {self._encoder.size} numbers: {rebuild}")
        self._asked: tuple[str, NDArray[np.float32]] | None = None

    def nearest(self, query: str, count: int, among: Sequence[int] | None = None) -> list[tuple[int, float]]:
        """(passage's number, dot product), best first; of equal ones the first in the index. See `Vectors`."""
        if self._asked is None or self._asked[0] != query:  # a walk asks again for more
            self._asked = query, self._encoder.query(query)
        wanted = self._asked[1]
        if among is not None:
            of_numbers = np.searchsorted(self._numbers, np.asarray(among, dtype=np.int64))
            places, scores = exact_rows(self._table[of_numbers], wanted, count)
            rows = of_numbers[places]
        elif self._approximate is not None:
            rows, scores = self._approximate.nearest(wanted, count)
        else:
            rows, scores = exact_rows(self._table, wanted, count)
        return list(zip(self._numbers[rows].tolist(), scores.tolist(), strict=True))


def _passages(connection: sqlite3.Connection) -> Iterator[list[tuple[str, str]]]:
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM passages JOIN documents ON documents.id = passages.document ORDER BY passages.id"
    )
    while some := rows.fetchmany(_CHUNK):
        found = [found_of(row) for row in some]
        yield [(one.title, one.text) for one in found]
