"""Claims: the sentences of a text that can be right or wrong, each as a question that an adapter answers."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from medqlora.records import YES_NO_MAYBE

#: words whose full stop ends no sentence
_ABBREVIATION_LIST = (
    "e.g i.e etc vs cf al fig figs no nos dr mr mrs ms prof st approx resp ca eq ref refs vol pp p dept inc jr sr "
    "a.m p.m u.s u.k ph.d m.d i.v i.m s.c b.i.d t.i.d q.i.d"
)
_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())
_STOP = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)")
_LAST_WORD = re.compile(r"([\w.]+)$")
_BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,2}[.)])\s+")
_WORD = re.compile(r"\w+")
#: the fewest words of a claim
_LEAST_WORDS = 3
#: "does not reduce" → "does reduce", "had no effect" → "had an effect": the claim is asked without its negation, and
#: the answer turned round
_NEGATIONS = (
    (
        re.compile(
            r"\b(do|does|did|is|are|was|were|has|have|had|can|could|will|would|should|may|might|must)"
            r"(?:\s+not\b(?!\s+only\b)|n['’]t\b)",
            re.IGNORECASE,
        ),
        r"\1",
    ),
    (re.compile(r"\bcannot\b", re.IGNORECASE), "can"),
    (
        re.compile(
            r"\bno\s+(?=(?:effect|influence|impact|association|increase|improvement)\b)", re.IGNORECASE
        ),
        "an ",
    ),
    (re.compile(r"\bno\s+(?=(?:benefit|difference|reduction|decrease|change)\b)", re.IGNORECASE), "a "),
    (re.compile(r"\bno\s+(?!longer\b|one\b|matter\b|doubt\b)(?=[^\W\d_])", re.IGNORECASE), ""),
)


class Claim(NamedTuple):
    """A sentence of a text.

    Attributes:
        text: the sentence.
        start, end: its characters in the text.
    """

    text: str
    start: int
    end: int


def split_claims(text: str) -> list[Claim]:
    """The claims of a text: its sentences of at least three words, but for questions.

    Sentences end at ".", "!" or "?" before white space and at the end of a line. A stop after an abbreviation
    ("e.g."), an initial or a number within a decimal ends none; a list's mark is no part of a claim.

    Args:
        text: an answer, or a file's content.
    """
    claims = []
    position = 0
    for line in text.splitlines(keepends=True):
        start = position
        bullet = _BULLET.match(line)
        start += bullet.end() if bullet else 0
        for end in [*_ends(text, start, position + len(line)), position + len(line)]:
            claim = text[start:end].strip()
            if len(_WORD.findall(claim)) >= _LEAST_WORDS and not claim.rstrip("\"'”’)]").endswith("?"):
                begin = start + len(text[start:end]) - len(text[start:end].lstrip())
                claims.append(Claim(claim, begin, begin + len(claim)))
            start = end
        position += len(line)
    return claims


class Asked(NamedTuple):
    """A claim as a question.

    Attributes:
        question: for the adapter.
        negated: whether "yes" contradicts the claim.
    """

    question: str
    negated: bool = False


def as_question(claim: str, labels: Sequence[str]) -> Asked:
    """The question that decides a claim.

    An adapter that learned to answer yes, no or maybe is asked whether the claim is true; of a negated claim, whether
    its opposite is. Any other learned claims themselves, and gets the claim. A question stays as it is.

    Args:
        claim: a sentence.
        labels: the adapter's.
    """
    claim = claim.strip()
    if claim.endswith("?") or not set(labels) <= set(YES_NO_MAYBE):
        return Asked(claim)
    plain, negations = claim, 0
    for pattern, instead in _NEGATIONS:
        plain, count = pattern.subn(instead, plain)
        negations += count
    body = plain.rstrip(" .!…")
    if len(body) > 1 and body[0].isupper() and body[1].islower():
        body = body[0].lower() + body[1:]
    return Asked(f"Is it true that {body}?", negations % 2 == 1)


def _ends(text: str, start: int, end: int) -> list[int]:
    ends = []
    for stop in _STOP.finditer(text, start, end):
        word = _LAST_WORD.search(text, start, stop.start())
        before = word.group(1).casefold() if word else ""
        initial = len(before) == 1 and before.isalpha() and stop.group()[0] == "."
        if before not in _ABBREVIATIONS and not initial:
            ends.append(stop.end())
    return ends
