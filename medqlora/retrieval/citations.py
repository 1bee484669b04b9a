"""Answers with sources: the passages that an answer was given, and the markers in its rationale that name them.

An answer names no source that it was not given. A marker without a passage and an identifier of an article that is
none of the passages' are taken out of the rationale, and listed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from medqlora.inference import Answer
from medqlora.records import Record
from medqlora.retrieval.retriever import Retriever, ids_of
from medqlora.retrieval.search import Hit
from medqlora.retrieval.store import Found
from medqlora.retrieval.wording import reference
from medqlora.utils.types import Json

#: what stands in a rationale where a source was named that was not given
REMOVED = "[source not given]"

#: [1], [1, 3], [2-4], [1][2]; years such as [1998] and intervals such as [0.2, 0.4] are none
_MARKER = re.compile(r"\[\s*\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*\s*\]")
_PARTS = re.compile(r"(\d{1,3})(?:\s*[–-]\s*(\d{1,3}))?")
#: identifiers of articles, and addresses
_NAMED = re.compile(
    r"\bPMID\s*:?\s*(?P<pmid>\d{4,9})|\b(?P<pmcid>PMC\d{4,9})\b|\b(?:doi\s*:?\s*)?(?P<doi>10\.\d{4,9}/[^\s\]),;]+)"
    r"|\bhttps?://[^\s\])]+|\bwww\.[^\s\])]+",
    re.IGNORECASE,
)
#: "(Smith et al., 2019)", "Smith and Jones (2019)": no passage names its authors, so no answer can know them
_AUTHORS = re.compile(
    r"\(\s*[A-Z][\w'’-]+(?:\s+(?:et\s+al\.?|and|&)\s*[\w'’.-]*)?,?\s+(?:19|20)\d\d[a-z]?\s*\)"
    r"|\b[A-Z][\w'’-]+\s+et\s+al\.?,?\s*\(?(?:19|20)\d\d[a-z]?\)?"
)


class Answers(Protocol):
    """The part of `medqlora.inference.Predictor` that answers."""

    def answers(self, records: Sequence[Record], note: str) -> list[Answer]:
        """Answers to questions, in order."""


@dataclass(frozen=True)
class CitedAnswer:
    """An answer with the passages that it was given.

    Attributes:
        answer: its rationale names no other source.
        hits: the passages; number 1 is the first.
        cited: numbers that the rationale names, in the order of the passages.
        removed: what the rationale named and was not given.
        claims: the rationale's claims against its own sources, as plain values; None where they were not verified.
    """

    answer: Answer
    hits: tuple[Hit, ...] = ()
    cited: tuple[int, ...] = ()
    removed: tuple[str, ...] = ()
    claims: tuple[dict[str, Json], ...] | None = field(default=None)

    def to_json(self) -> dict[str, Json]:
        """The answer's plain values, with `sources`, `removed_sources` and, where verified, `claims`."""
        plain = self.answer.to_json()
        plain["sources"] = [
            {
                "number": number,
                "cited": number in self.cited,
                **hit.passage.provenance(),
                "text": hit.passage.text,
                "reference": reference(hit.passage),
            }
            for number, hit in enumerate(self.hits, 1)
        ]
        plain["removed_sources"] = list(self.removed)
        if self.claims is not None:
            plain["claims"] = list(self.claims)
            plain["contradicted"] = any(one["verdict"] == "contradicted" for one in self.claims)
        return plain

    def source_lines(self) -> list[str]:
        """A line for each passage, for a terminal; control characters are escaped."""
        if not self.hits:
            return ["No source was found."]
        return [f"[{number}] {reference(hit.passage)}" for number, hit in enumerate(self.hits, 1)]


def cited_answer(answer: Answer, hits: Sequence[Hit]) -> CitedAnswer:
    """`answer` with its sources checked: see the module."""
    text, cited, removed = checked_rationale(answer.rationale, [hit.passage for hit in hits])
    return CitedAnswer(replace(answer, rationale=text), tuple(hits), cited, removed)


def checked_rationale(text: str, given: Sequence[Found]) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    """The text without sources that were not given; the numbers that it names; what was taken out.

    Args:
        text: a generated rationale.
        given: the passages; [1] is the first.
    """
    cited: set[int] = set()
    removed: list[str] = []
    known = {ident.casefold() for passage in given for ident in ids_of(passage)}
    links = {passage.link.casefold().rstrip("/") for passage in given} - {""}

    def marker(match: re.Match[str]) -> str:
        numbers = _numbers(match.group())
        right = [number for number in numbers if 1 <= number <= len(given)]
        cited.update(right)
        if len(right) == len(numbers):
            return match.group()
        removed.append(match.group())
        return f"[{', '.join(map(str, right))}]" if right else REMOVED

    def named(match: re.Match[str]) -> str:
        ident = next((value for value in match.groupdict().values() if value), match.group())
        plain = ident.casefold().rstrip("./")
        if plain in known or plain in links:
            return match.group()
        removed.append(match.group())
        return REMOVED

    def authors(match: re.Match[str]) -> str:
        removed.append(match.group())
        return REMOVED

    for pattern, check in ((_NAMED, named), (_AUTHORS, authors), (_MARKER, marker)):
        text = pattern.sub(check, text)
    return text, tuple(sorted(cited)), tuple(removed)


def answer_with_sources(predictor: Answers, record: Record, retriever: Retriever, note: str) -> CitedAnswer:
    """Retrieves contexts for a question, answers it from them, and checks what the answer names.

    Args:
        predictor: answers.
        record: the question; contexts of its own stay first where the retriever keeps them.
        retriever: over an index.
        note: text that the answer ends with.

    Raises:
        InputError: the index is damaged, or as the predictor.
    """
    retrieved = retriever.retrieve(record)
    answer = predictor.answers([retrieved.record], note)[0]
    return cited_answer(answer, [] if answer.reply is not None else retrieved.hits)


def _numbers(marker: str) -> list[int]:
    """ "[1, 3-5]" → 1, 3, 4, 5."""
    numbers: list[int] = []
    for first, last in _PARTS.findall(marker):
        start, end = int(first), int(last or first)
        numbers += range(start, end + 1) if start <= end else (start, end)
    return numbers
