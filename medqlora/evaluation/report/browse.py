"""The table of every question in `report.html`: searched, filtered and sorted in the browser, with no network.

The rows are data in the page (`<script type="application/json">`), which no browser executes. `browse.js` shows 25 of
them at a time as text nodes, so 5,000 questions open as fast as 50. The page's policy allows this one script, by its
hash.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files

from medqlora.evaluation.metrics.scores import Scores
from medqlora.evaluation.report.markup import Markup, element, plain
from medqlora.evaluation.report.thumbnails import Thumbnails
from medqlora.evaluation.report_data import AnswerLine, PredictionLine
from medqlora.records import Record
from medqlora.utils.types import Json

#: labels in a menu, at most; sets with more are searched
_MENU = 30


@cache
def script() -> Markup:
    """The page's script."""
    return Markup(files("medqlora.evaluation.report").joinpath("browse.js").read_text("utf-8"))


@cache
def policy() -> Markup:
    """The page's Content-Security-Policy source that allows `script` and nothing else."""
    digest = hashlib.sha256(script().encode("utf-8")).digest()
    return Markup(f"'sha256-{base64.b64encode(digest).decode('ascii')}'")


def question_table(
    scores: Scores, lines: Sequence[PredictionLine], records: Mapping[str, Record]
) -> Markup | None:
    """Every question with its answers; None without any.

    Args:
        scores: of these lines.
        lines: those of `predictions.jsonl`.
        records: id → question.
    """
    if not lines:
        return None
    free = scores.decided_by == "exact_match"
    thumbnails = Thumbnails()
    rows = [_row(line, records[line["id"]], free, thumbnails) for line in lines]
    compared = any("base_right" in row for row in rows)
    content = json.dumps({"free": free, "rows": rows}, ensure_ascii=True, separators=(",", ":"))
    for letter in "<>&":  # inside a JSON text these letters stand in strings alone
        content = content.replace(letter, f"\\u{ord(letter):04x}")
    data = Markup(f'<script type="application/json">{content}</script>')
    head = [
        "Question",
        *(("Reference", "Generated", "Token F1") if free else ("Right answer", "Decision", "Confidence")),
    ]
    top = element("tr", *(element("th", name, scope="col") for name in head))
    table = element("table", element("thead", top), element("tbody"), class_="questions")
    shown = element(
        "div",
        data,
        _form(rows, free=free, compared=compared),
        table,
        element(
            "p",
            _button("Previous"),
            " ",
            element("span", class_="count", role="status"),
            " ",
            _button("Next"),
        ),
        class_="browse",
        hidden="",
    )
    without = element("p", "This table needs JavaScript. predictions.jsonl beside this page holds the same.")
    return Markup(f"{shown}\n{element('noscript', without)}")


def _button(name: str) -> Markup:
    return element("button", name, type="button")


def _form(rows: Sequence[Mapping[str, Json]], *, free: bool, compared: bool) -> Markup:
    outcomes = {
        "all": "all",
        "wrong": "not exact" if free else "wrong",
        "right": "exact" if free else "right",
    }
    if not free:
        outcomes["unreadable"] = "unreadable text"
        if compared:
            outcomes |= {"gained": "right only here", "lost": "right only in the base"}
    surest = ("highest token F1", "lowest token F1") if free else ("most confident", "least confident")
    words = '<input name="words" type="search" placeholder="words in question, answer or context">'
    parts = [
        element("label", "Search ", Markup(words)),
        _menu("Show", "outcome", outcomes),
    ]
    if not free:
        for title, name in (("Right answer", "gold"), ("Decision", "decision")):
            values = list(dict.fromkeys(str(row[name]) for row in rows if row[name] is not None))
            if len(values) <= _MENU:
                parts.append(_menu(title, name, {"": "any", **{value: value for value in values}}))
    parts.append(_menu("Order", "sort", {"order": "as in the set", "sure": surest[0], "unsure": surest[1]}))
    return element("form", *parts)


def _menu(title: str, name: str, values: Mapping[str, str]) -> Markup:
    options = [element("option", words, value=value) for value, words in values.items()]
    return element("label", f"{title} ", element("select", *options, name=name))


def _row(line: PredictionLine, record: Record, free: bool, thumbnails: Thumbnails) -> dict[str, Json]:
    """A question as `browse.js` reads it; keys without a value are left out."""
    row: dict[str, Json] = {"id": line["id"], "question": record.question, "gold": line["gold"] or ""}
    if free:
        row |= {"decision": line["text"], "right": line["exact_match"], "sure": line["token_f1"]}
    else:
        row |= {"decision": line["decision"], "right": line["right"], "sure": line["confidence"]}
        if chances := line["probabilities"]:
            row["probabilities"] = _pairs(chances.items())
        if line["text"] is not None:
            row |= {"text": line["text"], "parsed": line["parsed"]}
    if base := line.get("base"):
        row |= _base(base, free)
    more = {
        "images": _texts(thumbnails.of(record)),
        "options": _pairs(record.options.items()),
        "human": _pairs((name.replace("_", " "), answer) for name, answer in record.annotations.items()),
        "contexts": _contexts(record),
        "conclusion": record.long_answer,
    }
    row |= {name: value for name, value in more.items() if value and not (free and name == "human")}
    cleaned = _cleaned(row)
    assert isinstance(cleaned, dict)
    return cleaned


def _base(base: AnswerLine, free: bool) -> dict[str, Json]:
    if free:
        return {"base": base["text"], "base_right": base["exact_match"]}
    sure = base["confidence"]
    words = base["decision"] if sure is None else f"{base['decision']}, confidence {100 * sure:.1f}%"
    return {"base": words, "base_right": base["right"]}


def _contexts(record: Record) -> Json:
    labelled = len(record.context_labels) == len(record.contexts)
    return _pairs(
        (record.context_labels[n] if labelled else "", text) for n, text in enumerate(record.contexts)
    )


def _texts(values: Iterable[str]) -> Json:
    return [*values]


def _pairs(items: Iterable[tuple[str, str | float]]) -> Json:
    return [[name, value] for name, value in items]


def _cleaned(value: Json) -> Json:
    """The value with the characters replaced that HTML does not allow."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [_cleaned(part) for part in value]
    if isinstance(value, dict):
        return {key: _cleaned(part) for key, part in value.items()}
    return value
