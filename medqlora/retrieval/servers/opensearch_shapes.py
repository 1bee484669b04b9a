"""The requests to OpenSearch, and passages as its documents: pure functions.

Mapping: https://docs.opensearch.org/latest/field-types/, queries: https://docs.opensearch.org/latest/query-dsl/,
k-NN: https://docs.opensearch.org/latest/vector-search/. A document is one passage:

    {"key": "pmid:29768149", "pmid": "29768149", "title": "…", "text": "…", "section": "ABSTRACT", "number": 12…}
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from medqlora.retrieval.documents import Document, Passage, passages_of
from medqlora.retrieval.search import Filters
from medqlora.retrieval.store import Found
from medqlora.utils.types import Json

#: raised when the mapping changes
VERSION = 1
_KEYWORD: dict[str, Json] = {"type": "keyword"}
_INTEGER: dict[str, Json] = {"type": "integer"}
_BOOLEAN: dict[str, Json] = {"type": "boolean"}
_STORED: dict[str, Json] = {"type": "text", "index": False}
_ANALYSIS: dict[str, Json] = {
    "analyzer": {
        "stemmed": {
            "type": "custom",
            "tokenizer": "standard",
            "filter": ["lowercase", "asciifolding", "porter_stem"],
        }
    },
    "normalizer": {"lower": {"type": "custom", "filter": ["lowercase"]}},
}


def index_body(meta: dict[str, Json], size: int | None, shards: int, replicas: int) -> dict[str, Json]:
    """Settings and mapping of a new index.

    Args:
        meta: what the mapping says of it.
        size: numbers of a vector; None for none.
        shards, replicas: of the index.
    """
    properties: dict[str, Json] = {
        **dict.fromkeys(("key", "ident", "source", "pmid", "pmcid", "doi"), _KEYWORD),
        **dict.fromkeys(("journal", "licence", "section", "title", "text", "parts"), _STORED),
        "words": {"type": "text", "analyzer": "stemmed", "index_options": "freqs"},
        "mesh": {"type": "keyword", "normalizer": "lower"},
        **dict.fromkeys(("year", "version", "passages", "start", "end"), _INTEGER),
        **dict.fromkeys(("retracted", "animal"), _BOOLEAN),
        "number": {"type": "long"},
    }
    index: dict[str, Json] = {"number_of_shards": shards, "number_of_replicas": replicas}
    if size is not None:
        method: dict[str, Json] = {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"}
        properties["vector"] = {"type": "knn_vector", "dimension": size, "method": method}
        index["knn"] = True
    return {
        "settings": {"index": index, "analysis": _ANALYSIS},
        "mappings": {"dynamic": "strict", "_meta": meta, "properties": properties},
    }


def meta_of(words: int, vectors: str | None) -> dict[str, Json]:
    """What the mapping says of a new index: the words of its passages, and the digest of its vectors' model."""
    return {"medqlora": VERSION, "words": words, "vectors": vectors, "content": "", "complete": False}


def passage_id(key: str, place: int) -> str:
    """The id of a document's passage; of fixed length, since OpenSearch takes 512 bytes."""
    return hashlib.blake2b(f"{key}#{place}".encode("utf-8", "replace"), digest_size=16).hexdigest()


def number_of(ident: str) -> int:
    """The passage's number: 63 bits of its id."""
    return int(ident[:16], 16) >> 1


def sources_of(document: Document, words: int) -> Iterator[tuple[str, dict[str, Json]]]:
    """(id, fields) of each passage of a document; one of a title alone has a passage without text."""
    passages = list(passages_of(document, words)) or [Passage("TITLE", "", 0, 0)]
    shared: dict[str, Json] = {
        **{
            name: getattr(document, name)
            for name in ("key", "ident", "source", "title", "pmid", "pmcid", "doi", "journal", "licence")
        },
        **{name: getattr(document, name) for name in ("year", "retracted", "animal", "version")},
        "mesh": list(document.mesh),
        "passages": len(passages),
    }
    for place, one in enumerate(passages):
        ident = passage_id(document.key, place)
        yield (
            ident,
            {
                **shared,
                "number": number_of(ident),
                "section": one.section,
                "text": one.text,
                "words": f"{document.title}\n{one.text}",
                "start": one.start,
                "end": one.end,
                "parts": json.dumps(one.parts, ensure_ascii=False, separators=(",", ":")),
            },
        )


