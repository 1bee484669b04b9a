"""Checked single values of a row; an error names the row's file and line, the key, the value and the fix."""

import math
import re
from collections.abc import Sequence

from medqlora.data.readers import Row
from medqlora.data.wording import listed, plain, shown
from medqlora.errors import InputError

LONGEST_NAME = 500  # characters of an id or a label; messages, tables and file names show both

#: control characters, line and paragraph separators, halves of surrogate pairs, and the marks that
#: change the direction of the text around them (https://unicode.org/reports/tr36/, section 2.9)
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: spaces, soft hyphens, joiners and byte order marks: a text of these alone is blank
_BLANK = re.compile("[\\s\xad\u200b-\u200d\u2060-\u2064\ufeff]*")
_WHOLE = re.compile(r"-?\d{1,40}")


def is_missing(value: object) -> bool:
    """Whether a value is None, a blank text, or the NaN that pandas writes for a missing cell."""
    return value is None or (isinstance(value, str) and bool(_BLANK.fullmatch(value))) or value != value


def is_null_word(value: object) -> bool:
    """Whether a text is a word that databases and pandas write into a CSV for a missing value.

    Such a text is no passage and no rationale, but it may be an answer or an option."""
    return isinstance(value, str) and value.strip() in ("\\N", "NULL", "null", "nan", "NaN", "None", "<NA>")


def bad(row: Row, key: str, value: object, fix: str) -> InputError:
    """The error for an unusable value."""
    return InputError(f"{row.where}: {plain(key)} is {shown(value)}: {fix}")


def text(row: Row, key: str, value: object, *, needed: bool = False) -> str:
    """A text; "" where it is missing and not needed.

    Raises:
        InputError: the value is no text, or missing although needed.
    """
    if is_missing(value):
        if needed:
            raise InputError(f"{row.where}: {plain(key)} is missing or empty: every row needs one")
        return ""
    if not isinstance(value, str):
        raise bad(row, key, value, "give a text")
    return value


def texts(row: Row, key: str, value: object) -> tuple[str, ...]:
    """A list of texts; a single text counts as a list of one, a missing value as an empty list.

    Raises:
        InputError: the value is no list, or one of its items is no text.
    """
    if is_missing(value):
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, (list, tuple)):
        raise bad(row, key, value, "give a list of texts")
    for item in value:
        if not isinstance(item, str):
            raise bad(row, key, item, "give a list of texts")
    return tuple(value)


def identity(row: Row, key: str, value: object) -> str:
    """An id: a text or a whole number. Tables and messages show ids, so all of their characters are visible.

    Raises:
        InputError: it is neither, too long, or holds control characters or marks of direction.
    """
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)  # pandas makes floats of a column of ids with a gap
    if isinstance(value, dict) and list(value) == ["$oid"]:
        value = value["$oid"]  # MongoDB's export
    if isinstance(value, bool) or not isinstance(value, (str, int)) or is_missing(value):
        raise bad(row, key, value, "give a text or a whole number as id")
    return name(row, key, str(value).strip())


def name(row: Row, key: str, value: str) -> str:
    """A text that identifies a record or an answer elsewhere: an id, an option's letter.

    Raises:
        InputError: it is empty, too long, or holds control characters or marks of direction.
    """
    if not value.strip():
        raise bad(row, key, value, "give it a name")
    if len(value) > LONGEST_NAME:
        raise bad(row, key, value, f"give {LONGEST_NAME} characters at most")
    if _UNSEEN.search(value):
        raise bad(row, key, value, "take out control characters and marks of direction")
    return value


def whole(value: object) -> int | None:
    """A whole number, also from a CSV's text or from pandas' float; None for anything else."""
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value.strip()) else None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def one_of(row: Row, key: str, value: object, allowed: Sequence[str], fix: str = "correct it") -> str:
    """One of `allowed`.

    Raises:
        InputError: the value is none of them; names them.
    """
    if not isinstance(value, str) or value not in allowed:
        written = value.strip().lower() if isinstance(value, str) else ""
        near = [name for name in allowed if written == name.lower()]
        hint = f"write {shown(near[0])}" if near else fix
        raise InputError(
            f"{row.where}: {plain(key)} is {shown(value)}, which is none of {listed(allowed)}: {hint}"
        )
    return value
