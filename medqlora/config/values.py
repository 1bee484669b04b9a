"""Whether a value fits the type of an option, and the words for what the type accepts.

Follows jsonargparse 4.42 to 4.53: text is read as YAML where the type isn't `str`, an integer is a valid float, and a
boolean is no number. Where these rules can't tell, a value is accepted: jsonargparse checks it again.
"""

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from medqlora.config.files import parse_text

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_SCALARS = (int, float, bool, str)


def fits(hint: object, value: object, *, typed: bool = False) -> bool:
    """Whether jsonargparse may accept the value; false only where it surely doesn't.

    Args:
        hint: the type of the option.
        value: plain data.
        typed: the value is text of the command line, to be read as YAML.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if _is_union(hint):
        return any(fits(part, value, typed=typed) for part in parts)
    if origin is Literal:
        return value in parts or (isinstance(value, str) and parse_text(value).value in parts)
    if hint is type(None):
        return _read(value) is None
    if hint is str:
        return isinstance(value, str)
    if hint in _SCALARS:
        return _is_scalar(hint, _read(value))
    plain = _read(value) if typed else value
    if origin is list:
        if not isinstance(plain, list):
            return False
        return all(fits(parts[0], item, typed=typed) for item in plain if not isinstance(item, str))
    if origin is dict:
        return isinstance(plain, Mapping)
    if hint is Path:
        return isinstance(value, str)
    return True


def convert(hint: object, value: object) -> object:
    """A value that `fits`, as its type: text that stands for a number becomes one."""
    if isinstance(value, str) and not _allows_text(hint, value):
        value = parse_text(value).value
    numbers = [part for part in alternatives(hint) if part in (int, float)]
    if numbers == [float] and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def wanted(hint: object) -> str:
    """What a value has to be, for the end of a message."""
    choices = [str(choice) for choice in choices_of(hint)]
    kinds = list(dict.fromkeys(_kinds(hint)))
    if not choices:
        return f"it has to be {' or '.join(kinds)}"
    # of whole numbers among the choices the kind says nothing new
    lead = "choose " if not kinds or any(choice.isdigit() for choice in choices) else ""
    lead = lead or f"it has to be {' or '.join(kinds)}, or "
    distinct = list(dict.fromkeys(choices))
    if kinds and len(distinct) == 1:
        return f"{lead}{distinct[0]}"
    return f"{lead}one of {', '.join(distinct)}"


def type_name(hint: object) -> str:
    """A type in a few words, for help and documentation."""
    names = [str(choice) for choice in choices_of(hint)]
    for part in alternatives(hint):
        origin = get_origin(part)
        if part is type(None):
            names.append("null")
        elif origin is list:
            names.append("list")
        elif origin is dict:
            names.append("mapping")
        elif origin is not Literal:
            names.append(
                {int: "INT", float: "FLOAT", bool: "BOOL", str: "TEXT", Path: "PATH"}.get(part, "CLASS")
            )
    return "|".join(dict.fromkeys(name for name in names if name != "PATH" or "TEXT" not in names))


def alternatives(hint: object) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    return get_args(hint) if _is_union(hint) else (hint,)


def choices_of(hint: object) -> Iterator[object]:
    """The values of the type's literals."""
    for part in alternatives(hint):
        if get_origin(part) is Literal:
            yield from get_args(part)


def _is_union(hint: object) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _read(value: object) -> object:
    return parse_text(value).value if isinstance(value, str) else value


def _is_scalar(hint: object, value: object) -> bool:
    if hint is bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if hint is float else int)


def _allows_text(hint: object, value: str) -> bool:
    return any(part is str or value in get_args(part) for part in alternatives(hint))


def _kinds(hint: object) -> Iterator[str]:
    for part in alternatives(hint):
        origin = get_origin(part)
        if part in _WORDS:
            yield _WORDS[part]
        elif origin in (list, dict):
            yield "a list" if origin is list else "a mapping"