def found_of_source(source: Mapping[str, Json]) -> Found:
    """A passage from its fields.

    Raises:
        KeyError, TypeError, ValueError: they are of another mapping.
    """

    def text(name: str) -> str:
        return str(source[name])

    def whole(name: str) -> int:
        value = source[name]
        if not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}")
        return value

    return Found(
        id=whole("number"),
        key=text("key"),
        ident=text("ident"),
        source=text("source"),
        title=text("title"),
        pmid=text("pmid"),
        pmcid=text("pmcid"),
        doi=text("doi"),
        journal=text("journal"),
        year=None if source.get("year") is None else whole("year"),
        licence=text("licence"),
        retracted=bool(source["retracted"]),
        animal=bool(source["animal"]),
        section=text("section"),
        text=text("text"),
        start=whole("start"),
        end=whole("end"),
        parts=tuple((str(label), int(first), int(last)) for label, first, last in json.loads(text("parts"))),
    )


def filter_clauses(filters: Filters) -> list[Json]:
    """The clauses of a bool query's `filter`."""
    clauses: list[Json] = []
    if filters.mesh:
        clauses.append({"terms": {"mesh": list(filters.mesh)}})
    span = {
        name: year
        for name, year in (("gte", filters.year_from), ("lte", filters.year_to))
        if year is not None
    }
    if span:
        clauses.append({"range": {"year": dict(span)}})
    clauses += [] if filters.retracted else [{"term": {"retracted": False}}]
    clauses += [] if filters.animal else [{"term": {"animal": False}}]
    return clauses


def by_words(words: Iterable[str], count: int, filters: Filters) -> dict[str, Json]:
    """A search for passages with any of the words, by BM25; numbers alone come back."""
    should: list[Json] = [{"match": {"words": {"query": word}}} for word in words]
    query: dict[str, Json] = {
        "bool": {"should": should, "minimum_should_match": 1, "filter": filter_clauses(filters)}
    }
    return {**_NUMBERS, "size": count, "query": query, "sort": [{"_score": "desc"}, {"number": "asc"}]}


def by_vector(vector: Sequence[float], count: int, filters: Filters) -> dict[str, Json]:
    """A search for the nearest passages; numbers alone come back."""
    nearest: dict[str, Json] = {"vector": list(vector), "k": count}
    if clauses := filter_clauses(filters):
        nearest["filter"] = {"bool": {"filter": clauses}}
    return {**_NUMBERS, "size": count, "query": {"knn": {"vector": nearest}}}


def details(numbers: Sequence[int], words: Iterable[str]) -> dict[str, Json]:
    """The fields of passages, and which of the words each holds, as `matched_queries`."""
    named: list[Json] = [{"match": {"words": {"query": word, "_name": word}}} for word in words]
    query: dict[str, Json] = {"filter": [{"terms": {"number": list(numbers)}}], "should": named}
    return {
        "size": len(numbers),
        "track_total_hits": False,
        "_source": {"excludes": ["words", "vector"]},
        "query": {"bool": query},
    }


def counted(word: str | None) -> dict[str, Json]:
    """A search that returns nothing but the number of passages with a word; None for all passages."""
    query: dict[str, Json] = {"match_all": {}} if word is None else {"match": {"words": {"query": word}}}
    return {"size": 0, "track_total_hits": True, "query": query}


#: of a search for numbers
_NUMBERS: dict[str, Json] = {"track_total_hits": False, "_source": ["number"]}
