"""Parses lists and objects in table cells: JSON, Python literals, and printed numpy arrays.

Writers of these formats: `json.dumps`; pandas' `to_csv` of a list (`['a', 'b']`); `datasets` through pandas, whose
cells are numpy arrays (`['a' 'b']`, without commas, over several lines; in an object `array(['a'], dtype=object)`).
The parser evaluates nothing: it splits the text into tokens and rejects calls other than array constructors.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from medqlora.data.json_text import parse_json
from medqlora.utils.types import Json

#: maximum nesting of lists and objects in a cell
DEEPEST = 30

_BEGIN = re.compile(r"\s*(?:(?:np\.|numpy\.)?array\s*\(\s*)?[\[{]")
_TUPLE = re.compile(r"\s*\(\s*['\"]")
# a bracket and a quote: prose may begin with "[12] patients" or "[Methods]", but hardly ever with this
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
    """A text begins like a list of texts and is invalid; the message gives the reason."""


class _Token(NamedTuple):
    kind: str
    text: str


def parse_cell(text: str) -> Json:
    """Parses a list or an object; returns any other text unchanged.

    "[12] patients" and "[Methods] We asked" are texts.

    Raises:
        CellError: the text begins with a bracket and a quote, and is not a list or an object.
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


def _literal(text: str) -> Json:
    parser = _Parser(_tokens(text))
    value = parser.value(0)
    if parser.current is not None:
        raise CellError("text follows its closing bracket")
    return value


def _tokens(text: str) -> Iterator[_Token]:
    start, end = 0, len(text.rstrip())
    while start < end:
        match = _TOKEN.match(text, start)
        if match is None:
            raise CellError(f"no list or object goes on like {text[start : start + 20].strip()!r}")
        assert match.lastgroup is not None
        yield _Token(match.lastgroup, match[match.lastgroup])
        start = match.end()


class _Parser:
    """Recursive-descent parser with one token of look-ahead and a maximum depth."""

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

    def value(self, depth: int) -> Json:
        """Parses the value that begins at the current token."""
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
        raise CellError(f"{text!r} stands where a value is expected")

    def _call(self, depth: int) -> Json:
        arguments = self._list(")", depth)
        if len(arguments) != 1:
            raise CellError("an array of more than one list")
        return arguments[0]

    def _list(self, closing: str, depth: int) -> list[Json]:
        groups: list[list[Json]] = [[]]  # values without a comma between them
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
        return [value for group in groups for value in _concatenated(group)]

    def _object(self, depth: int) -> dict[str, Json] | list[Json]:
        result: dict[str, Json] = {}
        while not self._at("}"):
            key = self.value(depth + 1)
            if not result and isinstance(key, str) and self._at(",", "}"):
                return self._array(key, depth)
            if not isinstance(key, (str, int, float)) or not self._at(":"):
                raise CellError("an object's key and colon are missing")
            self._advance()
            if str(key) in result:
                raise CellError(f"the key {str(key)[:40]!r} appears twice")
            result[str(key)] = self._joined_text(depth + 1)
            if self._at(","):
                self._advance()
            elif not self._at("}"):
                raise CellError("a comma is missing between two keys")
        self._advance()
        return result

    def _array(self, first: str, depth: int) -> list[Json]:
        """Parses a PostgreSQL array after its first item: {"We asked.","They said so."}."""
        if self._at(","):
            self._advance()
        return [first, *self._list("}", depth)]

    def _joined_text(self, depth: int) -> Json:
        """Parses a value; joins the pieces of a text that pprint split: 'We asked ' 'them.', ('We asked ' 'them.')."""
        wrapped = self._at("(")
        parts = [self.value(depth)]
        while isinstance(parts[0], str) and self.current is not None and self.current.kind == "text":
            parts.append(self.value(depth))
        value = _concatenated(parts)[0]
        if wrapped and isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            return value[0]
        return value


def _concatenated(values: list[Json]) -> list[Json]:
    """Joins texts without commas between them, as Python does and pprint writes them."""
    texts = [value for value in values if isinstance(value, str)]
    return ["".join(texts)] if len(texts) == len(values) > 1 else values


def _unescaped(token: str) -> str:
    def character(escape: re.Match[str]) -> str:
        code = escape[1] or escape[2] or escape[3]
        if code is not None:
            return chr(min(int(code, 16), 0x10FFFF))
        if escape[4] is not None:
            return chr(int(escape[4], 8))
        return _LETTERS.get(escape[5], escape[5] if escape[5] in "\\'\"/" else f"\\{escape[5]}")

    text = _ESCAPE.sub(character, token.lstrip("uU")[1:-1])
    if _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
