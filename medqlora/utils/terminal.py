"""Foreign texts in a form that a terminal shows and does not act on."""

import unicodedata


def printable(text: str) -> str:
    """The text with plain spaces, and with escapes for invisible characters; line ends stay.

    Control characters move the cursor, and direction marks reorder the text around them
    (https://unicode.org/reports/tr36/, section 2.9).
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def printable_line(text: str) -> str:
    """The text as `printable` gives it, in one line."""
    return printable(" ".join(text.splitlines()))


def _visible(letter: str) -> str:
    if letter.isprintable() or letter == "\n":
        return letter
    if unicodedata.category(letter) == "Zs":  # as the narrow space between a number and its unit
        return " "
    return letter.encode("unicode_escape").decode()
