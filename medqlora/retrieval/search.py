"""Searches an index: BM25 over stemmed words, with filters; and with vectors beside it, both rankings fused."""

import math
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from medqlora.errors import InputError
from medqlora.retrieval.documents import with_title
from medqlora.retrieval.fusion import reciprocal_rank_fusion
from medqlora.retrieval.query import MOST_TERMS, WORD, query_words
from medqlora.retrieval.store import COLUMNS, TOKENIZER, Found, found_of, open_index, read_meta

#: postings that a query reads at most, rarest terms first: a word in most passages tells none of them apart
POSTINGS = 12_000
#: candidates of each ranking before they are fused
CANDIDATES = 100
#: words whose stems are kept in memory
_REMEMBERED = 500_000
#: passages that a filter keeps are compared one by one up to this number
_FEW = 100_000
#: values of one statement; SQLite takes 32,766
_MOST_VALUES = 10_000


@dataclass(frozen=True)
class Filters:
    """Passages that a search leaves out.

    Args:
        mesh: keep documents with one of these MeSH headings.
        year_from, year_to: keep documents of these years, both included; a document without a year is left out.
        retracted: also keep retracted articles.
        animal: also keep studies of animals alone.
    """

    mesh: tuple[str, ...] = ()
    year_from: int | None = None
    year_to: int | None = None
    retracted: bool = False
    animal: bool = True

    def sql(self) -> tuple[str, list[object]]:
        """A condition on `documents`, with its values; "" for none."""
        parts: list[str] = []
        values: list[object] = []
        if self.mesh:
            marks = ", ".join("?" * len(self.mesh))
            parts.append(f"documents.id IN (SELECT document FROM headings WHERE heading IN ({marks}))")
            values += self.mesh
        for sign, year in ((">=", self.year_from), ("<=", self.year_to)):
            if year is not None:
                parts.append(f"documents.year {sign} ?")
                values.append(year)
        parts += [] if self.retracted else ["NOT documents.retracted"]
        parts += [] if self.animal else ["NOT documents.animal"]
        return " AND ".join(parts), values


class Hit(NamedTuple):
    """A found passage.

    Attributes:
        passage: it, with its provenance.
        score: what the ranking sorted by, higher is better: BM25, or the sum of the fusion.
        coverage: how much of the query the passage holds, 0 to 1: its terms weighted by how rare they are.
    """

    passage: Found
    score: float
    coverage: float


class Vectors(Protocol):
    """Passages by the similarity of their embeddings (`medqlora.retrieval.vectors`)."""

    def nearest(self, query: str, count: int, among: Sequence[int] | None = None) -> list[tuple[int, float]]:
        """(passage's number, similarity), best first; of all passages, or of those numbers, which are in order."""


