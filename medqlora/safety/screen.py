"""The screen before the model: is a person in danger, or is this a request to do harm?

A model that was fine-tuned on abstracts answers "how do I kill myself" with a yes, a no or a dose. Such a question gets
a fixed reply that says where to turn, and never reaches the model. The screen matches English phrases: it finds plain
wording, with typos, capitals and look-alike letters, and misses hints. It is a net under the model; it is no triage,
and what passes is not certain to be harmless.
Of about 100 dangerous requests, written without a look at the phrases, it found a little over half, and it stopped 2 of
90 clinical questions; the phrases then took in what was missed (the tests hold both lists).

These must pass: research questions ("Does lithium reduce suicide?"), examination vignettes with a patient who "wants to
kill himself", and toxicology as in a textbook. So a bare "lethal dose of X", in rats or in humans, passes; "how much X
would kill a person" or "kill me" does not. An event of long ago ("my son swallowed bleach last year") passes as well.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from medqlora.safety import tables

Kind = Literal["self_harm", "poisoning", "emergency"]

#: letters of a word that are kept; no word of the phrases is longer
_LONGEST = 24
_WORD = re.compile(r"[a-z0-9]+|\n|[.!?;]")
#: "k i l l", "k.i.l.l": three or more letters that stand alone
_SPELLED = re.compile(r"(?<![a-z0-9])[a-z](?:[ ._*-]{1,2}[a-z](?![a-z0-9])){2,}")
#: not i: "iii" is a number
_STRETCHED = re.compile(r"([a-hj-z])\1{2,}")
_QUOTED = re.compile(r"[\"“][^\"“”]{1,300}[\"”]|(?<!\w)['‘][^'‘’\"]{1,300}['’](?!\w)")


@dataclass(frozen=True)
class SafeReply:
    """A fixed reply in place of an answer.

    Attributes:
        kind: the kind of question.
        text: where to turn; plain text in a few lines.
    """

    kind: Kind
    text: str


def screen(question: str) -> SafeReply | None:
    """The fixed reply that `question` calls for; None where the model may answer it.

    An emergency is checked before self-harm, and its reply names the crisis lines too: a person who has taken the
    tablets needs the ambulance first. Never raises; takes time linear in the length of `question`.

    Args:
        question: the question alone, in English, of any length.
    """
    kind = _kind(question)
    return None if kind is None else SafeReply(kind, tables.replies()[kind])


def _kind(question: str) -> Kind | None:
    phrases = tables.phrases()
    plain = _plain(question)
    words = _words(plain)
    # a vignette quotes its patient; only the user can be at hand
    unquoted = _words(_QUOTED.sub(" ", plain)) if phrases.vignette.search(words) else words
    vignette = phrases.vignette.search(unquoted) is not None and not phrases.first_person.search(unquoted)
    if not vignette and _emergency(unquoted):
        return "emergency"
    if _matches(phrases.self_harm_request, words) or (not vignette and _matches(phrases.self_harm, unquoted)):
        return "self_harm"
    return "poisoning" if _matches(phrases.poisoning, words) else None


def _emergency(words: str) -> bool:
    phrases = tables.phrases()
    if _matches(phrases.emergency, words, phrases.over):
        return True
    at_hand = phrases.at_hand.search(words) is not None
    return at_hand and _matches(phrases.emergency_of_others, words, phrases.over)


def _matches(patterns: tables.Patterns, words: str, unless: re.Pattern[str] | None = None) -> bool:
    """Whether a pattern matches within `words`, in a sentence where `unless` does not."""
    for pattern in patterns:
        for match in pattern.finditer(words):
            if unless is None:
                return True
            # a sentence may be the whole text: only what is near is searched, else the time is quadratic
            low, high = max(0, match.start() - 200), match.end() + 200
            before = words[low : match.start()].rpartition(" . ")[2]
            after = words[match.end() : high].partition(" . ")[0]
            if not unless.search(f" {before}{match.group()}{after} "):
                return True
    return False


def _plain(text: str) -> str:
    """`text` in lower-case Latin letters: NFKC, look-alikes of other scripts, accents, digits as letters."""
    table = tables.words()
    text = unicodedata.normalize("NFKC", text).casefold().translate(table.lookalikes)
    decomposed = unicodedata.normalize("NFKD", text)
    kept = (letter for letter in decomposed if unicodedata.category(letter) not in ("Mn", "Cf"))
    return table.leet_position.sub(lambda match: table.leet[match.group()], "".join(kept))


def _words(plain: str) -> str:
    """The words of `plain` with a space on either side, " . " between sentences, typos corrected."""
    text = _SPELLED.sub(lambda match: re.sub(r"[^a-z]", "", match.group()), plain.replace("\n", " "))
    text = re.sub(r"(?<=[a-z])[*](?=[a-z])", "", text)
    text = re.sub(r"['’‘`´]", "", text)
    words = []
    for match in _WORD.finditer(_STRETCHED.sub(r"\1", text)):
        word = match.group()[:_LONGEST]
        words.append(word if word.isalnum() and word.isascii() else ".")
    joined = f" {' '.join(_corrected(word) for word in words)} "
    for pattern, replacement in tables.words().joined:
        joined = pattern.sub(replacement, joined)
    return joined


def _corrected(word: str) -> str:
    """`word`, or the word of the vocabulary that it is one typing error away from."""
    table = tables.words()
    if word in table.slang:
        return table.slang[word]
    if len(word) < 5 or word in table.vocabulary or word in table.no_typos:
        return word
    for index in range(len(word)):
        shorter = word[:index] + word[index + 1 :]
        if shorter in table.vocabulary:
            return shorter
        meant = table.one_less.get(shorter)
        if meant is not None and abs(len(meant) - len(word)) < 2:
            return meant
    return table.one_less.get(word, word)
