"""The note that every answer ends with."""

import re

from medqlora.config.callbacks import NOTE
from medqlora.errors import InputError

__all__ = ["LEAST_WORDS", "NOTE", "check_note"]

#: a note of fewer words says nothing
LEAST_WORDS = 5

_WORD = re.compile(r"[^\W\d_]+")
#: scripts that put no space between words: two characters count as a word
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def check_note(text: str, option: str) -> str:
    """The note as it will be shown, without white space around it. It may be reworded, not removed.

    Args:
        text: the user's wording, in any language.
        option: what the user calls it ("--model.note"), for the message.

    Raises:
        InputError: it has fewer than five words, or a line break or another control character.
    """
    if not isinstance(text, str):
        raise InputError(f"{option} is {text!r}: give a text, or leave it out for {NOTE!r}")
    note = text.strip()
    if not note.isprintable():
        odd = next(one for one in note if not one.isprintable())
        raise InputError(f"{option} has the control character {odd!r}: write the note as one plain line")
    words = max(len(_WORD.findall(note)), len(_UNSPACED.findall(note)) // 2)
    if words < LEAST_WORDS:
        raise InputError(
            f"{option} is {note[:60]!r}, fewer than {LEAST_WORDS} words: answers go out with a note; "
            f"reword it, or leave the option out for {NOTE!r}"
        )
    return note
