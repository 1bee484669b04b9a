"""The contexts of a run's questions from an index, and what its report compares them with."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from medqlora.config.retrieval import RetrievalOptions
from medqlora.data import Prompt, encode_all
from medqlora.data.question_set import Evidence, WithRetrieval
from medqlora.inference import Answer
from medqlora.records import Encoded, Record
from medqlora.retrieval.citations import cited_answer
from medqlora.retrieval.retriever import Retriever
from medqlora.retrieval.search import Hit
from medqlora.retrieval.store import Found
from medqlora.utils.progress import phase
from medqlora.utils.types import Json, Tokenizer


class IndexContexts:
    """Gives questions the contexts that an index holds for them (`medqlora.data.retrieved.Retrieval`).

    Args:
        retriever: over the index.
        options: for the report.
        content: digest of what the index holds.
    """

    def __init__(self, retriever: Retriever, options: RetrievalOptions, content: str) -> None:
        self.retriever = retriever
        self.options = options
        self.content = content
        self.held_out: set[str] = set()
        self._own: dict[str, Record] = {}
        self._evidence: dict[str, Evidence] = {}

    @classmethod
    def open(cls, options: RetrievalOptions, tokenizer: Tokenizer) -> "IndexContexts":
        """Opens the index of the options.

        Raises:
            InputError: it can't be opened.
        """
        retriever = Retriever.of(options, lambda text: len(tokenizer.encode(text, add_special_tokens=False)))
        return cls(retriever, options, retriever.index.meta["content"])

    def contexts(self, records: Sequence[Record], report: Callable[[str], None]) -> list[Record]:
        """The records with retrieved contexts; see `Retrieval`."""
        result = []
        with phase("Retrieving", len(records), "questions") as bar:
            for record in records:
                retrieved = self.retriever.retrieve(record, self.held_out)
                self._own[record.id] = record
                self._evidence[record.id] = retrieved.evidence
                result.append(retrieved.record)
                bar.advance()
        evidence = [self._evidence[record.id] for record in records]
        given = sum(one.passages for one in evidence)
        line = f"Retrieved: {given:,} passages for {len(records):,} questions from {self.options.index}"
        if excluded := sum(one.excluded for one in evidence):
            line += f"; {excluded:,} of the questions' own articles left out"
        report(line)
        return result

    def passages(self, ident: str) -> list[Found]:
        """The passages that a question was given, in the order of its contexts; none for a question that is unknown."""
        evidence = self._evidence.get(ident)
        if evidence is None:
            return []
        found = self.retriever.index.fetch(evidence.numbers)
        return [found[number] for number in evidence.numbers]

    def cited(self, answer: Answer) -> dict[str, Json]:
        """An answer to a question that was read here, with its sources, as plain values."""
        hits = [Hit(passage, 0.0, 0.0) for passage in self.passages(answer.id)]
        return cited_answer(answer, [] if answer.reply is not None else hits).to_json()

    def lines(self, idents: Sequence[str]) -> str:
        """What each question was given, as lines of JSON, without the texts."""
        rows = [
            {
                "id": ident,
                "own_article_found": self._evidence[ident].found,
                "left_out": self._evidence[ident].excluded,
                "coverage": self._evidence[ident].coverage,
                "passages": [passage.provenance() for passage in self.passages(ident)],
            }
            for ident in idents
            if ident in self._evidence
        ]
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)

    def of_set(
        self, test: Sequence[Encoded], prompt: Prompt, tokenizer: Tokenizer, max_prompt_tokens: int
    ) -> WithRetrieval:
        """The test questions without contexts, and with their own; see `Retrieval`."""
        own = [self._own[example.id] for example in test]
        conditions = {"question_alone": [replace(one, contexts=(), context_labels=()) for one in own]}
        if any(record.contexts for record in own):
            conditions["gold_context"] = own
        encoded = {
            name: encode_all(records, prompt, tokenizer, max_prompt_tokens, progress=False)
            for name, records in conditions.items()
        }
        return WithRetrieval(
            {**asdict(self.options), "content_sha256": self.content},
            dict(self._evidence),
            {name: {example.id: example for example in examples} for name, examples in encoded.items()},
            dict(self._own),
        )
