"""Reads one label at one place of a text, and says no where the word there is not meant as a label.

`no` is mostly a determiner ("no difference"), `maybe` an adverb ("maybe it helps"), `A` an article and
`C.` half of "C. difficile". Whether a word is a decision shows in what follows it, so all the rules here
look right, through a bounded window: reading is linear in the length of the text.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

#: how far to the right of a label the rules look, in characters
WINDOW = 120

#: what may stand between an announcement and its label: space, Markdown, quotes, brackets, LaTeX, "option"
DECORATION = re.compile(
    r"(?:[\s*_\"'`(\[{<$#>]|\\[(\[]|\\(?:boxed|fbox|text(?:bf|it|rm)?|math(?:bf|rm|it)?)\s?\{"
    r"|(?:the\s)?(?:option|choice|letter)\b[\s:]?){0,24}",
    re.IGNORECASE,
)
_CLOSE = r"[*_\"'`)\]}>$]{0,8}"
_ENDED = (
    rf"{_CLOSE}(?:\s*$|[ \t]*\n|[,;:!…](?!\w)|\.(?!\w)|\.(?=[A-Z][a-z])|\s*[–—]|\s-+\s|</|\\[)\]]"
    r"|[\"']\s?[}\]])"  # the end of a JSON value
)
_PAREN = r"\s?\((?![^()]{0,60}\)\s[a-z])"  # "no (p = 0.3)", but not "no (significant) difference"
#: "No. 5 of", "No. of patients"; not "no. In 40 patients …", which is how a completion with its rationale reads
_NUMBER_OF = r"\.\s?(?:(?-i:of\b)|\d{1,4}(?:\sof\b|\s*$))"
_CAUSE = r"\s(?:because|since|as\s(?:the|this|there|it|we|shown)|due\sto|based\son|given|according\sto)\b"
_NOT_AFTER_DETERMINER = (
    r"\s(?:it|they|this|that|these|those|there|the|we|i|he|she|and|but|so|when|while|however"
    r"|(?:in|on|at|for|with)\s(?:this|the|these|those|most|general|my|our|both|all|either|this))\b"
)
_ASKED = re.compile(rf"{_CLOSE}\s?\?")
_CONDITIONAL = re.compile(r"[*_\"']{0,4},?\s(?:only\s)?(?:if|unless|provided)\b")
_BOUNDARY = r"(?!\w)(?!['’]\w)(?!-\w)"
_BESIDE = (
    r"\s{0,3}(?:,\s{0,3}(?:or|and|but|then|maybe)?|/|\||\bor\b|\band\b|\bnor\b|\bbut\b|\bvs\b\.?|&|\+|\bto\b)"
)
_FEW_MARKS = r"[\s*_\"'`(\[]{0,6}(?:option\s|choice\s)?"
#: species whose genus is written as one of the letters that also name options
_SPECIES = re.compile(
    r"\.\s(?:coli|difficile|albicans|jejuni|perfringens|botulinum|tetani|diphtheriae|trachomatis|pneumoniae"
    r"|psittaci|fumigatus|baumannii|cereus|fragilis|burgdorferi|pertussis|anthracis|henselae|histolytica"
    r"|faecalis|faecium|cloacae|neoformans|immitis|granulosus|multilocularis|dermatitidis|elegans|freundii"
    r"|melanogaster|medinensis|vermicularis|lumbricoides|israelii|auris|glabrata|abortus|melitensis)\b"
)


class Value(NamedTuple):
    """A label that was read.

    Attributes:
        label: one of the labels; None where several stand side by side ("yes or no") or where a letter
            and the option's text behind it contradict each other.
        end: the index after it.
    """

    label: str | None
    end: int


class Values:
    """The labels of one question, ready to be looked for.

    Args:
        labels: the decisions that are possible.
        options: label → text of the option; may be empty.
    """

    def __init__(self, labels: Sequence[str], options: Mapping[str, str]) -> None:
        self.by_key = {_key(label): label for label in labels}
        self.options = [(_key(text), label) for label, text in options.items() if _key(text)]
        self.options.sort(key=lambda pair: -len(pair[0]))
        words = sorted(labels, key=len, reverse=True)
        one = "|".join(r"\s{1,40}".join(map(re.escape, word.split())) for word in words if word.split())
        #: a label anywhere; group 1 is the label
        self.word = re.compile(rf"(?<![\w-])({one or '(?!)'}){_BOUNDARY}", re.IGNORECASE)
        at_end = r"(?=\s*(?:[.,;:!)\]*\"'/|}_`]|$|or\b|and\b|depending\b))"
        self._beside = re.compile(
            rf"{_CLOSE}{_BESIDE}{_FEW_MARKS}({one or '(?!)'}){_BOUNDARY}{at_end}", re.IGNORECASE
        )

    def read(self, text: str, at: int) -> Value | None:
        """The label at `at`, after any decoration; None where there is none or it isn't meant as one."""
        decoration = DECORATION.match(text, at)
        start = decoration.end() if decoration else at
        option = self._option_at(text, start)
        found = self.word.match(text, start)
        label = self.by_key.get(_key(found.group(1))) if found else None
        if found is None or label is None:
            return option
        if option is not None and option.end != found.end():
            return option
        if option is not None and option.label != label:
            return Value(None, found.end())
        return self._judged(text, found.start(1), found.end(), label)

    def _judged(self, text: str, start: int, end: int, label: str) -> Value | None:
        """The label from `start` to `end`, judged by what follows it."""
        tail = text[end : end + WINDOW]
        if _ASKED.match(tail):
            return None
        beside = self._beside.match(tail)
        if beside and _key(beside.group(1)) != _key(label) and self._same_case(text, start, beside.group(1)):
            return Value(None, end + beside.end())
        if _CONDITIONAL.match(tail):
            return None
        if len(label) > 1:
            return Value(label, end) if _follows(label).match(tail) else None
        return self._judged_letter(text, start, end, label)

    def _judged_letter(self, text: str, start: int, end: int, label: str) -> Value | None:
        """A label of one character, where the text of an option may follow."""
        tail = text[end : end + WINDOW]
        separators = re.match(r"[\s*_\"'`)\]}.:,–—-]*(?:\()?", tail)
        behind = self._option_at(text, end + (separators.end() if separators else 0))
        if behind is not None:
            return Value(label if behind.label == label else None, behind.end)
        written = text[start:end]
        if written != written.upper():
            before = text[max(0, start - 24) : start]
            enclosed = before[-1:] in tuple("([{\"'*`") or not before.strip()
            announced = before.rstrip(" \t*_\"'`(")[-1:] in tuple(":=")
            closed = re.match(r"[)\].:,\"'*]", tail) is not None
            if not (
                closed
                or ((not tail.strip() or tail[:1] == "\n") and (enclosed or announced or written not in "ai"))
            ):
                return None
        if _SPECIES.match(tail) or (re.match(r"\.\w", tail) and not re.match(r"\.[A-Z][a-z]", tail)):
            return None
        return Value(label, end) if _LETTER_FOLLOWS.match(tail) else None

    def _option_at(self, text: str, at: int) -> Value | None:
        """The option whose text stands at `at`: the longest, and only where nothing more is said of it."""
        for key, label in self.options:
            end = _match_end(text, at, key)
            if end is None:
                continue
            tail = text[end : end + WINDOW]
            if not _OPTION_FOLLOWS.match(tail):
                continue
            if sum(other == key for other, _ in self.options) > 1:
                return Value(None, end)
            beside = re.match(rf"{_CLOSE}{_BESIDE}{_FEW_MARKS}", tail)
            if beside and any(
                _match_end(text, end + beside.end(), other) is not None
                for other, _ in self.options
                if other != key
            ):
                return Value(None, end)
            return Value(label, end)
        return None

    def _same_case(self, text: str, start: int, other: str) -> bool:
        """Whether a one-letter neighbour is written like a label ("A, B"), not like an article ("A, a …")."""
        return len(other) > 1 or text[start].isupper() == other.isupper()


