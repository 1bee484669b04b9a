"""Near-duplicates: pairs of questions whose wording is nearly the same, within a set and across sets.

The similarity is the Jaccard index of the runs of 3 words ("shingles") of question and contexts
(Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900). Pairs are compared that share a rare run, so the cost does
not grow with the square of the number of questions.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from medqlora.data.checks import content
from medqlora.evaluation.contamination import Hashes, Numbers, run_hashes
from medqlora.records import Record

#: words in a run
RUN_WORDS = 3
#: Jaccard index from which two questions count as nearly the same
SIMILAR = 0.5
#: questions that are compared at most: the first of the sets
MOST = 20_000
#: a run in more questions than this is common wording, and finds no pairs
_COMMON = 30
#: pairs that are compared at most, those with the most shared rare runs first
_PAIRS = 50_000


class NearPair(NamedTuple):
    """Two questions with nearly the same wording.

    Attributes:
        first, second: their indices among the records.
        similarity: shared runs over all runs of both, from `SIMILAR` to 1.
    """

    first: int
    second: int
    similarity: float


def near_duplicates(records: Sequence[Record]) -> list[NearPair]:
    """The pairs, the most similar first. Questions with equal texts are duplicates, and no pair.

    Args:
        records: of all sets; those after the first `MOST` are left out.
    """
    records = records[:MOST]
    runs = [run_hashes((record.question, " ".join(record.contexts)), RUN_WORDS) for record in records]
    pairs = []
    for first, second in _candidates(runs):
        shared = len(np.intersect1d(runs[first], runs[second], assume_unique=True))
        similarity = shared / (len(runs[first]) + len(runs[second]) - shared)
        if similarity >= SIMILAR and content(records[first]) != content(records[second]):
            pairs.append(NearPair(first, second, similarity))
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _candidates(runs: Sequence[Hashes]) -> Iterator[tuple[int, int]]:
    """Pairs of indices that share rare runs, first < second; those with the most shared runs where there are many."""
    owners = np.repeat(np.arange(len(runs)), [len(part) for part in runs])
    hashes = np.concatenate([np.empty(0, np.uint64), *runs])
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if len(hashes) else owners
    sizes = np.diff(np.append(starts, len(hashes)))
    keys: list[Numbers] = [np.empty(0, np.int64)]
    for size in range(2, _COMMON + 1):
        begins = starts[sizes == size]
        if len(begins):
            members = owners[begins[:, None] + np.arange(size)]
            left, right = np.triu_indices(size, 1)
            keys.append((members[:, left].astype(np.int64) * len(runs) + members[:, right]).ravel())
    pairs, shared = np.unique(np.concatenate(keys), return_counts=True)
    for key in pairs[np.argsort(-shared, kind="stable")][:_PAIRS].tolist():
        yield divmod(int(key), len(runs))
