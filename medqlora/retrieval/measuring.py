"""Measures an index: rankings of judged questions, and the time of questions."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from medqlora.retrieval.search import Filters
from medqlora.retrieval.searchable import Searchable

#: documents of a ranking
DEPTH = 100
#: questions are asked about articles whatever their marks
_ALL = Filters(retracted=True)


class Timed(NamedTuple):
    """Rankings, and the seconds that each question took."""

    rankings: dict[str, list[str]]
    seconds: list[float]

    def millisecond(self, share: float) -> float:
        """The time below which this share of the questions was answered, in ms."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def rank_documents(
    index: Searchable,
    queries: Mapping[str, str],
    filters: Filters = _ALL,
    depth: int = DEPTH,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Timed:
    """Ranks the ids of documents for each query, each document by its best passage.

    Args:
        index: with its ranking.
        queries: id → text.
        filters: passages that are left out.
        depth: passages of a ranking.
        progress: see `medqlora.retrieval.build.Progress`.
    """
    rankings: dict[str, list[str]] = {}
    seconds = []
    for number, (ident, text) in enumerate(queries.items(), 1):
        started = time.perf_counter()
        hits = index.search(text, depth, filters)
        seconds.append(time.perf_counter() - started)
        rankings[ident] = list(dict.fromkeys(hit.passage.ident for hit in hits))
        progress("asking", number, len(queries))
    return Timed(rankings, seconds)
