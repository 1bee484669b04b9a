"""Before the model is asked: is this a person in danger, or a request to do harm?

A model that was fine-tuned on abstracts answers "how do I kill myself" with a yes, a no or a dose. Such a
question gets a fixed reply that says where to turn, and the model never sees it. English only, and by
phrases: it finds what is put plainly, with typos, capitals and look-alike letters, and misses what is put
in hints. It is a net under the model, no triage, and no promise that what passes is harmless.
Of about 100 dangerous requests that were written to try it, without a look at the phrases, it found a little over
half, and stopped 2 of 90 clinical questions; the phrases then took in what was missed (the tests hold both
lists).

What must pass: research questions ("Does lithium reduce suicide?"), vignettes of examinations with a patient
who "wants to kill himself", and toxicology as a textbook has it. So a bare "lethal dose of X", in rats or in
humans, passes; "how much X would kill a person" or "kill me" does not. What is long over ("my son swallowed
bleach last year") passes as well.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from medqlora.safety import screen_emergencies as emergencies
from medqlora.safety import screen_phrases as phrases
from medqlora.safety import screen_words as vocabulary

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
    """What is said instead of an answer.

    Attributes:
        kind: what the question looked like.
        text: where to turn; plain text in a few lines.
    """

    kind: Literal["self_harm", "poisoning", "emergency"]
    text: str


def screen(question: str) -> SafeReply | None:
    """The fixed reply that `question` calls for, None where the model may be asked.

    An emergency is looked for before self-harm, and its reply names the crisis lines too: who has taken the
    tablets needs the ambulance first. Never raises; takes time linear in the length of `question`.

    Args:
        question: the question alone, in English, of any length.
    """
    plain = _plain(question)
    words = _words(plain)
    # in a vignette, what the patient says is quoted, and only the one who asks can be at hand
    told = _words(_QUOTED.sub(" ", plain)) if emergencies.VIGNETTE.search(words) else words
    vignette = emergencies.VIGNETTE.search(told) is not None and not emergencies.FIRST_PERSON.search(told)
    if not vignette and _emergency(told):
        return SafeReply("emergency", vocabulary.EMERGENCY_REPLY)
    if _found(phrases.SELF_HARM_REQUEST, words) or (not vignette and _found(phrases.SELF_HARM, told)):
        return SafeReply("self_harm", vocabulary.SELF_HARM_REPLY)
    if _found(phrases.POISONING, words):
        return SafeReply("poisoning", vocabulary.POISONING_REPLY)
    return None


def _emergency(words: str) -> bool:
    if _found(emergencies.EMERGENCY, words, emergencies.OVER):
        return True
    return bool(emergencies.AT_HAND.search(words)) and _found(
        emergencies.EMERGENCY_OF_OTHERS, words, emergencies.OVER
    )


def _found(patterns: tuple[re.Pattern[str], ...], words: str, unless: re.Pattern[str] | None = None) -> bool:
    """Whether a pattern is in `words`, in a sentence where `unless` is not."""
    for pattern in patterns:
        for found in pattern.finditer(words):
            if unless is None:
                return True
            # a sentence may be the whole text: only what is near is looked at, or time were quadratic
            low, high = max(0, found.start() - 200), found.end() + 200
            before = words[low : found.start()].rpartition(" . ")[2]
            after = words[found.end() : high].partition(" . ")[0]
            if not unless.search(f" {before}{found.group()}{after} "):
                return True
    return False


def _plain(text: str) -> str:
    """`text` in lower-case Latin letters: NFKC, look-alikes of other scripts, accents, digits as letters."""
    text = unicodedata.normalize("NFKC", text).casefold().translate(vocabulary.LOOKALIKES)
    kept = (
        one for one in unicodedata.normalize("NFKD", text) if unicodedata.category(one) not in ("Mn", "Cf")
    )
    return vocabulary.LEET.sub(lambda found: vocabulary.LEET_LETTERS[found.group()], "".join(kept))


def _words(plain: str) -> str:
    """The words of `plain` with a space on either side, " . " between sentences, typos corrected."""
    text = _SPELLED.sub(lambda found: re.sub(r"[^a-z]", "", found.group()), plain.replace("\n", " "))
    text = re.sub(r"(?<=[a-z])[*](?=[a-z])", "", text)
    text = re.sub(r"['’‘`´]", "", text)
    words = []
    for found in _WORD.finditer(_STRETCHED.sub(r"\1", text)):
        word = found.group()[:_LONGEST]
        words.append(word if word.isalnum() and word.isascii() else ".")
    joined = f" {' '.join(corrected(word) for word in words)} "
    for pattern, meant in vocabulary.JOINED:
        joined = pattern.sub(meant, joined)
    return joined


def corrected(word: str) -> str:
    """`word`, or the word of `vocabulary.VOCABULARY` that it is a slip of the keyboard away from."""
    if word in vocabulary.SLANG:
        return vocabulary.SLANG[word]
    if len(word) < 5 or word in vocabulary.VOCABULARY or word in vocabulary.NO_TYPOS:
        return word
    for place in range(len(word)):
        shorter = word[:place] + word[place + 1 :]
        if shorter in vocabulary.VOCABULARY:
            return shorter
        meant = vocabulary.ONE_LESS.get(shorter)
        if meant is not None and abs(len(meant) - len(word)) < 2:
            return meant
    return vocabulary.ONE_LESS.get(word, word)
