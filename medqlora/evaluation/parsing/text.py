"""Normalises a generated text for the parser: one form of each character, no reasoning, no invented question."""

import html
import re
import unicodedata
from collections.abc import Iterator

from medqlora.evaluation.parsing import phrases

#: zero-width characters, soft hyphens, byte order marks, direction marks, variation selectors, tags
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e007f]"
)
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
#: letters and digits with a shape: circled, bold, full-width
_SHAPED = re.compile(
    "[\u2460-\u24ff\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff\U0001f110-\U0001f149]"
)
_ENTITY = re.compile(r"&(?:nbsp|amp|quot|apos|lt|gt|ndash|mdash|#\d{2,4}|#x[0-9a-fA-F]{2,4});")
_DOUBLE_HYPHEN = re.compile(r"(?<!-)--(?!-)")
_RANGE = re.compile(r"(?<=\d)\s?[–—]\s?(?=\d)")
#: Chinese, Japanese and Korean put no space between their words and a Latin letter or a digit
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_CJK_BORDER = re.compile(rf"(?<=[{CJK}])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[{CJK}])")

_QUOTES = {0x2018: "'", 0x2019: "'", 0x201A: "'"} | dict.fromkeys((0x201C, 0x201D, 0x201E, 0xAB, 0xBB), '"')
_HYPHENS = dict.fromkeys((0x2010, 0x2011, 0x2212, 0xFE63), "-")
#: punctuation of full width; a space follows where English has one
_WIDE = {
    code: chr(code - 0xFEE0) + (" " if chr(code - 0xFEE0) in ",:;!?)" else "")
    for code in range(0xFF01, 0xFF5F)
}
_ASIAN = {0x3001: ", ", 0x3002: ". ", 0x3010: "[", 0x3011: "] ", 0x300A: '"', 0x300B: '"'}
_ASIAN |= dict.fromkeys((0x300C, 0x300D, 0x300E, 0x300F), '"')
_SQUARED = {0x1F170 + index: chr(65 + index) for index in range(26)}
_CHARACTERS = _QUOTES | _HYPHENS | _WIDE | _ASIAN | _SQUARED


def plain(text: str) -> str:
    """`text` with one form of each character: no invisible characters, ASCII quotes, letters of normal width.

    Outputs, labels and options all pass through it, so that they can be compared.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
        text = _SHAPED.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
        text = _SPACES.sub(" ", text).translate(_CHARACTERS)
        text = _RANGE.sub("-", _CJK_BORDER.sub(" ", text))
    if "&" in text:
        text = _ENTITY.sub(lambda match: html.unescape(match[0]).replace("\u00a0", " "), text)
    return _DOUBLE_HYPHEN.sub("—", text)


def after_reasoning(text: str) -> str:
    """`text` after its last final channel and after the end of its last finished reasoning."""
    for pattern in (phrases.FINAL_CHANNEL, phrases.THOUGHT_END):
        text = text[max((match.end() for match in pattern.finditer(text)), default=0) :]
    return text


def rest_of_line(text: str, start: int, most: int = 200) -> str:
    """The line from `start` on, at most `most` characters of it."""
    return text[start : start + most].split("\n", 1)[0]


def spoken(text: str) -> str:
    """The answer in a `plain` text: without reasoning, end token and styling tags."""
    text = after_reasoning(text)
    unended = phrases.THOUGHT_START.search(text)
    if unended:
        text = text[: unended.start()]
    end = phrases.END_TOKEN.search(text)
    if end and text[: end.start()].strip():
        text = text[: end.start()]
    if turn := phrases.TURN_START.match(text):
        text = text[turn.end() :]
    if "_" in text:
        text = phrases.UNDERSCORES.sub(r"*\1*", text)
    if "\\" in text:
        text = phrases.LATEX_SPACE.sub(" ", phrases.LATEX_STYLE.sub(r"\1", text)).replace("\\%", "%")
    if "<" in text:
        text = phrases.STYLE_TAG.sub("", phrases.CELL_TAG.sub(" ", phrases.LINE_TAG.sub("\n", text)))
    return text


def answers(text: str) -> Iterator[str]:
    """The parts of `text` that may answer the prompt's question; the first one with a decision is the answer.

    A model that is not stopped invents further questions and answers them. So a question's header ends the answer,
    unless the text only repeats the prompt's question: then it begins with the header, or with a sentence that
    introduces it, and ends at the second header of the same kind.
    """
    kinds: set[str] = set()
    begun = False
    start, end = 0, len(text)
    for header in phrases.NEXT_QUESTION.finditer(text):
        kind = _kind(header)
        before = text[: header.start()].strip()
        if not kinds:
            begun = bool(before) and not _introduces(before)
        numbered = kind != "listed" and any(character.isdigit() for character in header[0])
        if kind in kinds or (begun and (kind not in _MILD or numbered)):
            end = header.start()
            break
        if begun and not kinds:
            yield text[: header.start()]
            start = header.start()
        kinds.add(kind)
    yield text[start:end]


#: headers that may also stand in an explanation
_MILD = {"listed", "example", "case", "task", "scenario"}


def _kind(header: re.Match[str]) -> str:
    if header["listed"]:
        return "listed"
    word = (header["word"] or "turn").casefold()
    if word in ("user", "human", "turn", "assistant", "model"):
        return "turn"
    return word if word in _MILD or word in ("abstract", "context", "passage", "instruction") else "question"


def _introduces(before: str) -> bool:
    """Whether `before` only introduces the question ("Sure, here is the question:")."""
    return len(before) <= 200 and phrases.INTRODUCTION.match(before) is not None
