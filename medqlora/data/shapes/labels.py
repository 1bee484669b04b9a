"""What an answer says: its label in any case and spelling, the option that it names, and the rationale after it."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from medqlora.data import fields

_EDGES = " \t\"'“”‘’‚„«»‹›`´*_~#.,;:!?。，、；：！？…()[]{}<>|"
_ANSWER_IS = re.compile(
    r"[\s*_#]*(?:(?:the\s+)?(?:final\s+|correct\s+|right\s+)*(?:answer|decision|label)[*_]*\s*(?:is\b|[:=])[*_]*\s*[:=]?\s*)",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"(?:(?:the\s+)?(?:final\s+|correct\s+|right\s+)*(?:answer|option|choice)\s*(?:is\b|[:=])?\s*)?(?:option|choice)?[\s:]*",
    re.IGNORECASE,
)
# what may stand between a label and the text that goes on from it: "Yes, because", "No. The trial", "Maybe - it"
_GOES_ON = (
    r"[\"'”’)\]*_]*(?:[,;:!](?=[\s\"'(“]|[^\W\d])|\.(?=\s)|\s+[-–—](?=\s)|[–—]|\s*\n|\s+(?=\()"
    r"|\s+(?=(?:because|since|as|due)\b)|[，、。：；！])"
)
_BOOLEAN_PAIRS = (
    ("yes", "no"), ("true", "false"), ("positive", "negative"), ("present", "absent"), ("correct", "incorrect"),
    ("ja", "nein"), ("oui", "non"), ("si", "no"), ("sí", "no"), ("sì", "no"), ("sim", "não"), ("ja", "nee"),
)  # fmt: skip


# "1.000" may be a thousand
_WITH_DECIMALS = re.compile(r"\s*(-?\d{1,9})[.,]0{1,2}\s*")


class Reading(NamedTuple):
    """
    Attributes:
        label: one of the labels, or of the options' letters.
        rest: the text that goes on after it; "" for none.
    """

    label: str
    rest: str = ""


def _stated(text: str) -> str:
    """ "Answer: yes" without the words before the answer."""
    found = _ANSWER_IS.match(text)
    return text[found.end() :] if found else text


def folded(text: str) -> str:
    """A text without what two spellings of a word differ in: case, width, quotes, stops and white space around."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = " ".join(text.split()).casefold()
    return text.strip(_EDGES) or text


class Labels:
    """The possible answers and what stands for them in a file.

    Args:
        words: the answers, in their fixed order.
        meanings: what the file says → which of `words` it means.
        explicit: the user named them, so that numbers and booleans may count them.
    """

    def __init__(
        self, words: Sequence[str], meanings: Mapping[str, str] | None = None, *, explicit: bool = False
    ) -> None:
        self.words = tuple(words)
        self.explicit = explicit
        self.counted = explicit and not meanings  # numbers may stand for them in their order
        spellings = {**{word: word for word in words}, **(meanings or {})}
        self._exact = spellings
        self._folded: dict[str, str | None] = {}
        for spelling, word in spellings.items():
            near = folded(spelling)
            # labels that differ in case alone are read as they are written
            self._folded[near] = word if self._folded.get(near, word) == word else None
        self._longest = 50 + 2 * max(map(len, spellings), default=0)
        ordered = sorted(spellings, key=len, reverse=True)
        self._begins = [
            (
                re.compile(rf"[\s\"'“‘(\[*_]*{re.escape(spelling)}{_GOES_ON}", re.IGNORECASE),
                spellings[spelling],
            )
            for spelling in ordered
        ]

    def read(self, value: object) -> Reading | None:
        """The label that a value says; None where it says none.

        Numbers that count labels are not read here: it takes the whole file to tell from what they count.
        """
        if isinstance(value, bool) or (isinstance(value, str) and folded(value) in ("true", "false")):
            if (reading := self._word(str(value))) is not None:
                return reading
            return self._boolean(folded(str(value)) == "true")
        number = whole(value)
        if number is not None:
            return self._word(str(number))
        if not isinstance(value, str):
            return None
        text = value.strip()
        return self._word(text) or self._word(_stated(text)) or self._beginning(_stated(text))

    def _word(self, text: str) -> Reading | None:
        if text in self._exact:
            return Reading(self._exact[text])
        word = self._folded.get(folded(text)) if len(text) < self._longest else None
        return None if word is None else Reading(word)

    def _boolean(self, value: bool) -> Reading | None:
        if not self.explicit:
            return None
        for positive, negative in _BOOLEAN_PAIRS:
            pair = (self._folded.get(positive), self._folded.get(negative))
            if None not in pair:
                return Reading(str(pair[0] if value else pair[1]))
        return None

    def _beginning(self, text: str) -> Reading | None:
        """ "Yes, because it fell" is yes, and the rest; "yes, no" is neither."""
        for begins, word in self._begins:
            found = begins.match(text)
            if found and self._folded.get(folded(word), word) is not None:
                rest = text[found.end() :].strip()
                if self._word(rest) is not None or any(other.match(rest) for other, _ in self._begins):
                    return None
                return Reading(word, rest)
        return None


