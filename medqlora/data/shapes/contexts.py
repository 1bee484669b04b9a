"""Extracts the context passages of a question.

Supported forms: a text; a list of texts or nulls; an object by section ({"METHODS": "…"}); a list of objects
([{"title": "…", "text": "…"}]); parallel lists ({"title": […], "sentences": [[…]]}); and PubMedQA on the Hub:
{"contexts": […], "labels": […], "meshes": […], "reasoning_required_pred": […], …}.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from medqlora.data import fields
from medqlora.data.readers import Row
from medqlora.data.shapes.cells import CellError, parse_cell
from medqlora.data.shapes.columns import is_tell_tale, key
from medqlora.data.wording import plain, shown
from medqlora.errors import InputError

_TEXT_KEYS = (
    *("text", "contexts", "context", "content", "contents", "passage", "paragraph", "sentences", "abstract"),
    *("body", "snippet"),
)
_NAME_KEYS = ("title", "section", "heading", "label", "labels", "name", "sectiontitle", "titles")
# PubMedQA on the Hub; the two preds are decisions of annotators and are not read
_HUB_KEYS = frozenset({"contexts", "labels", "meshes", "reasoning_required_pred", "reasoning_free_pred"})
# an answer, unlike a section name in the attribute Label of PubMed's XML
_ANSWER = re.compile(
    r"\W*(?:yes|no|maybe|true|false|positive|negative|correct|incorrect|unknown|unsure|neutral|\w|\d+(?:\.\d+)?)\W*",
    re.IGNORECASE,
)


class Passages(NamedTuple):
    """
    Attributes:
        texts: the passages in order, without empty ones.
        names: the section name of each passage; empty if a passage has none.
        topics: the MeSH headings in the same value.
    """

    texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()


def passages(row: Row, column: str, value: object) -> Passages:
    """Extracts the passages of a row.

    Args:
        row: the row, for messages.
        column: the column, for messages.
        value: the value; a list or an object may be text.

    Raises:
        InputError: the value has no passages, or a key that reveals the answer.
    """
    if fields.is_missing(value) or fields.is_null_word(value):
        return Passages()
    if isinstance(value, str):
        parsed = parsed_cell(row, column, value)
        if (
            isinstance(parsed, list)
            and parsed
            and not any(isinstance(item, (str, dict, list)) for item in parsed)
        ):
            return Passages((value,))  # "[12]" is a reference, not a list
        value = parsed
    if isinstance(value, Mapping) and "contexts" in value and set(value) <= _HUB_KEYS:
        value = {name: item for name, item in value.items() if not name.endswith("_pred")}
    _reject_answers(row, column, value, 0)
    pairs = [(name, text) for name, text in _pairs(row, column, value) if not fields.is_missing(text)]
    names = tuple(name for name, _ in pairs)
    topics: tuple[str, ...] = ()
    if isinstance(value, Mapping) and "meshes" in value:
        topics = fields.texts(row, f"{column} meshes", value["meshes"])
    return Passages(tuple(text for _, text in pairs), names if all(names) else (), topics)


def parsed_cell(row: Row, column: str, value: object) -> object:
    """Parses a list or an object in a text cell; returns any other value unchanged.

    Raises:
        InputError: the text begins like a list of texts and is not a list.
    """
    if not isinstance(value, str):
        return value
    try:
        return parse_cell(value)
    except CellError as error:
        raise InputError(
            f"{row.where}: {plain(column)} is {shown(value)}, which begins like a list and is not a list ({error}): "
            "write it as JSON"
        ) from error


def _reject_answers(row: Row, column: str, value: object, depth: int) -> None:
    if depth > 5:
        raise fields.bad(row, column, value, "give a list of texts")
    if isinstance(value, Mapping):
        for name, item in value.items():
            is_section = key(str(name)) == "label" and _is_section(item)
            if isinstance(name, str) and is_tell_tale(name) and not is_section:
                raise InputError(
                    f"{row.where}: {plain(column)} holds {plain(name)!r}, which gives the answer away: take it out of "
                    "the contexts"
                )
            _reject_answers(row, column, item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            if isinstance(item, (Mapping, list, tuple)):
                _reject_answers(row, column, item, depth + 1)


def _is_section(value: object) -> bool:
    return isinstance(value, str) and len(value) < 100 and _ANSWER.fullmatch(value) is None


def _pairs(row: Row, column: str, value: object) -> Iterator[tuple[str, str]]:
    """The name ("" for none) and the text of each passage."""
    if isinstance(value, str):
        yield "", value
    elif isinstance(value, Mapping):
        yield from _of_object(row, column, value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            if isinstance(item, Mapping):
                yield from _of_object(row, column, item)
            elif _is_titled(item):
                yield from ((str(item[0]), text) for text in _joined(row, column, item[1]))
            elif isinstance(item, (list, tuple)):
                yield from (("", text) for text in fields.texts(row, column, _present(item)))
            elif fields.is_missing(item):
                continue
            elif isinstance(item, str):
                yield "", item
            else:
                raise fields.bad(row, column, item, "give a list of texts")
    else:
        raise fields.bad(row, column, value, "give a list of texts")


def _of_object(row: Row, column: str, value: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    keys = {key(str(name)): name for name in value}
    text_key = next((keys[name] for name in _TEXT_KEYS if name in keys), None)
    names = next((value[keys[name]] for name in _NAME_KEYS if name in keys and keys[name] != text_key), None)
    if text_key is not None:
        texts = value[text_key]
        if isinstance(texts, (list, tuple)) and isinstance(names, (list, tuple)):
            if len(names) != len(texts):
                names = [""] * len(texts)  # names are only for display
            for name, part in zip(names, texts, strict=True):
                yield from (
                    (name if isinstance(name, str) else "", text) for text in _joined(row, column, part)
                )
        elif isinstance(texts, (list, tuple)):
            yield from _pairs(row, column, texts)
        else:
            text = fields.text(row, f"{column} {text_key}", texts)
            yield (names if isinstance(names, str) else ""), text
        return
    for name, part in value.items():  # by section
        if isinstance(part, (Mapping, bool, int, float)) and not fields.is_missing(part):
            raise fields.bad(row, column, value, "give a list of texts, or texts by section")
        yield from ((str(name), text) for text in _joined(row, column, part))


def _joined(row: Row, column: str, part: object) -> Sequence[str]:
    """The texts of one value; a list of sentences is joined to one passage."""
    if isinstance(part, (list, tuple)):
        texts = [text.strip() for text in fields.texts(row, column, _present(part))]
        return [" ".join(texts)] if texts else []
    return fields.texts(row, column, part)


def _present(items: Sequence[object]) -> list[object]:
    return [item for item in items if not fields.is_missing(item)]


def _is_titled(item: object) -> bool:
    """Whether an item is ["title", ["A sentence.", …]], as in HotpotQA."""
    return (
        isinstance(item, (list, tuple))
        and len(item) == 2
        and isinstance(item[0], str)
        and isinstance(item[1], (list, tuple))
    )
