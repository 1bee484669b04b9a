"""Searches a generated text for the texts of a question's options.

Texts are compared by words and numbers: case, accents, punctuation, white space, "and" and hyphens between words are
ignored ("Guillain-Barré" is "guillain barre"); signs, decimals, ranges and units are not.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from medqlora.evaluation.parsing.text import CJK

#: white space, ignored marks, "and"; not a stop that ends a sentence
_SKIPPED = re.compile(
    r"(?:[\s,;:()\[\]{}\"'*_`|!?\\$–—]|\.(?!\s|$|\d)|(?<=\d)\.(?=\s|$)|(?<!\d)-(?!\d)|-(?=\D)|(?<=[^\W\d])-"
    r"|&|and(?!\w)){1,24}",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"(?P<number>[-+]?(?:\d{1,3}(?:,\d{3}){1,5}(?!\d)|\d{1,40})(?:\.\d{1,40})?|[-+]?\.\d{1,40})"
    # each character is a word in a script without spaces
    rf"|(?P<mark>[{CJK}])|(?P<word>(?:(?![{CJK}])[^\W\d_]){{1,80}}(?:'[^\W\d_]{{1,20}}){{0,3}})|(?P<other>\S)"
)
#: not "A", which is a letter
_ARTICLE = re.compile(r"(?:to|the|an|der|die|das|la|el|le|les|il|lo|(?-i:a|o))\s{1,3}|l'", re.IGNORECASE)


class OptionMatch(NamedTuple):
    """An option's text at some position.

    Attributes:
        labels: the labels of the options with this text; more than one where texts are equal.
        end: the index after it.
        longer: whether another option's text begins with this one.
    """

    labels: tuple[str, ...]
    end: int
    longer: bool


class OptionTexts:
    """The texts of a question's options, prepared for the search.

    Args:
        options: label → text; a text without any word, number or mark is skipped.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        labels: dict[tuple[str, ...], list[str]] = {}
        self.longest = 0
        for label, text in options.items():
            words = tuple(token for token, _ in _tokens(text))
            while words and words[-1] == ".":
                words = words[:-1]
            if words:
                labels.setdefault(words, []).append(label)
                self.longest = max(self.longest, len(text))
        self._written = [text.casefold() for text in options.values()]
        self._last_words = {words[-1] for words in labels}
        self._words = {label: words for words, those in labels.items() for label in those}
        self._by_first: dict[str, list[tuple[tuple[str, ...], OptionMatch]]] = {}
        for words, those in sorted(labels.items(), key=lambda pair: -len(pair[0])):
            longer = any(len(other) > len(words) and other[: len(words)] == words for other in labels)
            self._by_first.setdefault(words[0], []).append((words, OptionMatch(tuple(those), 0, longer)))

    def __bool__(self) -> bool:
        return bool(self._by_first)

    def at(self, text: str, start: int) -> OptionMatch | None:
        """The longest option text at `start`, with or without an article before it."""
        if not self._by_first:
            return None
        option = self.exactly_at(text, start)
        if option is None:
            article = _ARTICLE.match(text, start)
            option = self.exactly_at(text, article.end()) if article else None
        return option

    def exactly_at(self, text: str, start: int) -> OptionMatch | None:
        """The longest option text that begins at `start`."""
        if not self._by_first or text[start : start + 1].isspace():
            return None
        first = next(_tokens(text[start : start + 100]), None)
        if first is None or first[0] not in self._by_first:
            return None
        window = text[start : start + 2 * self.longest + 40]
        said: list[tuple[str, int]] = []
        tokens = _tokens(window)
        candidates = self._by_first[first[0]]
        for _ in candidates[0][0]:
            token = next(tokens, None)
            if token is None:
                break
            said.append(token)
        for words, option in candidates:
            if len(words) <= len(said) and all(word == said[i][0] for i, word in enumerate(words)):
                return option._replace(end=start + said[len(words) - 1][1])
        return None

    def cut(self, begin: str) -> bool:
        """Whether `begin` is the beginning of an option's text, in lower case."""
        return any(text.startswith(begin) for text in self._written)

    def may_end(self, text: str) -> bool:
        """Whether `text` ends with the last word of an option's text; a cheap check before a search."""
        tokens = [token for token, _ in _tokens(re.split(r"\s", text[-100:])[-1])]
        return bool(tokens) and tokens[-1] in self._last_words

    def begins_with(self, label: str, other: str) -> bool:
        """Whether the text of `label` begins with the text of `other`, and is longer."""
        words, begin = self._words.get(label, ()), self._words.get(other, ())
        return 0 < len(begin) < len(words) and words[: len(begin)] == begin


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """The words, numbers and marks of `text` in their compared form, each with its end."""
    at = 0
    while at < len(text):
        skipped = _SKIPPED.match(text, at)
        if skipped is not None:
            at = skipped.end()
            continue
        token = _TOKEN.match(text, at)
        if token is None:
            return
        value = token[0]
        at = token.end()
        if token["number"]:
            before = text[token.start() - 1 : token.start()] if token.start() else ""
            if value[0] == "-" and (before.isalnum() or before == "%"):  # a range, not a sign
                yield "-", token.start() + 1
                value = value[1:]
            yield value.replace(",", ""), at
        elif token["word"]:
            yield _folded(value), at
        else:
            yield value, at


def _folded(word: str) -> str:
    word = word.casefold().replace("'", "")
    if word.isascii():
        return word
    return (
        "".join(letter for letter in unicodedata.normalize("NFKD", word) if not unicodedata.combining(letter))
        or word
    )
