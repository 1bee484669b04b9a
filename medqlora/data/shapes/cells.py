"""Lists and objects that stand in a table as text: JSON, Python's literals, and what numpy prints.

Sources of the forms: `json.dumps`; pandas' `to_csv` of a list (`['a', 'b']`); `datasets` through pandas, whose
cells are numpy arrays (`['a' 'b']`, without commas, over several lines; in an object `array(['a'], dtype=object)`).
Nothing is evaluated: the text is split into tokens, and a call other than an array's is refused.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from medqlora.data.json_text import parse_json

#: levels of lists and objects in a cell
DEEPEST = 30

_BEGIN = re.compile(r"\s*(?:(?:np\.|numpy\.)?array\s*\(\s*)?[\[{]")
_TUPLE = re.compile(r"\s*\(\s*['\"]")
# a bracket and then a quote: prose begins with "[12] patients" or "[Methods]", hardly ever with this
_QUOTED = re.compile(r"\s*(?:(?:np\.|numpy\.)?array\s*\(\s*)?[\[{][\[{(\s]*[uU]?(?:array\(\[\s*)?['\"]")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>[uU]?(?:'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"))
      | (?P<call>(?:np\.|numpy\.)?(?:array|str_|bool_|int\d+|float\d+)\s*\()
      | (?P<dtype>dtype\s*=\s*(?:'[^']*'|"[^"]*"|[\w.]+))
      | (?P<gap>\.\.\.)
      | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
      | (?P<word>None|True|False|null|true|false|nan|NaN)\b
      | (?P<mark>[\[\](){},:])
    )""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"True": True, "true": True, "False": False, "false": False}
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(.))", re.DOTALL
)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\n": ""}
_SURROGATE = re.compile("[\ud800-\udfff]")
_CLOSING = {"[": "]", "{": "}", "(": ")"}


class CellError(ValueError):
    """A text that begins like a list of texts, and is none; says what is wrong."""


class _Token(NamedTuple):
    kind: str
    text: str


def parse_cell(text: str) -> Any:
    """The list or the object that a text stands for, or the text itself where it stands for none.

    "[12] patients" and "[Methods] We asked" are texts.

    Raises:
        CellError: it begins with a bracket and a quote, and can't be read as a list or an object.
    """
    if _TUPLE.match(text):
        try:
            value = _literal(text)
        except CellError:
            return text
        return value if isinstance(value, list) and len(value) > 1 else text
    if not _BEGIN.match(text):
        return text
    try:
        return parse_json(text)
    except ValueError:
        pass
    try:
        return _literal(text)
    except CellError:
        if _QUOTED.match(text):
            raise
        return text


def _literal(text: str) -> Any:
    parser = _Parser(_tokens(text))
    value = parser.value(0)
    if parser.current is not None:
        raise CellError("text follows its closing bracket")
    return value


def _tokens(text: str) -> Iterator[_Token]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise CellError(f"no list or object goes on like {text[at : at + 20].strip()!r}")
        assert found.lastgroup is not None
        yield _Token(found.lastgroup, found[found.lastgroup])
        at = found.end()


class _Parser:
    """Recursive descent with one token of look-ahead; `value` is bounded in depth."""

    def __init__(self, tokens: Iterator[_Token]) -> None:
        self._tokens = tokens
        self.current = next(tokens, None)

    def _advance(self) -> _Token:
        token = self.current
        if token is None:
            raise CellError("it ends before its closing bracket")
        self.current = next(self._tokens, None)
        return token

    def _at(self, *marks: str) -> bool:
        return self.current is not None and self.current.kind == "mark" and self.current.text in marks

    def value(self, depth: int) -> Any:
        """The value that begins at the current token."""
        if depth > DEEPEST:
            raise CellError(f"it is nested too deep ({DEEPEST} levels at most)")
        kind, text = self._advance()
        if kind == "text":
            return _unescaped(text)
        if kind == "number":
            return float(text) if re.search("[.eE]", text) else int(text[:40])
        if kind == "word":
            return _WORDS.get(text)
        if kind == "gap":
            raise CellError("numpy left elements out (...): write the file with all of them")
        if kind == "call":
            return self._call(depth)
        if kind == "mark" and text == "{":
            return self._object(depth)
        if kind == "mark" and text in "[(":
            return self._list(_CLOSING[text], depth)
        raise CellError(f"{text!r} stands where a value is due")

    def _call(self, depth: int) -> Any:
        held = self._list(")", depth)
        if len(held) != 1:
            raise CellError("an array of more than one list")
        return held[0]

    def _list(self, closing: str, depth: int) -> list[Any]:
        groups: list[list[Any]] = [[]]  # of values without a comma between them
        while not self._at(closing):
            if self.current is not None and self.current.kind == "dtype":
                self._advance()
            else:
                groups[-1].append(self.value(depth + 1))
            if self._at(","):
                self._advance()
                groups.append([])
        self._advance()
        if len(groups) == 1 and closing == "]":  # numpy writes no commas
            return groups[0]
        return [value for group in groups for value in _together(group)]

    def _object(self, depth: int) -> dict[str, Any] | list[Any]:
        held: dict[str, Any] = {}
        while not self._at("}"):
            key = self.value(depth + 1)
            if not held and isinstance(key, str) and self._at(",", "}"):
                return self._array(key, depth)
            if not isinstance(key, (str, int, float)) or not self._at(":"):
                raise CellError("an object's key and colon are missing")
            self._advance()
            if str(key) in held:
                raise CellError(f"the key {str(key)[:40]!r} stands there twice")
            held[str(key)] = self._joined_text(depth + 1)
            if self._at(","):
                self._advance()
            elif not self._at("}"):
                raise CellError("a comma is missing between two keys")
        self._advance()
        return held

    def _array(self, first: str, depth: int) -> Any:
        """{"We asked.","They said so."}, as PostgreSQL writes an array."""
        if self._at(","):
            self._advance()
        return [first, *self._list("}", depth)]

    def _joined_text(self, depth: int) -> Any:
        """A value; a text that pprint wrote as several, 'We asked ' 'them.' or ('We asked ' 'them.'), is one."""
        wrapped = self._at("(")
        parts = [self.value(depth)]
        while isinstance(parts[0], str) and self.current is not None and self.current.kind == "text":
            parts.append(self.value(depth))
        value = _together(parts)[0]
        return value[0] if wrapped and len(value) == 1 and isinstance(value[0], str) else value


def _together(values: list[Any]) -> list[Any]:
    """Texts without a comma between them are one text, as Python reads them and pprint writes them."""
    several = len(values) > 1 and all(isinstance(value, str) for value in values)
    return ["".join(values)] if several else values


def _unescaped(token: str) -> str:
    def character(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        if code is not None:
            return chr(min(int(code, 16), 0x10FFFF))
        if found[4] is not None:
            return chr(int(found[4], 8))
        return _LETTERS.get(found[5], found[5] if found[5] in "\\'\"/" else f"\\{found[5]}")

    text = _ESCAPE.sub(character, token.lstrip("uU")[1:-1])
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
