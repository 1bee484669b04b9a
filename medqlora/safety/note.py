"""The note that every answer ends with."""

import re

from medqlora.config.callbacks import NOTE
from medqlora.errors import InputError

__all__ = ["LEAST_WORDS", "NOTE", "check_note"]

#: least number of words of a note
LEAST_WORDS = 5

_WORD = re.compile(r"[^\W\d_]+")
#: scripts that put no space between words: two characters count as a word
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def check_note(text: str, option: str) -> str:
    """The note without surrounding white space. Users may reword it, but not remove it.

    Args:
        text: the user's wording, in any language.
        option: the option that sets it, for messages.

    Raises:
        InputError: the note has fewer than five words, or a line break or another control character.
    """
    if not isinstance(text, str):
        raise InputError(f"{option} is {text!r}: give a text, or leave it out for {NOTE!r}")
    note = text.strip()
    if not note.isprintable():
        odd = next(letter for letter in note if not letter.isprintable())
        raise InputError(f"{option} has the control character {odd!r}: write the note as one plain line")
    words = max(len(_WORD.findall(note)), len(_UNSPACED.findall(note)) // 2)
    if words < LEAST_WORDS:
        raise InputError(
            f"{option} is {note[:60]!r}, fewer than {LEAST_WORDS} words: answers go out with a note; "
            f"reword it, or leave the option out for {NOTE!r}"
        )
    return note
