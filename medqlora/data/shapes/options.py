"""Extracts the options of a multiple-choice question as label → text, in order.

Supported forms: an object of letters and texts; a list of texts; {"text": […], "label": […]} (ARC); a list of
{"key", "value"} (MedQA's raw files) or {"label", "text"}; a text with a line per option, "A) …"; and any of these as
text in a cell.
"""

import re
from collections.abc import Mapping, Sequence

from medqlora.data import fields
from medqlora.data.readers import Row
from medqlora.data.shapes.columns import key, lookup
from medqlora.data.shapes.contexts import parsed_cell

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_TEXT_KEYS = ("text", "value", "option", "content", "choice", "answertext", "optiontext", "atext")
_LABEL_KEYS = ("label", "key", "letter", "id", "optionkey", "index", "aid")
_LETTERED = re.compile(r"(?:^|(?<=[\s,;|]))\(?([A-Za-z]|\d{1,2})\s?(?:[).:、．：]|\s-(?=\s))\s*")
_LINE = re.compile(r"([A-Z])\s+(\S.*)")  # the line "A Aspirin"
_OPTION_KEY = re.compile(r"(?:op|opt|option|choice)([a-z])")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def options_of(row: Row, column: str, value: object) -> dict[str, str]:
    """Extracts the options of one column as label → text; {} for none.

    Args:
        row: the row, for messages.
        column: the column, for messages.
        value: the value.

    Raises:
        InputError: the value is not a set of options, or has fewer than two.
    """
    if isinstance(value, str):
        parsed = parsed_cell(row, column, value)
        value = _lettered(parsed) or parsed if isinstance(parsed, str) else parsed
    if fields.is_missing(value) or value in ({}, []):
        return {}
    if isinstance(value, Mapping):
        value = _by_label(row, column, value)
    if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        value = _of_objects(row, column, value)
    if isinstance(value, (list, tuple)):
        value = _of_texts(row, column, value)
    if not isinstance(value, Mapping):
        raise fields.bad(row, column, value, "give an object of letters and texts, or a list of texts")
    # a struct column of Parquet has every letter in every row, null for absent options
    texts = {str(label): text for label, text in value.items() if text is not None}
    if len(texts) < 2:
        raise fields.bad(row, column, texts, "give two options or more")
    return {
        fields.name(row, f"{column}: letter", label): fields.text(
            row, f"{column} {label}", _as_text(text), needed=True
        )
        for label, text in texts.items()
    }


def options_of_columns(row: Row, columns: Sequence[str], *, named: bool) -> dict[str, str]:
    """Extracts the options of several columns as label → text; the last ones may be empty.

    Args:
        row: the row.
        columns: the columns, in order.
        named: the options name the columns, so that a gap or a single option is an error.

    Raises:
        InputError: as `options_of`.
    """
    texts: list[object] = [row.value.get(column) for column in columns]
    while texts and fields.is_missing(texts[-1]):
        texts.pop()
    if not named:
        count = next((index for index, text in enumerate(texts) if fields.is_missing(text)), len(texts))
        texts = texts[:count]
        if len(texts) < 2:
            return {}
    return options_of(row, ", ".join(columns), texts) if texts else {}


def _as_text(value: object) -> object:
    """Numbers as texts: 60, 0.5."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return str(value)
    return value


def _of_texts(row: Row, column: str, texts: Sequence[object]) -> dict[str, object]:
    if len(texts) > len(LETTERS):
        raise fields.bad(row, column, list(texts), f"give {len(LETTERS)} options at most")
    # ["A. Aspirin", "B. Atenolol"]: the texts include the letters
    strings = [text.strip() for text in texts if isinstance(text, str)]
    if len(strings) == len(texts) > 1:
        matches = [_LETTERED.match(text) for text in strings]
        if [match[1] if match else "" for match in matches] == list(LETTERS[: len(texts)]):
            rest = [text[match.end() :] for text, match in zip(strings, matches, strict=True) if match]
            if all(rest):
                return dict(zip(LETTERS, rest, strict=False))
    return dict(zip(LETTERS, texts, strict=False))


def _by_label(row: Row, column: str, value: Mapping[str, object]) -> Mapping[str, object] | list[object]:
    """{"text": […], "label": […]} as label → text, or as a list of texts; an object of letters unchanged."""
    texts, labels = lookup(value, _TEXT_KEYS), lookup(value, _LABEL_KEYS)
    if not isinstance(texts, (list, tuple)):
        matches = [(_OPTION_KEY.fullmatch(key(str(name))), text) for name, text in value.items()]
        if all(match for match, _ in matches):  # {"opa": …, "opb": …}
            return {match[1].upper(): text for match, text in matches if match}
        return value
    if labels is None:
        return list(texts)
    if (
        not isinstance(labels, (list, tuple))
        or len(labels) != len(texts)
        or len(set(map(str, labels))) < len(labels)
    ):
        raise fields.bad(row, column, dict(value), f"give {len(texts)} different labels, one for each text")
    if list(map(str, labels)) == list(map(str, range(len(labels)))):
        return list(texts)  # consecutive numbers are not labels
    return {str(label): text for label, text in zip(labels, texts, strict=True)}


def _of_objects(row: Row, column: str, items: Sequence[object]) -> dict[str, object] | list[object]:
    """[{"key": "A", "value": …}, …] as label → text, or as a list of texts if there are no labels."""
    pairs: list[tuple[object, object]] = []
    for item in items:
        if item is None:
            continue
        if not isinstance(item, Mapping):
            raise fields.bad(row, column, item, 'give objects with "label" and "text"')
        if len(item) == 1 and not {key(str(name)) for name in item} & {
            *_TEXT_KEYS,
            *_LABEL_KEYS,
        }:  # [{"A": …}, {"B": …}]
            pairs.append(next(iter(item.items())))
            continue
        text, label = lookup(item, _TEXT_KEYS), lookup(item, _LABEL_KEYS)
        if text is None:
            raise fields.bad(row, column, item, 'give objects with "label" and "text"')
        pairs.append((label, text))
    labels = [str(label) for label, _ in pairs if label is not None]
    if not labels or labels == list(map(str, range(len(pairs)))):
        return [text for _, text in pairs]
    if len(set(labels)) < len(pairs):
        raise fields.bad(row, column, list(items), "give each option a label of its own")
    return dict(zip(labels, (text for _, text in pairs), strict=True))


def _lettered(text: str) -> dict[str, str] | None:
    """Splits "A) Aspirin\\nB) Atenolol", also on one line or as "a. … b. …"; None if the letters are not A, B, C, …"""
    text = _BREAK.sub("\n", text)
    lines = [_LINE.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and [line[1] if line else "" for line in lines] == list(LETTERS[: len(lines)]):
        return {line[1]: line[2] for line in lines if line}
    marks = list(_LETTERED.finditer(text))
    for first in ("A", "a", "1"):
        chosen: list[re.Match[str]] = []
        for mark in marks:
            expected = str(len(chosen) + 1) if first == "1" else chr(ord(first) + len(chosen))
            if mark[1] == expected:
                chosen.append(mark)
        if len(chosen) < 2 or text[: chosen[0].start()].strip(" \n\t([{"):
            continue
        ends = [*(mark.start() for mark in chosen[1:]), len(text)]
        texts = [
            text[mark.end() : end].strip().strip(",;|").strip()
            for mark, end in zip(chosen, ends, strict=True)
        ]
        if all(texts):
            names = map(str, range(1, len(texts) + 1)) if first == "1" else LETTERS
            return dict(zip(names, texts, strict=False))
    return None
