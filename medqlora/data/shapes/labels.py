"""Reads the label or option that an answer states, in any case and spelling, and the rationale after it."""

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
# separators between a label and the following text: "Yes, because", "No. The trial", "Maybe - it"
_GOES_ON = (
    r"[\"'”’)\]*_]*(?:[,;:!](?=[\s\"'(“]|[^\W\d])|\.(?=\s)|\s+[-–—](?=\s)|[–—]|\s*\n|\s+(?=\()"
    r"|\s+(?=(?:because|since|as|due)\b)|[，、。：；！])"
)
_BOOLEAN_PAIRS = (
    ("yes", "no"), ("true", "false"), ("positive", "negative"), ("present", "absent"), ("correct", "incorrect"),
    ("ja", "nein"), ("oui", "non"), ("si", "no"), ("sí", "no"), ("sì", "no"), ("sim", "não"), ("ja", "nee"),
)  # fmt: skip
# at most two decimals: "1.000" may be a thousand
_WITH_DECIMALS = re.compile(r"\s*(-?\d{1,9})[.,]0{1,2}\s*")


class Reading(NamedTuple):
    """
    Attributes:
        label: a label or an option letter.
        rest: the text after it; "" for none.
    """

    label: str
    rest: str = ""


def _stated(text: str) -> str:
    """The text without an introduction such as "Answer:"."""
    match = _ANSWER_IS.match(text)
    return text[match.end() :] if match else text


def folded(text: str) -> str:
    """The text without differences of spelling: case, width, white space, and quotes and stops around it."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = " ".join(text.split()).casefold()
    return text.strip(_EDGES) or text


class Labels:
    """The possible answers and their spellings in a file.

    Args:
        words: the answers, in fixed order.
        meanings: spelling in the file → one of `words`.
        explicit: the options name the labels, so that numbers and booleans may stand for them.
    """

    def __init__(
        self, words: Sequence[str], meanings: Mapping[str, str] | None = None, *, explicit: bool = False
    ) -> None:
        self.words = tuple(words)
        self.explicit = explicit
        self.counted = explicit and not meanings  # numbers may stand for labels by position
        spellings = {**{word: word for word in words}, **(meanings or {})}
        self._exact = spellings
        self._folded: dict[str, str | None] = {}
        for spelling, word in spellings.items():
            near = folded(spelling)
            # labels that differ only in case must match exactly
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
        """The label that a value states; None for none.

        Does not read label numbers: whether they count from 0 or 1 depends on the complete file.
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
        """The label at the start: "Yes, because it fell" is yes with a rest; "yes, no" is None."""
        for begins, word in self._begins:
            match = begins.match(text)
            if match and self._folded.get(folded(word), word) is not None:
                rest = text[match.end() :].strip()
                if self._word(rest) is not None or any(other.match(rest) for other, _ in self._begins):
                    return None
                return Reading(word, rest)
        return None


def read_option(value: object, options: Mapping[str, str]) -> Reading | None:
    """The option that an answer names by letter or text; None for none or several.

    Does not read option numbers.
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
    for normalize in (str.strip, folded):
        named = [label for label, option in options.items() if normalize(option) == normalize(text)]
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
    reading = Labels(list(by_text), explicit=True).read(value) if len(by_text) == len(options) else None
    return None if reading is None else Reading(by_text[reading.label])


_LEADING = re.compile(r"[\s\"'“(\[*_]*([^\W_]{1,3})[)\]*_]*\s*(?:[.:),]|\s[-–—](?=\s))[*_]*\s*")


def _option_with_text(text: str, options: Mapping[str, str]) -> Reading | None:
    """The option of an answer such as "B. Atenolol" or "B, because beta blockers end in -olol"."""
    text = re.sub(r"(?i)^(?:option|choice)\s+", "", _stated(text))
    match = _LEADING.match(text)
    named = [label for label in options if match and label.casefold() == match[1].casefold()]
    if match is None or len(named) != 1:
        return None
    rest = text[match.end() :].strip()
    by_text = [label for label, option in options.items() if folded(option) == folded(rest)]
    if by_text:
        return Reading(named[0]) if named[0] in by_text else None
    option = options[named[0]].strip()
    if folded(rest).startswith(folded(option)) and option:  # "B. Atenolol. It is a beta blocker."
        return Reading(named[0], rest[len(option) :].lstrip(_EDGES + "-–— "))
    if len(rest.split()) < 3 or any(_is_letter(rest, label) for label in options):
        return None
    return Reading(named[0], rest)


def _is_letter(rest: str, label: str) -> bool:
    return (
        re.match(rf"(?:and|or|&)?\s*\(?{re.escape(label)}(?:[).,:]|\s+(?:and|or)\b|$)", rest, re.IGNORECASE)
        is not None
    )


def whole(value: object) -> int | None:
    """A whole number; also "3.0", as pandas writes columns with gaps, and "3.00" and "3,00", as SPSS does."""
    if isinstance(value, str) and (match := _WITH_DECIMALS.fullmatch(value)):
        value = match[1]
    return fields.whole(value)


def count_from(pairs: Sequence[tuple[int, int]]) -> int | str:
    """Whether numbers count from 0 or from 1.

    Args:
        pairs: each number, with the number of options or labels.

    Returns:
        0, 1, or the reason why it is undecidable.
    """
    zero = any(number == 0 for number, _ in pairs)
    last = next((number for number, count in pairs if number == count), None)
    if zero and last is not None:
        return f"both 0 and {last} of {last} occur, which mixes counts from 0 and from 1"
    if not zero and last is None:
        numbers = ", ".join(map(str, sorted({number for number, _ in pairs})[:10]))
        return f"{numbers} fit a count from 0 as well as one from 1"
    return 0 if zero else 1