class Reranker(Protocol):
    """Scores pairs of question and passage (`medqlora.retrieval.embedding`)."""

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One for each text, higher is better."""


@dataclass
class Index:
    """An open index.

    Args:
        path: the file.
        connection: as `open_index` gives it.
        vectors: for a ranking by embeddings beside BM25.
        reranker: orders the best candidates anew.
        lexical: whether BM25 is used; False ranks by vectors alone.
    """

    path: Path
    connection: sqlite3.Connection
    vectors: Vectors | None = None
    reranker: Reranker | None = None
    lexical: bool = True
    _counts: dict[str, int] = field(default_factory=dict)
    _stem_of: dict[str, str] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        # the stemmer that indexed the passages also reads the questions: a table in memory, rolled back after each
        self._stemmer = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._stemmer.execute(f"CREATE VIRTUAL TABLE words USING fts5 (word, tokenize='{TOKENIZER}')")
        self._stemmer.execute("CREATE VIRTUAL TABLE stems USING fts5vocab (words, instance)")
        self.connection.execute("PRAGMA cache_size = -32768")
        self.connection.execute("PRAGMA mmap_size = 1073741824")
        self.passages = int(self.connection.execute("SELECT count(*) FROM passages").fetchone()[0])

    @classmethod
    def open(cls, path: str | Path, option: str = "INDEX") -> "Index":
        """The index at `path`, without vectors.

        Raises:
            InputError: there is no such index.
        """
        try:
            return cls(Path(path).expanduser(), open_index(path, option))
        except sqlite3.DatabaseError as error:
            raise InputError(f"{option}: {path} is damaged ({error}): build it again") from error

    def close(self) -> None:
        """Closes the files."""
        self.connection.close()
        self._stemmer.close()

    @property
    def meta(self) -> dict[str, str]:
        """What the index says of itself."""
        return read_meta(self.connection)

    # ---- searching -------------------------------------------------------------------------------------

    def search(self, query: str, count: int, filters: Filters = Filters()) -> list[Hit]:  # frozen
        """The best `count` passages, best first; of equal ones the first in the index.

        Raises:
            InputError: the index is damaged.
        """
        with self._lock:  # a service asks from several threads
            return self._search(query, count, filters)

    def _search(self, query: str, count: int, filters: Filters) -> list[Hit]:
        try:
            terms = self.terms(query)
            if self.vectors is None and self.reranker is None:
                ranked = self._by_words(terms, count, filters)
            else:
                ranked = self._fused(query, terms, max(count, CANDIDATES), filters)
            found = self.fetch([number for number, _ in ranked[:count]])
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.path}: the index is damaged ({error}): build it again") from error
        covered = Coverage(self, terms)
        return [Hit(found[number], score, covered.of(found[number])) for number, score in ranked[:count]]

    def walk(self, query: str, filters: Filters, most: int) -> Iterator[Hit]:
        """The passages from best to worst, at most `most`, for a caller that leaves some out."""
        return walked(lambda count: self.search(query, count, filters), most)

    def terms(self, query: str) -> dict[str, tuple[str, float]]:
        """Stem → a word of the query with that stem, and its weight: the inverse document frequency of BM25.

        A stem that no passage has is kept, with the highest weight; it counts for the coverage.
        """
        words = query_words(query)
        terms: dict[str, tuple[str, float]] = {}
        for stem, word in zip(self.stems(words), words, strict=True):
            if stem:
                terms.setdefault(stem, (word, self._weight(stem)))
        return terms

    def _by_words(
        self, terms: Mapping[str, tuple[str, float]], count: int, filters: Filters
    ) -> list[tuple[int, float]]:
        """(passage's number, BM25), best first."""
        asked = self._rarest(terms)
        if not asked or count < 1:
            return []
        match = " OR ".join(f'"{word}"' for word in asked)
        condition, values = filters.sql()
        if condition:
            rows = self.connection.execute(
                "SELECT passages.id, -rank FROM passage_index JOIN passages ON passages.id = passage_index.rowid "
                f"JOIN documents ON documents.id = passages.document WHERE passage_index MATCH ? AND {condition} "
                "ORDER BY rank LIMIT ?",
                (match, *values, count),
            )
        else:
            rows = self.connection.execute(
                "SELECT rowid, -rank FROM passage_index WHERE passage_index MATCH ? ORDER BY rank LIMIT ?",
                (match, count),
            )
        return sorted(rows.fetchall(), key=lambda row: (-row[1], row[0]))

    def _fused(
        self, query: str, terms: Mapping[str, tuple[str, float]], count: int, filters: Filters
    ) -> list[tuple[int, float]]:
        """The rankings by words and by vectors in one, and then in the cross-encoder's order."""
        rankings = []
        if self.lexical:
            rankings.append(self._by_words(terms, count, filters))
        if self.vectors is not None:
            rankings.append(self._by_vectors(self.vectors, query, count, filters))
        fused = reciprocal_rank_fusion(rankings)
        if self.reranker is None:
            return fused
        best = [number for number, _ in fused[:count]]
        texts = self.fetch(best)
        scores = self.reranker.scores(query, [shown_text(texts[number]) for number in best])
        return sorted(zip(best, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))

    def _by_vectors(
        self, vectors: Vectors, query: str, count: int, filters: Filters
    ) -> list[tuple[int, float]]:
        """(passage's number, similarity), best first.

        The nearest are filtered; where a filter leaves too few of them, what it keeps is compared.
        """
        size = 4 * count
        while True:
            near = vectors.nearest(query, size)
            kept = self._kept([number for number, _ in near], filters)
            ranked = [pair for pair in near if pair[0] in kept][:count]
            if len(ranked) == count or size >= self.passages:
                return ranked
            if (few := self._few(filters)) is not None:
                return vectors.nearest(query, count, few)
            size *= 8

    def _few(self, filters: Filters) -> list[int] | None:
        """The passages that the filters keep, in order; None where they are many."""
        condition, values = filters.sql()
        rows = self.connection.execute(
            "SELECT passages.id FROM passages JOIN documents ON documents.id = passages.document "
            f"WHERE {condition or '1'} LIMIT ?",
            [*values, _FEW + 1],
        ).fetchall()
        return None if len(rows) > _FEW else sorted(row[0] for row in rows)

    # ---- the database ----------------------------------------------------------------------------------

    def stems(self, words: Sequence[str]) -> list[str]:
        """The stem of each word; "" for one that the tokenizer takes for none."""
        new = [word for word in dict.fromkeys(words) if word not in self._stem_of]
        if new:
            if len(self._stem_of) > _REMEMBERED:
                self._stem_of.clear()
                new = list(dict.fromkeys(words))
            self._stemmer.execute("BEGIN")
            self._stemmer.executemany("INSERT INTO words (rowid, word) VALUES (?, ?)", enumerate(new))
            self._stem_of.update(dict.fromkeys(new, ""))
            rows = self._stemmer.execute("SELECT doc, term FROM stems ORDER BY doc, offset DESC")
            self._stem_of.update((new[number], stem) for number, stem in rows)
            self._stemmer.execute("ROLLBACK")
        return [self._stem_of[word] for word in words]

    def _count(self, stem: str) -> int:
        """In how many passages a stem occurs."""
        if stem not in self._counts:
            row = self.connection.execute("SELECT passages FROM terms WHERE term = ?", (stem,)).fetchone()
            if row is None:  # a rare one is counted in the full-text index itself
                row = self.connection.execute("SELECT doc FROM vocabulary WHERE term = ?", (stem,)).fetchone()
            self._counts[stem] = 0 if row is None else int(row[0])
        return self._counts[stem]

    def _weight(self, stem: str) -> float:
        """log((N - n + 0.5) / (n + 0.5)), at least 1e-6: as FTS5's own."""
        return rarity(self._count(stem), self.passages)

    def _rarest(self, terms: Mapping[str, tuple[str, float]]) -> list[str]:
        """Words of the terms that are searched, within `POSTINGS`; the rarest always."""
        asked: list[str] = []
        postings = 0
        for stem, (word, _) in sorted(terms.items(), key=lambda item: (self._count(item[0]), item[0])):
            count = self._count(stem)
            postings += count
            if asked and (postings > POSTINGS or len(asked) >= MOST_TERMS):
                break
            if count:
                asked.append(word)
        return asked

    def fetch(self, numbers: Sequence[int]) -> dict[int, Found]:
        """Number → passage, of those that the index holds."""
        marks = ", ".join("?" * len(numbers))
        rows = self.connection.execute(
            f"SELECT {COLUMNS} FROM passages JOIN documents ON documents.id = passages.document "
            f"WHERE passages.id IN ({marks})",
            list(numbers),
        )
        return {row[0]: found_of(row) for row in rows}

    def _kept(self, numbers: Sequence[int], filters: Filters) -> set[int]:
        """Those that the filters keep."""
        condition, values = filters.sql()
        kept: set[int] = set()
        for start in range(0, len(numbers), _MOST_VALUES):
            some = numbers[start : start + _MOST_VALUES]
            marks = ", ".join("?" * len(some))
            rows = self.connection.execute(
                "SELECT passages.id FROM passages JOIN documents ON documents.id = passages.document "
                f"WHERE passages.id IN ({marks}) AND {condition or '1'}",
                [*some, *values],
            )
            kept.update(row[0] for row in rows)
        return kept


def rarity(count: int, passages: int) -> float:
    """The inverse document frequency of BM25 of a term in `count` of `passages`, at least 1e-6: as FTS5's own."""
    return max(1e-6, math.log((passages - count + 0.5) / (count + 0.5)))


def walked(search: Callable[[int], list[Hit]], most: int) -> Iterator[Hit]:
    """The hits from best to worst, each once, at most `most`, for a caller that leaves some out.

    A deeper search fuses more candidates, and may order those of the search before anew.

    Args:
        search: the best hits of that number.
        most: hits.
    """
    seen: set[int] = set()
    size = 0
    while size < most:
        size = min(4 * size or 16, most)
        hits = search(size)
        for hit in hits:
            if hit.passage.id not in seen:
                seen.add(hit.passage.id)
                yield hit
        if len(hits) < size:
            return


class Coverage:
    """How much of a query passages hold.

    Args:
        index: its stemmer reads the passages.
        terms: of the query, with weights.
    """

    def __init__(self, index: Index, terms: Mapping[str, tuple[str, float]]) -> None:
        self._index, self._terms = index, terms
        self._total = sum(weight for _, weight in terms.values())

    def of(self, passage: Found) -> float:
        """Share of the query's weight in the passage and its title, 0 to 1."""
        if not self._total:
            return 0.0
        words = set(WORD.findall(f"{passage.title} {passage.text}".casefold()))
        held = set(self._index.stems(sorted(words)))
        return sum(weight for stem, (_, weight) in self._terms.items() if stem in held) / self._total


def shown_text(passage: Found) -> str:
    """Title and text of a passage, as an encoder reads them."""
    return with_title(passage.title, passage.text)
