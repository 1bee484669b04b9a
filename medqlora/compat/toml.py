"""TOML: read by the standard library from Python 3.11 on, before by `tomli`; written here, in a small part."""

import json
import sys
from collections.abc import Mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(text: str) -> dict[str, object]:
    """The content of a TOML document.

    Raises:
        ValueError: it is none.
    """
    return tomllib.loads(text)


def write_toml(content: Mapping[str, object]) -> str:
    """A TOML document: plain values first, then tables, then arrays of tables. None is left out.

    Args:
        content: of texts, numbers, booleans, lists of these, mappings, and lists of mappings.
    """
    return "\n".join(_lines(content, "")).strip() + "\n"


def _lines(content: Mapping[str, object], prefix: str) -> list[str]:
    lines, tables = [], []
    for key, value in content.items():
        name = f"{prefix}{_key(key)}"
        if isinstance(value, Mapping):
            tables += ["", f"[{name}]", *_lines(value, f"{name}.")]
        elif isinstance(value, (list, tuple)) and value and all(isinstance(one, Mapping) for one in value):
            for one in value:
                tables += ["", f"[[{name}]]", *_lines(one, f"{name}.")]
        elif value is not None:
            lines.append(f"{_key(key)} = {_value(value)}")
    return [*lines, *tables]


def _key(key: str) -> str:
    plain = key and all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in key)
    return key if plain else _value(key)


def _value(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    # a JSON string is a basic string of TOML, but for DEL, which TOML has escaped
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
