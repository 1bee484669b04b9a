"""The passages that a question is answered from, in the forms that files have them.

A text; a list of texts, null among them too; an object by section ({"METHODS": "…"}); a list of objects
([{"title": "…", "text": "…"}]); lists beside each other ({"title": […], "sentences": [[…]]}); and as the Hub's
PubMedQA has them: {"contexts": […], "labels": […], "meshes": […], "reasoning_required_pred": […], …}.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from medqlora.data import fields
from medqlora.data.readers import Row
from medqlora.data.shapes.cells import CellError, parse_cell
from medqlora.data.shapes.columns import is_tell_tale, key
from medqlora.data.wording import plain, shown
from medqlora.errors import InputError

_TEXT_KEYS = (
    "text",
    "contexts",
    "context",
    "content",
    "contents",
    "passage",
    "paragraph",
    "sentences",
    "abstract",
    "body",
    "snippet",
)
_NAME_KEYS = ("title", "section", "heading", "label", "labels", "name", "sectiontitle", "titles")
# The Hub's PubMedQA; its two preds are what annotators decided, and are not read.
_HUB_KEYS = frozenset({"contexts", "labels", "meshes", "reasoning_required_pred", "reasoning_free_pred"})
# what is an answer rather than a section's name, which PubMed's XML has in the attribute Label
_ANSWER = re.compile(
    r"\W*(?:yes|no|maybe|true|false|positive|negative|correct|incorrect|unknown|unsure|neutral|\w|\d+(?:\.\d+)?)\W*",
    re.IGNORECASE,
)


class Passages(NamedTuple):
    """
    Attributes:
        texts: the passages, in order; none is empty.
        names: the name of each one's section; empty where one has none.
        topics: the MeSH headings that stand beside them.
    """

    texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()


def passages(row: Row, column: str, value: object) -> Passages:
    """The passages of a row.

    Args:
        row: the row, for messages.
        column: the column, for messages.
        value: what stands there; a list or an object may stand there as text.

    Raises:
        InputError: it holds no passages, or it holds the answer under a key that says so.
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
            return Passages((value,))  # "[12]" is a reference, no list
        value = parsed
    if isinstance(value, Mapping) and "contexts" in value and set(value) <= _HUB_KEYS:
        value = {name: held for name, held in value.items() if not name.endswith("_pred")}
    _reject_answers(row, column, value, 0)
    pairs = [(name, text) for name, text in _pairs(row, column, value) if not fields.is_missing(text)]
    names = tuple(name for name, _ in pairs)
    topics: tuple[str, ...] = ()
    if isinstance(value, Mapping) and "meshes" in value:
        topics = fields.texts(row, f"{column} meshes", value["meshes"])
    return Passages(tuple(text for _, text in pairs), names if all(names) else (), topics)


def parsed_cell(row: Row, column: str, value: object) -> Any:
    """The list or object that a cell holds as text; any other value as it is.

    Raises:
        InputError: it begins like a list of texts, and is none.
    """
    if not isinstance(value, str):
        return value
    try:
        return parse_cell(value)
    except CellError as error:
        raise InputError(
            f"{row.where}: {plain(column)} is {shown(value)}, which begins like a list and is none ({error}): "
            "write it as JSON"
        ) from error


def _reject_answers(row: Row, column: str, value: object, depth: int) -> None:
    if depth > 5:
        raise fields.bad(row, column, value, "give a list of texts")
    if isinstance(value, Mapping):
        for name, held in value.items():
            if (
                isinstance(name, str)
                and is_tell_tale(name)
                and not (key(name) == "label" and _is_section(held))
            ):
                raise InputError(
                    f"{row.where}: {plain(column)} holds {plain(name)!r}, which gives the answer away: take it out of "
                    "the contexts"
                )
            _reject_answers(row, column, held, depth + 1)
    elif isinstance(value, (list, tuple)):
        for held in value:
            if isinstance(held, (Mapping, list, tuple)):
                _reject_answers(row, column, held, depth + 1)


def _is_section(value: object) -> bool:
    return isinstance(value, str) and len(value) < 100 and _ANSWER.fullmatch(value) is None


def _pairs(row: Row, column: str, value: object) -> Iterator[tuple[str, str]]:
    """Name ("" for none) and text of each passage."""
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


def _of_object(row: Row, column: str, value: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    keys = {key(str(name)): name for name in value}
    text_key = next((keys[name] for name in _TEXT_KEYS if name in keys), None)
    names = next((value[keys[name]] for name in _NAME_KEYS if name in keys and keys[name] != text_key), None)
    if text_key is not None:
        held = value[text_key]
        if isinstance(held, (list, tuple)) and isinstance(names, (list, tuple)):
            if len(names) != len(held):
                names = [""] * len(held)  # names are for display alone
            for name, part in zip(names, held, strict=True):
                yield from (
                    (name if isinstance(name, str) else "", text) for text in _joined(row, column, part)
                )
        elif isinstance(held, (list, tuple)):
            yield from _pairs(row, column, held)
        else:
            text = fields.text(row, f"{column} {text_key}", held)
            yield (names if isinstance(names, str) else ""), text
        return
    for name, part in value.items():  # by section
        if isinstance(part, (Mapping, bool, int, float)) and not fields.is_missing(part):
            raise fields.bad(row, column, value, "give a list of texts, or texts by section")
        yield from ((str(name), text) for text in _joined(row, column, part))


def _joined(row: Row, column: str, part: object) -> Sequence[str]:
    """A passage that is a list of its sentences is one passage."""
    if isinstance(part, (list, tuple)):
        texts = [text.strip() for text in fields.texts(row, column, _present(part))]
        return [" ".join(texts)] if texts else []
    return fields.texts(row, column, part)


def _present(items: Sequence[object]) -> list[object]:
    return [item for item in items if not fields.is_missing(item)]


def _is_titled(item: object) -> bool:
    """["title", ["A sentence.", …]], as HotpotQA has it."""
    return (
        isinstance(item, (list, tuple))
        and len(item) == 2
        and isinstance(item[0], str)
        and isinstance(item[1], (list, tuple))
    )
