"""Contexts from an index: a record goes in, the record with retrieved contexts comes out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from medqlora.config.retrieval import RetrievalOptions, parse_years
from medqlora.data.question_set import Evidence
from medqlora.evaluation.contamination import RUN_WORDS, Hashes, run_hashes
from medqlora.records import Record
from medqlora.retrieval.opening import open_for_search
from medqlora.retrieval.search import Filters, Hit
from medqlora.retrieval.searchable import Searchable
from medqlora.retrieval.store import Found

#: passages that are looked through at most, where many are left out
_DEEPEST = 1000
_WORD = re.compile(r"\w+")
#: a shorter text of a question proves no copy
_LEAST_WORDS = 8


class Retrieved(NamedTuple):
    """The contexts of one question.

    Attributes:
        record: the question with them.
        hits: the passages, best first, in the order of the contexts.
        evidence: what the report needs to know of them.
    """

    record: Record
    hits: list[Hit]
    evidence: Evidence


class Retriever:
    """Retrieves contexts for records.

    Args:
        index: an open index.
        k: passages for a question.
        filters: passages that are left out.
        max_tokens: tokens of the passages together; None for no limit.
        count_tokens: the number of tokens of a text; needed where `max_tokens` is given.
        exclude_source: leave out a question's own article and every copy of its texts.
        keep_contexts: keep the question's own contexts, before the passages.
        numbered: write [1], [2], … before the passages.
    """

    def __init__(
        self,
        index: Searchable,
        *,
        k: int = 3,
        filters: Filters = Filters(),  # noqa: B008  # frozen
        max_tokens: int | None = None,
        count_tokens: Callable[[str], int] = len,
        exclude_source: bool = False,
        keep_contexts: bool = False,
        numbered: bool = False,
    ) -> None:
        self.index = index
        self.k = k
        self.filters = filters
        self.max_tokens = max_tokens
        self.count_tokens = count_tokens
        self.exclude_source = exclude_source
        self.keep_contexts = keep_contexts
        self.numbered = numbered

    @classmethod
    def of(cls, options: RetrievalOptions, count_tokens: Callable[[str], int]) -> "Retriever":
        """The retriever of `--data.retrieval`.

        Raises:
            InputError: the index or a model can't be opened.
        """
        assert options.index is not None
        first, last = parse_years(options.years, "--data.retrieval.years")
        return cls(
            open_for_search(options.index, "--data.retrieval.index", options.ranking, options.reranker),
            k=options.k,
            filters=Filters(tuple(options.mesh or ()), first, last, options.retracted, options.animal),
            max_tokens=options.max_tokens,
            count_tokens=count_tokens,
            exclude_source=options.exclude_source,
            keep_contexts=options.keep_contexts,
            numbered=options.numbered,
        )

    def retrieve(self, record: Record, held_out: frozenset[str] | set[str] = frozenset()) -> Retrieved:
        """The record with its retrieved contexts.

        Args:
            record: the question; its answer and long answer are used to recognise copies of it alone.
            held_out: ids of test questions, whose articles are left out as well.

        Raises:
            InputError: the index is damaged.
        """
        own = OwnText(record)
        hits: list[Hit] = []
        excluded = tokens = 0
        found_rank: int | None = None
        found_coverage: float | None = None
        other_coverage: float | None = None
        for rank, hit in enumerate(self.index.walk(record.question, self.filters, _DEEPEST), 1):
            is_own = own.holds(hit.passage)
            if is_own and found_rank is None:
                found_rank, found_coverage = rank, hit.coverage
            if not is_own and other_coverage is None:
                other_coverage = hit.coverage
            if (is_own and self.exclude_source) or not held_out.isdisjoint(ids_of(hit.passage)):
                excluded += 1
                continue
            size = self.count_tokens(hit.passage.text) if self.max_tokens is not None else 0
            if hits and self.max_tokens is not None and tokens + size > self.max_tokens:
                break
            tokens += size
            hits.append(hit)
            if len(hits) >= self.k and (other_coverage is not None or rank > self.k):
                break
        hits = hits[: self.k]
        evidence = Evidence(
            found=found_rank is not None and found_rank <= self.k,
            excluded=excluded,
            passages=len(hits),
            coverage=max((hit.coverage for hit in hits), default=0.0),
            found_coverage=found_coverage,
            other_coverage=other_coverage,
            numbers=tuple(hit.passage.id for hit in hits),
        )
        return Retrieved(self._with_contexts(record, hits), hits, evidence)

    def _with_contexts(self, record: Record, hits: Sequence[Hit]) -> Record:
        contexts: list[str] = []
        labels: list[str] = []
        if self.keep_contexts:
            contexts += record.contexts
            labels += record.context_labels or [""] * len(record.contexts)
        for number, hit in enumerate(hits, 1):
            sections = hit.passage.sections()
            for place, (label, text) in enumerate(sections):
                mark = f"[{number}] " if self.numbered and place == 0 else ""
                contexts.append(f"{mark}{text or hit.passage.title}")
                labels.append(label)
        return replace(record, contexts=tuple(contexts), context_labels=tuple(labels))


def ids_of(passage: Found) -> set[str]:
    """The ids under which a question may know the passage's article."""
    return {passage.ident, passage.pmid, passage.pmcid, passage.doi} - {""}


class OwnText:
    """Recognises the article that a question was made from, by its ids and by copies of its text.

    Args:
        record: the question.
    """

    def __init__(self, record: Record) -> None:
        self._ids = {record.id, *record.aliases, *(part for part in record.id.split(":") if part.isdecimal())}
        texts = [record.question, " ".join(record.contexts), record.long_answer]
        words = [_WORD.findall(text.casefold()) for text in texts]
        long = [text for text, found in zip(texts, words, strict=True) if len(found) >= RUN_WORDS]
        self._hashes: Hashes = run_hashes(long)
        # contexts of fewer words than a run are found where the passage holds all of them
        whole = words[1]
        self._short = f" {' '.join(whole)} " if _LEAST_WORDS <= len(whole) < RUN_WORDS else ""

    def holds(self, passage: Found) -> bool:
        """Whether the passage is of the question's article, or shares `RUN_WORDS` words in a row with its texts."""
        if not self._ids.isdisjoint(ids_of(passage)):
            return True
        text = f"{passage.title}. {passage.text}"
        if len(self._hashes) and np.isin(run_hashes([text]), self._hashes, assume_unique=True).any():
            return True
        return bool(self._short) and self._short in f" {' '.join(_WORD.findall(text.casefold()))} "
