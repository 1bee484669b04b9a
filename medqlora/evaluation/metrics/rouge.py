"""ROUGE-L: how much of a reference's wording a text shares, in order. It measures wording, not truth."""

import re
from collections.abc import Sequence

_WORD = re.compile(r"[a-z0-9]+")


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    Bit-parallel (Hyyrö 2004): a row of the usual table is one integer of len(first) bits, so it takes
    len(second) steps on integers.
    """
    positions: dict[str, int] = {}
    for index, word in enumerate(first):
        positions[word] = positions.get(word, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        matches = row & positions.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()


def rouge_l(text: str, reference: str) -> float:
    """ROUGE-L F1 of lower-case words and numbers without stemming, 0 to 1.

    Lin 2004, https://aclanthology.org/W04-1013, as in Google's rouge_score; 0 where either is empty.
    """
    words, expected = _WORD.findall(text.lower()), _WORD.findall(reference.lower())
    common = longest_common_subsequence(words, expected)
    return 2 * common / (len(words) + len(expected)) if common else 0.0


def rationale_of(text: str, labels: Sequence[str]) -> str:
    """`text` without the decision that it begins with ("Yes. The …" → "The …")."""
    words = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True) if label)
    if not words:
        return text.strip()
    lead = re.match(
        rf"[\s*_\"'(]{{0,8}}(?:{words})[\s*_\"')]{{0,4}}(?:[.,:;!\n–—]|$)[\s*_\"')]{{0,8}}",
        text,
        re.IGNORECASE,
    )
    return text[lead.end() :].strip() if lead else text.strip()
