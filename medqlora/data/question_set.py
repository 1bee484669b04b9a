"""A tokenized set of test questions."""

from collections.abc import Mapping
from typing import NamedTuple

from medqlora.data.prompts import Prompt
from medqlora.data.sample import Sample
from medqlora.data.sources.source import Source
from medqlora.records import Encoded, Record


class Evidence(NamedTuple):
    """What was retrieved for a question.

    Attributes:
        found: whether the article that the question was made from is among the best k, before anything is left out.
        excluded: passages that were left out as the question's own article or a copy of its texts.
        passages: passages that the question was given.
        coverage: largest share of the question's words, weighted by rarity, that one of them holds, 0 to 1.
        found_coverage, other_coverage: that share of the question's own article, and of the best other passage; None
            where there is none.
    """

    found: bool
    excluded: int
    passages: int
    coverage: float
    found_coverage: float | None = None
    other_coverage: float | None = None
    numbers: tuple[int, ...] = ()


class WithRetrieval(NamedTuple):
    """What a set with retrieved contexts has besides them.

    Attributes:
        settings: index, number of passages and so on, for the report.
        evidence: id → what was retrieved, of `test` and `dev`.
        conditions: "question_alone" and, where the questions have contexts of their own, "gold_context"; each with the
            encoded test questions by id.
        own: id → the record with its own contexts.
    """

    settings: Mapping[str, object]
    evidence: Mapping[str, Evidence]
    conditions: Mapping[str, Mapping[str, Encoded]]
    own: Mapping[str, Record]


class QuestionSet(NamedTuple):
    """A set of questions that `test` evaluates.

    Attributes:
        source: the source of the questions.
        prompt: their prompt.
        records: id → record, of `test` and `dev`.
        test: the questions.
        dev: questions that the adapter did not learn, for the temperature; may be empty.
        content_free: the prompt with an empty question, for the labels' prior; None where the questions have
            different labels, or none.
        sample: what `test` is a sample of; None where it is all.
        retrieval: where the contexts were retrieved; else None.
        topics: that the questions were selected by; none for all.
    """

    source: Source
    prompt: Prompt
    records: Mapping[str, Record]
    test: list[Encoded]
    dev: list[Encoded]
    content_free: Encoded | None
    sample: Sample | None = None
    retrieval: WithRetrieval | None = None
    topics: tuple[str, ...] = ()

    @property
    def split(self) -> str:
        """The part of the source's questions that `test` holds, in words."""
        parts = ["test", *([str(self.sample)] if self.sample else [])]
        if self.topics:
            parts.append(f"({', '.join(self.topics)})")
        return " ".join(parts)

    def own_record(self, ident: str) -> Record:
        """The question as its source has it, without retrieved contexts."""
        if self.retrieval is None:
            return self.records[ident]
        return self.retrieval.own.get(ident, self.records[ident])
