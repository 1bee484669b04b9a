"""Test questions among records, by an id or by the words of a question."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Literal, NamedTuple

from medqlora.data.test_sets.shipped import TAIL_WORDS, digest_of, index_of_all, normalized, words_of
from medqlora.records import Record

#: a shorter question ("Is it Crohn's disease?") counts as a complete text or line, or after a heading
_LEAST_WORDS = 6
_HEADINGS = ("question", "query", "problem", "input", "human", "user", "title", "q")
#: characters to search before a question mark, per word of the longest question
_REACH = 24
#: a context of fewer characters may be a question
_SHORT_CONTEXT = 400

_MARK = re.compile(r"[^\W_][^\w?]*\?")  # only one of several marks
_TAG = re.compile(r"<[|/]?[a-zA-Z][\w| ]{0,30}>|\[/?INST\]")  # of HTML, or of a chat template
_NUMBER = re.compile(r"[\W_]*\d{1,4}\s*[.):]\s+")  # "12. " before a question
_HEADER = re.compile(
    r"^[ \t#*>|\"'{\[(-]*(?:\d+[.)]\s*)?(?:" + "|".join(_HEADINGS) + r")\b[ \t\d*\"'-]*[:.=)]+(.+)$",
    re.IGNORECASE | re.MULTILINE,
)
#: PMIDs have up to 8 digits, those of the shipped sets 7 or 8; letters before them form a usual name
_PMID_INSIDE = re.compile(
    r"(?<![0-9a-z])(?:pmid|pubmed|pubid|pubmedqa|pqal|pqa|id|q)?0*([1-9]\d{6,7})(?![0-9a-z])", re.IGNORECASE
)
#: an id that is a PMID and nothing else, of any length; adjacent repetitions match different characters
_PMID_WHOLE = re.compile(r"(?:.*/)?(?:pmid|pubmed)?[\s:_#-]*0*([1-9]\d*)(?:\.0)?/?", re.IGNORECASE)


class Leak(NamedTuple):
    """A record that is a test question of a benchmark.

    Attributes:
        record: the record.
        benchmark: the benchmark's name.
        question: the test question's id there.
        by: whether the id or the text of the question matches.
    """

    record: Record
    benchmark: str
    question: str
    by: Literal["id", "text"]


@cache
def _longest() -> int:
    """The words of the longest question."""
    return max((count for counts in index_of_all().tails.values() for count in counts), default=0)


def find_leaks(records: Iterable[Record]) -> list[Leak]:
    """The records that are a benchmark's test question, by an id or by the text of the question or of a context.

    Every form of an id counts: 12377809, "PMID: 12377809", "012377809", "ori_pqal:12377809" and the address of its
    PubMed page. A question also counts with other options or contexts, and inside a longer text ("Question: …?").
    """
    leaks = []
    for record in records:
        if (match := by_id(record)) is not None:
            leaks.append(Leak(record, *match, "id"))
        elif (match := _by_text(record)) is not None:
            leaks.append(Leak(record, *match, "text"))
    return leaks


def by_id(record: Record) -> tuple[str, str] | None:
    """Benchmark and id of the test question that one of the record's ids matches; None where there is none."""
    index = index_of_all()
    for text in (record.id, *record.aliases):
        text = text.strip()
        pmid = _PMID_WHOLE.fullmatch(text)
        numbers = [pmid[1]] if pmid else [match[1] for match in _PMID_INSIDE.finditer(text)]
        for number in numbers:
            if number in index.pmids:
                return index.pmids[number], number
        if text.casefold() in index.exact:
            return index.exact[text.casefold()]
    return None


def _by_text(record: Record) -> tuple[str, str] | None:
    match = _find(record.question, by_line=True)
    for context in record.contexts:
        match = match or _find(context, by_line=False)
    for name in record.context_labels:  # in PubMedQA a passage's title is the question
        match = match or (_find(name, by_line=True) if "?" in name else None)
    return match


def _find(text: str, *, by_line: bool) -> tuple[str, str] | None:
    """The test question in a text.

    Args:
        text: the text.
        by_line: whether each line, or a part of it up to its question mark, may be the question; else the question
            is a complete short text, follows a heading, or ends with a question mark.
    """
    if not by_line and "?" not in text and "\uff1f" not in text and not _HEADER.search(text):
        return None
    text = normalized(text)
    hashes = index_of_all().hashes
    for candidate in _candidates(text, by_line):
        match = hashes.get(digest_of(words_of(candidate), 10))
        if match is not None:
            return match
    return _ending_in_a_question_mark(text)


def _candidates(text: str, by_line: bool) -> Iterator[str]:
    if by_line or len(text) < _SHORT_CONTEXT:
        yield text
    if by_line:
        lines = _TAG.sub("\n", text).splitlines()
        yield from lines if len(lines) > 1 else ()
        for line in lines:  # "12. … ?", "… ? Answer with yes or no." and "Answer with yes or no: … ?"
            start = _NUMBER.match(line)
            line = line[start.end() :] if start else line
            question, mark, _ = line.partition("?")
            if mark or start:
                yield question
                yield question.rpartition(": ")[2]
    for match in _HEADER.finditer(text):
        yield match[1]
        if "?" in match[1]:  # "Question: … ? Answer with yes or no."
            yield match[1].partition("?")[0]
            yield match[1].rpartition("?")[0]


def _ending_in_a_question_mark(text: str) -> tuple[str, str] | None:
    index = index_of_all()
    reach = _REACH * _longest()
    for mark in _MARK.finditer(text):
        end = mark.start() + 1
        words = words_of(text[max(0, end - reach) : end])
        tail = words[-TAIL_WORDS:]
        if tail and tail[0] in _HEADINGS:  # of a question that is shorter than a tail
            tail = tail[1:]
        for count in index.tails.get(digest_of(tail, 4), ()):
            headed = words[-count - 1 : -count] and words[-count - 1] in _HEADINGS
            if count <= len(words) and (headed or count >= _LEAST_WORDS):
                match = index.hashes.get(digest_of(words[-count:], 10))
                if match is not None:
                    return match
    return None
