"""What is searched: an index file, or an index on a server, by the same calls."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, get_args

from medqlora.retrieval.documents import Entry
from medqlora.retrieval.search import Filters, Hit
from medqlora.retrieval.store import Found
from medqlora.utils.types import Json

#: "words" is BM25, "vectors" the embeddings' similarity, "both" their fusion; "auto" takes both where there are vectors
Ranking = Literal["auto", "words", "vectors", "both"]
RANKINGS: tuple[str, ...] = get_args(Ranking)


_ALL = Filters()


class Searchable(Protocol):
    """Passages by relevance. `Index` is one; for another, see `docs/evidence.md`."""

    @property
    def meta(self) -> Mapping[str, str]:
        """What the index says of itself: `content`, a digest of what it holds, and `words`."""

    def search(self, query: str, count: int, filters: Filters = _ALL) -> list[Hit]:
        """The best `count` passages, best first."""

    def walk(self, query: str, filters: Filters, most: int) -> Iterator[Hit]:
        """The passages from best to worst, at most `most`."""

    def fetch(self, numbers: Sequence[int]) -> dict[int, Found]:
        """Number → passage, of those that the index holds."""

    def close(self) -> None:
        """Closes files and connections."""


class Written(NamedTuple):
    """What a batch of entries did to an index.

    Attributes:
        added, replaced, deleted, ignored: documents; `ignored` are older versions.
    """

    added: int = 0
    replaced: int = 0
    deleted: int = 0
    ignored: int = 0


class IndexServer(Searchable, Protocol):
    """An index on a server. Its constructor takes the description's `init_args`, and connects to nothing."""

    def open(self, option: str) -> None:
        """Connects, and checks that the index is there and complete. Raises InputError."""

    def select(self, ranking: Ranking, reranker: str | None, device: str) -> None:
        """Sets how passages are ranked, as `open_for_search` explains. Raises InputError."""

    def create(self, words: int, option: str, *, overwrite: bool) -> None:
        """Makes an empty index for passages of at most `words` words. Raises InputError."""

    def write(self, entries: Sequence[tuple[Entry, str]]) -> Written:
        """Writes documents and deletions, each with its file's name, in order. Writing them again changes nothing."""

    def finish(self) -> None:
        """Makes what was written findable, and marks the index as complete."""

    def describe(self) -> dict[str, Json]:
        """What it holds, as plain values."""
