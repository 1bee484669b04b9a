"""Parses large XML files element by element, with constant memory, and without what makes XML dangerous.

Declared entities are refused, so neither a file of this machine nor an expansion without end gets into a text
(https://owasp.org/www-community/vulnerabilities/XML_External_Entity_(XXE)_Processing). No DTD is read; the named
characters of NLM's DTDs are those of HTML.
"""

import html.entities
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from medqlora.errors import InputError

_BLOCK = 1 << 16
#: depth of elements that no literature format reaches
_DEEPEST = 200
#: bytes of one article that no article has: its tree is held in memory
_LARGEST = 128 << 20
_SPACES = re.compile(r"\s+")


def elements(stream: BinaryIO, tags: frozenset[str], where: str) -> Iterator[Element]:
    """Each element of `tags` that stands in no other of them, as it is complete.

    Args:
        stream: the XML.
        tags: names of the elements.
        where: the file, for messages.

    Raises:
        InputError: the file is no XML, declares entities, or is nested too deep; names the line.
    """
    reader = _Reader(tags, where)
    while block := stream.read(_BLOCK):
        yield from reader.feed(block)
    yield from reader.feed(b"", last=True)


class _Reader:
    """An expat parser that builds a tree of each wanted element alone."""

    def __init__(self, tags: frozenset[str], where: str) -> None:
        self._tags, self._where = tags, where
        self._builder: TreeBuilder | None = None
        self._depth = self._opened = self._size = 0
        self._done: list[Element] = []
        parser = self._parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.EntityDeclHandler = self._entity
        parser.ExternalEntityRefHandler = None  # nothing outside the file is read
        parser.SkippedEntityHandler = self._named
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)

    def feed(self, block: bytes, *, last: bool = False) -> list[Element]:
        """The elements that are complete after `block`."""
        try:
            self._parser.Parse(block, last)
        except expat.ExpatError as error:
            raise InputError(
                f"{self._where}:{error.lineno}: not XML ({expat.ErrorString(error.code)}): download it again"
            ) from error
        except (LookupError, ValueError) as error:  # an encoding that Python doesn't know
            raise InputError(f"{self._where}: not XML ({error}): save it as UTF-8") from error
        done, self._done = self._done, []
        self._size = 0 if self._builder is None or done else self._size + len(block)
        if self._size > _LARGEST:
            raise InputError(
                f"{self._where}:{self._parser.CurrentLineNumber}: one article of more than {_LARGEST >> 20} MiB: no "
                "article is that long: download the file again"
            )
        return done

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise InputError(
                f"{self._where}:{self._parser.CurrentLineNumber}: elements {_DEEPEST} deep: not an article"
            )
        if self._builder is None:
            if tag not in self._tags:
                return
            self._builder, self._opened = TreeBuilder(), self._depth
            self._parser.CharacterDataHandler = self._builder.data
        self._builder.start(tag, attributes)

    def _end(self, tag: str) -> None:
        builder = self._builder
        if builder is not None:
            builder.end(tag)
            if self._depth == self._opened:
                self._done.append(builder.close())
                self._builder = None
                self._parser.CharacterDataHandler = None
        self._depth -= 1

    def _entity(self, name: str, *_: object) -> None:
        raise InputError(
            f"{self._where}:{self._parser.CurrentLineNumber}: declares the entity '{name}': articles of PubMed and PMC "
            "declare none: take the publisher's original file"
        )

    def _named(self, name: str, is_parameter: bool) -> None:
        """A named character of a DTD that is not read."""
        if self._builder is not None and not is_parameter:
            self._builder.data(html.entities.html5.get(f"{name};", f"&{name};"))


def plain_text(element: Element | None, without: frozenset[str] = frozenset()) -> str:
    """The text of an element with all that stands in it, markup removed, white space as single spaces.

    Args:
        element: the element; None gives "".
        without: tags whose content is left out.
    """
    if element is None:
        return ""
    if len(element) == 0:
        return _SPACES.sub(" ", element.text or "").strip()
    parts: list[str] = []
    _collect(element, without, parts.append)
    return _SPACES.sub(" ", "".join(parts)).strip()


def _collect(element: Element, without: frozenset[str], add: Callable[[str], object]) -> None:
    before = element.text or ""
    for child in element:
        # an indented file breaks the line before β<sub>2</sub>, where the text has no space
        add(before.rstrip() if child.tag in ("sub", "sup") and before.endswith("\t") else before)
        if child.tag not in without:
            _collect(child, without, add)
        before = child.tail or ""
    add(before)