@lru_cache(maxsize=256)
def values_for(labels: tuple[str, ...], options: tuple[tuple[str, str], ...]) -> Values:
    """`Values` of a task's labels, made once."""
    return Values(labels, dict(options))


@lru_cache(maxsize=64)
def _follows(label: str) -> re.Pattern[str]:
    """What may follow a label that is a word."""
    key = label.casefold()
    if key == "no":
        return re.compile(
            rf"(?!{_NUMBER_OF})(?:{_ENDED}|{_PAREN}|{_CLOSE}{_CAUSE}|{_CLOSE}{_NOT_AFTER_DETERMINER})",
            re.IGNORECASE,
        )
    if key == "maybe":
        return re.compile(rf"(?:{_ENDED}|{_PAREN}|{_CLOSE}{_CAUSE})", re.IGNORECASE)
    return re.compile(rf"(?:{_ENDED}|{_PAREN}|{_CLOSE}\s)", re.IGNORECASE)


_LETTER_FOLLOWS = re.compile(
    rf"(?:{_ENDED}|{_CLOSE}[)\]}}]|{_PAREN}|{_CLOSE}{_CAUSE}|{_CLOSE}\s(?:which|and|but|not|rather)\b|[*_]{{2}})"
)
_OPTION_FOLLOWS = re.compile(
    rf"(?!\.\d)(?:{_ENDED}|{_PAREN}|{_CLOSE}{_CAUSE}|{_CLOSE}{_BESIDE}|{_CLOSE}[)\]}}])", re.IGNORECASE
)


def _key(text: str) -> str:
    """A label's or option's text in the form in which it is compared."""
    return " ".join(text.split()).casefold().rstrip(".")


def _match_end(text: str, at: int, key: str) -> int | None:
    """Where the text at `at` that equals `key` (in any case, with any white space) ends."""
    window = text[at : at + 2 * len(key) + 8]
    squeezed: list[str] = []
    ends: list[int] = []
    for place, character in enumerate(window):
        if character.isspace():
            if squeezed and squeezed[-1] != " ":
                squeezed.append(" ")
                ends.append(place + 1)
            continue
        for folded in character.casefold():
            squeezed.append(folded)
            ends.append(place + 1)
    if not "".join(squeezed).startswith(key):
        return None
    end = at + ends[len(key) - 1]
    return None if text[end : end + 1].isalnum() else end