def read_option(value: object, options: Mapping[str, str]) -> Reading | None:
    """The option that an answer names, by its letter or its text; None where it names none, or two.

    Numbers that count options are not read here.
    """
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool):
        return _boolean_option(value, options)
    number = whole(value)
    if number is not None and not isinstance(value, str):
        value = str(number)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if text in options:
        return Reading(text)
    for same in (lambda one: one.strip() == text, lambda one: folded(one) == folded(text)):
        named = [label for label, option in options.items() if same(option)]
        if named:
            return Reading(named[0]) if len(named) == 1 else None
    letters = Labels(list(options))
    for candidate in (text, _OPTION.sub("", text, count=1)):
        if (reading := letters._word(candidate)) is not None:
            return reading
    return _option_with_text(text, options)


def _boolean_option(value: bool, options: Mapping[str, str]) -> Reading | None:
    """True among the options True and False, or yes and no."""
    by_text = {text: label for label, text in options.items()}
    said = Labels(list(by_text), explicit=True).read(value) if len(by_text) == len(options) else None
    return None if said is None else Reading(by_text[said.label])


_LEADING = re.compile(r"[\s\"'“(\[*_]*([^\W_]{1,3})[)\]*_]*\s*(?:[.:),]|\s[-–—](?=\s))[*_]*\s*")


def _option_with_text(text: str, options: Mapping[str, str]) -> Reading | None:
    """ "B. Atenolol" and "B, because beta blockers end in -olol"."""
    text = re.sub(r"(?i)^(?:option|choice)\s+", "", _stated(text))
    found = _LEADING.match(text)
    named = [label for label in options if found and label.casefold() == found[1].casefold()]
    if found is None or len(named) != 1:
        return None
    rest = text[found.end() :].strip()
    by_text = [label for label, option in options.items() if folded(option) == folded(rest)]
    if by_text:
        return Reading(named[0]) if named[0] in by_text else None
    wanted = options[named[0]].strip()
    if folded(rest).startswith(folded(wanted)) and wanted:  # "B. Atenolol. It is a beta blocker."
        return Reading(named[0], rest[len(wanted) :].lstrip(_EDGES + "-–— "))
    if len(rest.split()) < 3 or any(_is_letter(rest, label) for label in options):
        return None
    return Reading(named[0], rest)


def _is_letter(rest: str, label: str) -> bool:
    return (
        re.match(rf"(?:and|or|&)?\s*\(?{re.escape(label)}(?:[).,:]|\s+(?:and|or)\b|$)", rest, re.IGNORECASE)
        is not None
    )


def whole(value: object) -> int | None:
    """A whole number: 3, 3.0, "3", "3.0", as pandas writes a column with a gap, "3.00" and "3,00", as SPSS does."""
    if isinstance(value, str) and (found := _WITH_DECIMALS.fullmatch(value)):
        value = found[1]
    return fields.whole(value)


def count_from(found: Sequence[tuple[int, int]]) -> int | str:
    """Whether numbers count from 0 or from 1, by all of them.

    Args:
        found: each number, with how many things there are to count.

    Returns:
        0, 1, or why neither can be told.
    """
    zero = [number for number, _ in found if number == 0]
    last = [(number, count) for number, count in found if number == count]
    if zero and last:
        return f"0 and {last[0][0]} of {last[0][1]} are both there, which is a mixture of counts from 0 and from 1"
    if not zero and not last:
        numbers = ", ".join(map(str, sorted({number for number, _ in found})[:10]))
        return f"{numbers} alone fit a count from 0 as well as one from 1"
    return 0 if zero else 1
