"""An approximate index of the vectors, by faiss: inverted lists of bytes, whose candidates are compared exactly.

The vectors are divided among the nearest of 4·√n centres (k-means), a byte a number. A search looks through the lists
of the nearest centres alone, and scores what it finds there with the exact vectors: a passage that is found has the
score that the exact search gives it. How many lists are looked through is measured when the index is built: as few as
find `RECALL` of the 10 best.

Johnson et al. 2021, https://doi.org/10.1109/TBDATA.2019.2921572; https://github.com/facebookresearch/faiss.
"""

import math
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from medqlora.errors import InputError

Table: TypeAlias = "NDArray[np.float16]"
Rows: TypeAlias = "NDArray[np.int64]"
#: share of the exact search's 10 best that has to be found
RECALL = 0.99
_BEST = 10
#: searches that measure it
_PROBES = 200
#: rows of a block
_ROWS = 65_536
#: vectors for each centre that k-means looks at
_POINTS = 64
#: a request for a larger share of all passages is answered exactly
_LARGE = 0.05


class Approximation(NamedTuple):
    """What was built.

    Attributes:
        lists: their number.
        looked_through: lists of a search.
        recall: share of the 10 best that it found when it was built.
    """

    lists: int
    looked_through: int
    recall: float


def check_faiss(option: str) -> None:
    """Raises InputError where faiss is not installed."""
    try:
        import faiss  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{option}: faiss is missing: pip install 'medqlora[faiss]', or `medqlora index embed --vectors exact`"
        ) from error


def build_approximation(table: Table, file: Path) -> Approximation:
    """Builds the index of a table, and writes it. The same table gives the same bytes.

    Args:
        table: [passages, size], at least one row.
        file: where it is written.
    """
    import faiss

    count, size = table.shape
    lists = max(1, min(int(4 * math.sqrt(count)), count // 39))  # faiss wants 39 vectors a centre
    centres = faiss.IndexFlatIP(size)
    kind, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFScalarQuantizer(centres, size, lists, kind, metric, False)
    index.cp.max_points_per_centroid = _POINTS
    index.cp.min_points_per_centroid = 1  # of small tables it would complain
    index.cp.niter = 10
    sample = np.linspace(0, count - 1, min(count, lists * _POINTS)).astype(np.int64)
    index.train(table[sample].astype(np.float32))
    for start in range(0, count, _ROWS):
        index.add(table[start : start + _ROWS].astype(np.float32))
    probes = _probes(table)
    expected = [set(exact_rows(table, probe, _BEST)[0].tolist()) for probe in probes]
    looked_through, recall = 1, 0.0
    while True:
        index.nprobe = looked_through
        _, found = index.search(probes, 4 * _BEST)
        hits = 0
        for probe, rows, wanted in zip(probes, found, expected, strict=True):
            best, _ = _rescored(table, probe, rows[rows >= 0], _BEST)
            hits += len(wanted & set(best.tolist()))
        recall = hits / sum(map(len, expected))
        if recall >= RECALL or looked_through == lists:
            break
        looked_through = min(2 * looked_through, lists)
    faiss.write_index(index, str(file))
    return Approximation(lists, looked_through, round(recall, 4))


class ApproximateRows:
    """Opens the index of a table.

    Args:
        file: as `build_approximation` wrote it; its lists stay in the file until they are read.
        table: the vectors.
        looked_through: lists of a search.

    Raises:
        InputError: the file is damaged or of another table.
    """

    def __init__(self, file: Path, table: Table, looked_through: int) -> None:
        import faiss

        try:
            read = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise InputError(f"{file}: is damaged: write it again with `medqlora index embed`") from error
        if (read.ntotal, read.d) != table.shape:
            raise InputError(f"{file}: of other vectors: write it again with `medqlora index embed`")
        self._index = read
        faiss.extract_index_ivf(read).nprobe = looked_through
        self._table = table

    def nearest(self, query: "NDArray[np.float32]", count: int) -> tuple[Rows, "NDArray[np.float32]"]:
        """The rows of the highest dot products with their values, best first; of equal ones the first in the table."""
        if count > _LARGE * len(self._table):
            return exact_rows(self._table, query, count)
        _, found = self._index.search(query[None], 4 * count)
        return _rescored(self._table, query, found[0][found[0] >= 0], count)


def exact_rows(table: Table, query: "NDArray[np.float32]", count: int) -> tuple[Rows, "NDArray[np.float32]"]:
    """The same, of all rows."""
    scores = np.concatenate(
        [table[start : start + _ROWS].astype(np.float32) @ query for start in range(0, len(table), _ROWS)]
    )
    count = min(count, len(scores))
    best = np.argpartition(-scores, count - 1)[:count] if count else np.empty(0, dtype=np.int64)
    order = np.lexsort((best, -scores[best]))
    return best[order], scores[best[order]]


def _rescored(
    table: Table, query: "NDArray[np.float32]", rows: Rows, count: int
) -> tuple[Rows, "NDArray[np.float32]"]:
    rows = np.sort(rows)
    scores = table[rows].astype(np.float32) @ query
    order = np.lexsort((rows, -scores))[:count]
    return rows[order], scores[order]


def _probes(table: Table) -> "NDArray[np.float32]":
    """[probes, size] means of two vectors: a question lies between passages more often than on one."""
    places = np.linspace(0, len(table) - 1, min(len(table), _PROBES)).astype(np.int64)
    vectors = table[places].astype(np.float32)
    return np.ascontiguousarray((vectors + np.roll(vectors, 1, axis=0)) / 2)
