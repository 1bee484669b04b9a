"""An index on an OpenSearch server, for literature that outgrows one machine's disk or memory.

BM25 and, where passages have vectors, k-NN run on the server; the fusion of both rankings is that of index files.
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.errors import InputError
from medqlora.retrieval.documents import Document, Entry
from medqlora.retrieval.fusion import reciprocal_rank_fusion
from medqlora.retrieval.query import MOST_TERMS, query_words
from medqlora.retrieval.search import CANDIDATES, Filters, Hit, rarity, shown_text, walked
from medqlora.retrieval.searchable import Ranking, Written
from medqlora.retrieval.servers import opensearch_shapes as shapes
from medqlora.retrieval.servers.opensearch_calls import (
    Place,
    answers,
    check_values,
    connect,
    contents,
    known,
    passages_with,
    send,
    stems_of,
)
from medqlora.retrieval.store import Found
from medqlora.utils.types import Json

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from medqlora.retrieval.embedding import CrossEncoder, Encoder


_ALL = Filters()


@dataclass
class OpenSearchIndex:
    """An index on an OpenSearch server (2.9 or newer with vectors; else any).

    Args:
        url: the server's, as https://localhost:9200.
        name: of the index, in lower case.
        user: to log in with; the password is read from `OPENSEARCH_PASSWORD`. None for a server without.
        certificates: a file of certificate authorities, where the server's is not a public one.
        embedding: folder of a sentence-embedding model: passages get vectors, and both rankings are fused.
        query_embedding: the model of the questions, where it is another.
        shards, replicas: of a new index.
        timeout_s: a request may take this long.
    """

    url: str
    name: str
    user: str | None = None
    certificates: str | None = None
    embedding: str | None = None
    query_embedding: str | None = None
    shards: int = 1
    replicas: int = 0
    timeout_s: float = 60.0
    _option: str = field(default="INDEX", init=False)
    _ranking: Ranking = field(default="auto", init=False)
    _device: str = field(default="auto", init=False)
    _digest: str | None = field(default=None, init=False)
    _meta: dict[str, Json] = field(default_factory=dict, init=False)
    _counts: dict[str, int] = field(default_factory=dict, init=False)
    _reranker: "CrossEncoder | None" = field(default=None, init=False)
    _encoders: "dict[str, Encoder]" = field(default_factory=dict, init=False)
    _opened: "OpenSearch | None" = field(default=None, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)

    def __post_init__(self) -> None:
        """Raises InputError for values that no server makes right."""
        self.name = str(self.name)
        check_values(self)

    def client(self) -> "OpenSearch":
        """A new client; a class that derives from this one may give another, as for a cloud's way to sign requests.

        Raises:
            InputError: `opensearch-py` is missing, or there is no password for the user.
        """
        return connect(self._place, self.certificates, self.timeout_s)

    @property
    def meta(self) -> Mapping[str, str]:
        """`content`, a digest of what was written, and `words`."""
        return {"content": str(self._meta.get("content", "")), "words": str(self._meta.get("words", ""))}

    # ---- opening ---------------------------------------------------------------------------------------

    def open(self, option: str) -> None:
        """Connects, and checks that the index is there, complete and of this version. Raises InputError."""
        self._read_meta(option)
        if not self._meta.get("complete"):
            raise InputError(f"{option}: {self.name} is incomplete: run its `medqlora index build` again")
        if self.embedding is not None and self._meta.get("vectors") != self._model:
            raise InputError(
                f"{option}: {self.name} has vectors of another model, or none: correct embedding, or build it anew"
            )

    def close(self) -> None:
        """Closes the connections."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def select(self, ranking: Ranking, reranker: str | None, device: str) -> None:
        """Sets the ranking; loads the models that it needs.

        Raises:
            InputError: the description names no embedding for a ranking by vectors, or a folder holds no model.
        """
        self._ranking, self._device = ranking, device
        if ranking in ("vectors", "both") and self.embedding is None:
            raise InputError(
                f"--ranking {ranking}: the description of {self.name} names no embedding: add it"
            )
        if reranker is not None:
            from medqlora.retrieval.embedding import CrossEncoder

            self._reranker = CrossEncoder(Path(reranker).expanduser(), device=device)

    # ---- writing ---------------------------------------------------------------------------------------

    def create(self, words: int, option: str, *, overwrite: bool) -> None:
        """Makes an empty index; one that a killed build left is written on.

        Raises:
            InputError: there is a complete one and `overwrite` is False, or the server refuses.
        """
        self._option = option
        with self._answers() as client:
            there = client.indices.exists(index=self.name)
        if there and not overwrite:
            self._read_meta(option)
            if self._meta.get("complete"):
                raise InputError(
                    f"{option}: {self.name} exists: `medqlora index add` extends it, --overwrite replaces it"
                )
            if self._meta.get("words") == words and self._meta.get("vectors") == self._model:
                self._meta["content"] = ""
                return
        meta = shapes.meta_of(words, self._model)
        size = None if self.embedding is None else self._encoder(self.embedding, "embedding").size
        with self._answers() as client:
            if there:
                client.indices.delete(index=self.name)
            client.indices.create(
                index=self.name, body=shapes.index_body(meta, size, self.shards, self.replicas)
            )
        self._meta = meta

    def write(self, entries: Sequence[tuple[Entry, str]]) -> Written:
        """Writes documents and deletions, in order.

        A document's first passage is written last and deleted last: it says how many there are, so what a killed
        process left is put right by writing the same entries again.

        Raises:
            InputError: the server refuses, or doesn't answer.
        """
        if self._meta.get("vectors") != self._model:
            raise InputError(f"{self._option}: {self.name} has vectors: add embedding to its description")
        latest: dict[str, Entry] = {}
        ignored = 0
        found = hashlib.sha256(str(self._meta.get("content", "")).encode())
        for entry, _ in entries:
            found.update(repr(entry).encode("utf-8", "replace"))
            held = latest.get(entry.key)
            if isinstance(held, Document) and isinstance(entry, Document) and held.version > entry.version:
                ignored += 1
                continue
            latest[entry.key] = entry
        rest: list[dict[str, Json]] = []
        heads: list[dict[str, Json]] = []
        added = replaced = deleted = 0
        with self._answers() as client:
            held_before = known(client, self.name, list(latest))
            for key, entry in latest.items():
                version, before = held_before.get(key, (0, 0))
                if isinstance(entry, Document) and version > entry.version:
                    ignored += 1
                    continue
                made = self._actions(entry, before)
                rest += made[1:]
                heads += made[:1]
                added += isinstance(entry, Document) and not before
                replaced += isinstance(entry, Document) and before > 0
                deleted += not isinstance(entry, Document) and before > 0
            self._embed([*rest, *heads])
            send(client, self._place, rest)
            send(client, self._place, heads)
        self._meta["content"] = found.hexdigest()
        return Written(added, replaced, deleted, ignored)

    def finish(self) -> None:
        """Makes what was written findable, and marks the index as complete. Raises InputError."""
        with self._answers() as client:
            client.indices.refresh(index=self.name)
            if not client.count(index=self.name)["count"]:
                raise InputError("SOURCES: no document is left: nothing can be found")
            self._meta["complete"] = True
            client.indices.put_mapping(index=self.name, body={"_meta": self._meta})
        self._counts.clear()

    def describe(self) -> dict[str, Json]:
        """Documents, passages and marks. Raises InputError."""
        with self._answers() as client:
            return {
                "server": self.url,
                "index": self.name,
                **contents(client, self.name),
                "passage_words": self._meta.get("words"),
                "content_sha256": self._meta.get("content"),
                "vectors": self.embedding,
            }

    def _actions(self, entry: Entry, before: int) -> list[dict[str, Json]]:
        """The bulk actions of an entry, its first passage's first.

        Args:
            entry: a document or a deletion.
            before: passages that the index holds of it.
        """
        actions: list[dict[str, Json]] = []
        if isinstance(entry, Document):
            words = self._meta["words"]
            assert isinstance(words, int)
            actions = [
                {"_op_type": "index", "_index": self.name, "_id": ident, "_source": source}
                for ident, source in shapes.sources_of(entry, words)
            ]
        for place in range(len(actions), before):
            ident = shapes.passage_id(entry.key, place)
            actions.append({"_op_type": "delete", "_index": self.name, "_id": ident})
        return actions

    def _embed(self, actions: Sequence[Mapping[str, Json]]) -> None:
        """Adds the vectors to the passages that are written."""
        if self.embedding is None:
            return
        sources = [source for one in actions if isinstance(source := one.get("_source"), dict)]
        passages = [(str(source["title"]), str(source["text"])) for source in sources]
        vectors = self._encoder(self.embedding, "embedding").passages(passages)
        for source, vector in zip(sources, vectors, strict=True):
            source["vector"] = [float(number) for number in vector]

    # ---- searching -------------------------------------------------------------------------------------

    def search(self, query: str, count: int, filters: Filters = _ALL) -> list[Hit]:
        """The best `count` passages, best first. Raises InputError."""
        with self._lock, self._answers() as client:  # a service asks from several threads
            weights = self._weights(client, query)
            ranked = self._ranked(client, query, weights, count, filters)
            if self._reranker is not None:
                ranked = self._reranked(client, self._reranker, query, ranked)
            ranked = ranked[:count]
            found, held = self._details(client, [number for number, _ in ranked], weights)
        total = sum(weights.values())
        return [
            Hit(found[number], score, sum(weights[word] for word in held[number]) / total if total else 0.0)
            for number, score in ranked
            if number in found
        ]

    def walk(self, query: str, filters: Filters, most: int) -> Iterator[Hit]:
        """The passages from best to worst, at most `most`, for a caller that leaves some out."""
        return walked(lambda count: self.search(query, count, filters), most)

    def fetch(self, numbers: Sequence[int]) -> dict[int, Found]:
        """Number → passage, of those that the index holds. Raises InputError."""
        with self._lock, self._answers() as client:
            return self._details(client, numbers, {})[0]

    def _ranked(
        self, client: "OpenSearch", query: str, weights: Mapping[str, float], count: int, filters: Filters
    ) -> list[tuple[int, float]]:
        vectors = self.embedding is not None and self._ranking != "words"
        size = max(count, CANDIDATES) if vectors or self._reranker is not None else count
        rankings: list[list[tuple[int, float]]] = []
        if self._ranking != "vectors":
            rankings.append([])
            if weights:
                rankings[-1] = self._numbers(client, shapes.by_words(weights, size, filters))
        if vectors and self.embedding is not None:
            vector = self._encoder(self.query_embedding or self.embedding, "query_embedding").query(query)
            rankings.append(
                self._numbers(client, shapes.by_vector([float(one) for one in vector], size, filters))
            )
        return reciprocal_rank_fusion(rankings) if len(rankings) > 1 else rankings[0]

    def _numbers(self, client: "OpenSearch", body: dict[str, Json]) -> list[tuple[int, float]]:
        hits = client.search(index=self.name, body=body)["hits"]["hits"]
        return [(int(hit["_source"]["number"]), float(hit["_score"])) for hit in hits]

    def _reranked(
        self, client: "OpenSearch", reranker: "CrossEncoder", query: str, ranked: list[tuple[int, float]]
    ) -> list[tuple[int, float]]:
        best = [number for number, _ in ranked[:CANDIDATES]]
        found, _ = self._details(client, best, {})
        kept = [number for number in best if number in found]
        scores = reranker.scores(query, [shown_text(found[number]) for number in kept])
        return sorted(zip(kept, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))

    def _details(
        self, client: "OpenSearch", numbers: Sequence[int], weights: Mapping[str, float]
    ) -> tuple[dict[int, Found], dict[int, list[str]]]:
        """The passages by number, and the words that each holds."""
        if not numbers:
            return {}, {}
        hits = client.search(index=self.name, body=shapes.details(numbers, weights))["hits"]["hits"]
        found = {int(hit["_source"]["number"]): shapes.found_of_source(hit["_source"]) for hit in hits}
        held = {
            int(hit["_source"]["number"]): [str(word) for word in hit.get("matched_queries", ())]
            for hit in hits
        }
        return found, held

    def _weights(self, client: "OpenSearch", query: str) -> dict[str, float]:
        """Word → inverse document frequency, of one word of the query for each stem; the rarest."""
        words = query_words(query)
        if not words:
            return {}
        word_of: dict[str, str] = {}
        for word, stem in stems_of(client, self.name, words).items():
            word_of.setdefault(stem, word)
        new = [stem for stem in word_of if stem not in self._counts]
        if new:
            counts = passages_with(client, self.name, [None, *(word_of[stem] for stem in new)])
            self._counts |= dict(zip(["", *new], counts, strict=True))
        rarest = sorted(word_of, key=lambda stem: (self._counts[stem], stem))[:MOST_TERMS]
        return {word_of[stem]: rarity(self._counts[stem], self._counts[""]) for stem in rarest}

    # ---- the server ------------------------------------------------------------------------------------

    def _read_meta(self, option: str) -> None:
        self._option = option
        with self._answers() as client:
            mapping = client.indices.get_mapping(index=self.name)
            self._meta = dict(next(iter(mapping.values()))["mappings"].get("_meta") or {})
        if self._meta.get("medqlora") != shapes.VERSION:
            raise InputError(f"{option}: {self.name} is no index of this version of medqlora: build another")

    @property
    def _model(self) -> str | None:
        """The digest of the embedding's folder; None without."""
        if self.embedding is None:
            return None
        if self._digest is None:
            from medqlora.retrieval.embedding import check_folder, digest

            folder = Path(self.embedding).expanduser()
            check_folder(folder, "embedding")
            self._digest = digest(folder)
        return self._digest

    def _encoder(self, folder: str, option: str) -> "Encoder":
        if folder not in self._encoders:
            from medqlora.retrieval.embedding import Encoder

            self._encoders[folder] = Encoder(Path(folder).expanduser(), option, self._device)
        return self._encoders[folder]

    @contextmanager
    def _answers(self) -> "Iterator[OpenSearch]":
        """The client; its errors become InputErrors of one line."""
        if self._opened is None:
            self._opened = self.client()
        with answers(self._place):
            yield self._opened

    @property
    def _place(self) -> Place:
        return Place(self._option, self.url, self.name, self.user)
