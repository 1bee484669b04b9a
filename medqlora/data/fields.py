"""Single values of a row, checked: what isn't as it should be gets the row's place, the key and the fix."""

import math
from collections.abc import Sequence
from typing import Any

from medqlora.data.files import Row, shown
from medqlora.errors import InputError


def is_missing(value: object) -> bool:
    """None, an empty text, or the NaN that pandas writes for a missing cell."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def bad(row: Row, key: str, value: object, fix: str) -> InputError:
    """The message for a value that can't be used."""
    return InputError(f"{row.where}: {key} is {shown(value)}: {fix}")


def text(row: Row, key: str, value: Any, *, needed: bool = False) -> str:
    """A text; "" where it is missing and not needed.

    Raises:
        InputError: it is no text, or needed and missing.
    """
    if is_missing(value):
        if needed:
            raise InputError(f"{row.where}: {key} is missing or empty: every row needs one")
        return ""
    if not isinstance(value, str):
        raise bad(row, key, value, "give a text")
    return value


def texts(row: Row, key: str, value: Any) -> tuple[str, ...]:
    """A list of texts; a text by itself counts as a list of one, a missing one as an empty list.

    Raises:
        InputError: something in it is no text.
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


def identity(row: Row, key: str, value: Any) -> str:
    """An id: a text or a whole number.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)  # pandas makes floats of a column of ids with a gap
    if isinstance(value, bool) or not isinstance(value, (str, int)) or is_missing(value):
        raise bad(row, key, value, "give a text or a whole number as id")
    return str(value).strip()


def whole(value: object) -> int | None:
    """A whole number, also as text (a CSV's) or as a float (pandas'); None for anything else."""
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        return int(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def one_of(row: Row, key: str, value: Any, allowed: Sequence[str], fix: str = "correct it") -> str:
    """One of `allowed`.

    Raises:
        InputError: it isn't; names what is allowed.
    """
    if not isinstance(value, str) or value not in allowed:
        near = [name for name in allowed if str(value).strip().lower() == name.lower()]
        hint = f"write {near[0]!r}" if near else fix
        raise InputError(
            f"{row.where}: {key} is {shown(value)}, which is none of {', '.join(allowed)}: {hint}"
        )
    return value
