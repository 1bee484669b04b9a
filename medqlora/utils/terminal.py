"""Texts from elsewhere as a terminal shows them: it acts on nothing in them."""

import unicodedata


def printable(text: str) -> str:
    """Lines with spaces of one kind, and escapes in the place of what can't be seen.

    Control characters move a cursor, marks of direction turn what stands around them
    (https://unicode.org/reports/tr36/, section 2.9).
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_line(text: str) -> str:
    """The same, in one line."""
    return printable(" ".join(text.splitlines()))


def _shown(letter: str) -> str:
    if letter.isprintable() or letter == "\n":
        return letter
    if unicodedata.category(letter) == "Zs":  # as between a number and its unit
        return " "
    return letter.encode("unicode_escape").decode()
