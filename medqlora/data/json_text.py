"""Strict JSON, with the line of each violation: Python's own reader accepts more than the standard.

RFC 8259, https://www.rfc-editor.org/rfc/rfc8259: a key stands once (section 4), and half of a surrogate pair is no
character (section 8.2). It has no NaN and no Infinity either (section 6), but Python and pandas write them for a
missing value, so they are read as null.
"""

import json
import re

from medqlora.data.wording import shown
from medqlora.utils.types import Json

#: halves of a surrogate pair as an escape; complete pairs match too and pass the check afterwards
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
# an unrolled loop: matching a string of 50 MB takes no memory
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|-?\d+', re.DOTALL)
_COLON = re.compile(r"\s*:")

#: levels of lists and objects; Python's own limit differs between versions
DEEPEST = 100

_DECODER = json.JSONDecoder()


class MalformedError(ValueError):
    """The text is JSON, but unusable.

    Attributes:
        line: the line of the fault, counted from 1; None where it is unknown.
    """

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def parse_json(text: str) -> Json:
    """The value of a JSON text; NaN and Infinity are null.

    Raises:
        json.JSONDecodeError: the text is no JSON.
        MalformedError: it is JSON with a repeated key, half of a surrogate pair, too long a number, or nested too deep.
    """
    try:
        value: Json = json.loads(text, object_pairs_hook=_object, parse_constant=lambda _: None)
        if _HALF.search(text):
            _whole_characters(value)
        if text.count("[") + text.count("{") > DEEPEST:
            _flat_enough(value)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        line = _too_deep(text)
        raise MalformedError(f"it is nested too deep ({DEEPEST} levels at most): flatten it", line) from None
    except _RefusedError as refused:
        raise MalformedError(str(refused), _line(text, refused.kind, refused.found)) from None
    except ValueError:  # Python reads whole numbers of 4,300 digits at most
        raise MalformedError("a number there is too long: write it as a text", _long_number(text)) from None
    return value


def ends_at(text: str, start: int) -> int:
    """The end of the JSON value that begins at `start`; `parse_json` checks its content.

    Raises:
        ValueError: as `parse_json`.
    """
    try:
        _, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise MalformedError(f"it is nested too deep ({DEEPEST} levels at most): flatten it", None) from None
    except ValueError:
        raise MalformedError("a number there is too long: write it as a text", None) from None
    return end


class _RefusedError(ValueError):
    def __init__(self, message: str, kind: str, found: str = "") -> None:
        super().__init__(message)
        self.kind, self.found = kind, found


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(f"the key {shown(key)} appears twice: remove one", "key", key)
            seen.add(key)
    return result


def _whole_characters(value: Json) -> None:
    halves = _SURROGATE.search(json.dumps(value, ensure_ascii=False))
    if halves:
        raise _RefusedError(
            f"\\u{ord(halves[0]):04x} is half of a surrogate pair: write the whole character", "half"
        )


def _flat_enough(value: Json) -> None:
    level: list[Json] = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise RecursionError


def _at(text: str, index: int) -> int:
    return text.count("\n", 0, index) + 1


def _line(text: str, kind: str, wanted: str) -> int | None:
    """The line of the first faulty token of this kind ("half", "key"); a key is faulty where its object repeats it."""
    keys: list[set[str] | None] = []  # the keys of each open object, None for an open list
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in "{[":
            keys.append(set() if token == "{" else None)
        elif token in "}]":
            if keys:
                keys.pop()
        elif token[0] != '"':
            continue
        elif kind == "half":
            if _HALF.search(token) and _SURROGATE.search(json.loads(token)):
                return _at(text, found.start())
        elif kind == "key" and keys and keys[-1] is not None and _COLON.match(text, found.end()):
            key = json.loads(token)
            if key == wanted and key in keys[-1]:
                return _at(text, found.start())
            keys[-1].add(key)
    return None


def _too_deep(text: str) -> int | None:
    depth = 0
    for found in _TOKEN.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found[0], 0)
        if depth > DEEPEST:
            return _at(text, found.start())
    return None


def _long_number(text: str) -> int | None:
    number = next(
        (found for found in _TOKEN.finditer(text) if found[0][-1].isdigit() and len(found[0]) > 4000), None
    )
    return None if number is None else _at(text, number.start())
