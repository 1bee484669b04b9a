"""List items of a text, and the decisions at its start and its end.

A text that discusses the options names each at the start of a line; none of these is a decision, and a text that was
cut inside such a list states none.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from medqlora.evaluation.parsing import phrases
from medqlora.evaluation.parsing.text import rest_of_line
from medqlora.evaluation.parsing.values import (
    LISTED,
    STATED,
    Candidate,
    Value,
    Values,
)


def own_part(text: str, values: Values) -> str:
    """`text` up to a list of options that are not the question's: those of an invented question."""
    if not values.letters or not values.texts:
        return text
    order = list(values.by_key.values())
    run: list[int] = []
    next_line = -1
    for match in phrases.ITEM.finditer(text):
        heading = values.heading.match(text, match.end())
        label = values.by_key.get(heading[1].casefold()) if heading else None
        known = heading is not None and values.behind(text, heading.end(1)) is not None
        if heading is None or label is None or known:
            run = []
            continue
        if run and (label != order[len(run) % len(order)] or match.start() != next_line):
            run = []
        if run or label == order[0]:
            run.append(match.start())
        line_end = text.find("\n", heading.end(), heading.end() + 120)
        next_line = line_end if line_end >= 0 else -1
        if len(run) == 3:
            return text[: run[0]]
    return text


class Item(NamedTuple):
    """The start of a line that names a label.

    Attributes:
        at: the index of the label, after what marks the item.
        label: the label.
        end: the index after the label.
        ruled_out: whether its line says that it is not the answer.
    """

    at: int
    label: str
    end: int
    ruled_out: bool


def items_of(text: str, values: Values) -> list[Item]:
    """The lines that begin with a label, in order."""
    items = []
    rejects = phrases.REJECTS_OTHERS.search(text)  # "Why the other options are wrong:"
    rejected_from = rejects.end() if rejects else len(text)
    for match in phrases.ITEM.finditer(text):
        value = values.read(text, match.end())
        if value is not None and value.label is not None:
            line = rest_of_line(text, value.end)
            ruled_out = match.end() >= rejected_from or phrases.REJECTED.search(line) is not None
            items.append(Item(match.end(), value.label, value.end, ruled_out))
            continue
        about = phrases.ABOUT_LETTER.match(text, match.end()) if values.letters else None
        label = values.by_key.get(about["letter"].casefold()) if about and about["letter"].isupper() else None
        if about is not None and label is not None:
            items.append(Item(match.end(), label, about.end(), True))
    return items


def leading(text: str, values: Values, items: list[Item]) -> Iterator[Candidate]:
    """The decision at the start of the text, and the list items that contradict it."""
    first: Candidate | None = None
    end = 0
    mark = phrases.OPENING_MARK.match(text)
    if mark is not None and not values.letters and re.match(r"\s*[-–•·]", text):
        mark = None  # an item of a list of words
    begin = mark.end() if mark else 0
    for opening in (phrases.LEAD, phrases.ECHOED_QUESTION):
        match = opening.match(text, begin)
        value = values.read(text, match.end()) if match else None
        if (
            match is None
            or value is None
            or (opening is phrases.ECHOED_QUESTION and "?" in text[match.end() :])
        ):
            continue
        lettered = values.read(text, begin) if opening is phrases.LEAD and values.letters else None
        if lettered is not None and lettered.label is None:
            value = lettered  # "A: <text of B>", not "Answer: <text of B>"
        if value.label is None or not _contradicted(text, value, values):
            first = Candidate(match.end(), value.label, STATED)
            end = value.end
        break
    others = [item for item in items if item.at > end]
    listed = [Candidate(item.at, item.label, LISTED) for item in others if not item.ruled_out]
    if first is not None:
        if values.letters and first.label is not None and phrases.RULED_OUT.match(text, end):
            yield from listed
            return
        elsewhere = any(item.label != first.label for item in listed)
        if elsewhere or _opens_list(text, end, first, others, values) or _ends_in_stump(text, first, values):
            first = first._replace(strength=LISTED)
        yield first
    yield from listed


def _opens_list(text: str, end: int, first: Candidate, others: list[Item], values: Values) -> bool:
    """Whether the second line of the text is an item with a later label."""
    order = list(values.by_key.values())
    if not others or first.label is None or order.index(others[0].label) <= order.index(first.label):
        return False
    line_end = text.find("\n", end)
    return line_end >= 0 and not text[line_end : others[0].at].strip(" \n\t\r-*#•+(0123456789.)")


def _ends_in_stump(text: str, first: Candidate, values: Values) -> bool:
    """Whether the text begins with the first option and is cut at the start of its second item ("**", "Option")."""
    if not values.letters or first.label != next(iter(values.by_key.values())):
        return False
    stump = phrases.STUMP.search(text, max(first.at, len(text) - 100))
    if stump is None:
        return False
    word = stump["word"].strip().casefold()
    line = text[first.at : text.find("\n", first.at)].strip(" *_()[].")
    if line.casefold() in values.by_key or re.fullmatch(r"\s*[-*_]{3,8}\s*", stump[0]):
        return False  # a letter by itself, or a horizontal rule
    return "option".startswith(word) or word in values.by_key or values.texts.cut(word)


def _contradicted(text: str, value: Value, values: Values) -> bool:
    """Whether the sentence (for letters: the line) that begins with `value` names another label too."""
    rest = rest_of_line(text, value.end, 300)
    letters = value.label is not None and len(value.label) == 1
    if not letters:
        rest = re.split(r"[.!?](?:\s|$)", rest, maxsplit=1)[0]
    for other in values.word.finditer(rest):
        if values.by_key.get(other.group(1).casefold()) == value.label:
            continue
        before, after = rest[max(0, other.start() - 24) : other.start()], rest[other.end() : other.end() + 60]
        if re.search(
            r"\b(?:not|than|of|isn't|unlike|while|whereas)\s(?:option\s|choice\s)?[\"'(]?$",
            before,
            re.IGNORECASE,
        ):
            continue
        if letters and phrases.COMPARED_WITH.search(rest[max(0, other.start() - 100) : other.start()]):
            continue
        if letters:
            if re.search(r"\b(?:answers?|ans)\b[^.]{0,16}$", before, re.IGNORECASE):
                continue  # an announcement, which counts by itself
            named = re.search(r"(?:[.;,:]\s|\(|\b(?:or|and|option|choice)\s\(?|^\s)$", before, re.IGNORECASE)
            marked = re.match(r"[).:]|\s*$", after)
            listed = after.startswith(")")
            if (
                (listed or (named and marked))
                and other.group(1).isupper()
                and not phrases.REJECTED.search(after)
            ):
                return True
        elif re.match(r"[\"'*)]{0,3}(?:\s*$|[,;:!/]|\s[-–—]|[–—])", after):
            return True
    return False


def last(text: str, values: Values, items: list[Item]) -> Iterator[Candidate]:
    """A label that is the last sentence or line by itself, unless a list of the options was cut there."""
    tail = text.rstrip()
    offset = max(0, len(tail) - 90)
    match = phrases.LAST.search(tail, offset)
    if match is None:
        return
    value = values.read(tail, match.start("mark"))
    if value is None or value.label is None or re.search(r"\w", tail[value.end :]):
        return
    end = tail[value.end :]
    same_line = match.start() > 0 and "\n" not in tail[match.start() : match.start("rest")]
    if value.label.casefold() in ("no", "maybe") and not end and "\n" not in text[len(tail) :] and same_line:
        return  # a text cut after "No" or "Maybe" may go on with "difference was found"
    if len(value.label) == 1 and "**" in match["mark"] and not end and match.start() > 0:
        return  # "**A", cut within "**Answer"
    alone = match.start() == 0 or "\n" in tail[match.start() : match.start("rest")]
    if alone or len(value.label) > 1:
        cut = _cut_list(tail, match.start("rest"), value, items, values)
        yield Candidate(match.start("rest"), value.label, LISTED if cut else STATED, False)


def _cut_list(tail: str, at: int, value: Value, items: list[Item], values: Values) -> bool:
    """Whether the last line, which names `value` at `at`, is an item of a list that was cut."""
    if at > 0 and tail.endswith((":", ":**", ":*")):
        return True
    marks = "" if values.letters else ":"  # a word by itself is no heading
    before = {
        item.label for item in items if item.end <= at and tail[item.end : item.end + 3].find(marks) >= 0
    }
    if before - {value.label}:
        return value.label not in before
    intro = tail[max(0, at - 200) : at].rstrip(" \n\t*_#-(")
    opens_list = value.label == next(iter(values.by_key.values())) and len(value.label) == 1
    return opens_list and bool(intro) and (intro.endswith(":") or phrases.LISTING.search(intro) is not None)


def list_goes_on(text: str, value: Value, values: Values, *, apart: bool = False) -> bool:
    """Whether the next line is a second option's heading and text (`apart`: also after an empty line)."""
    if not values.letters:
        return False
    following = phrases.NEXT_ITEM.match(text, value.end)
    if following is None and (worded := phrases.OPTION_IN_OTHER_WORDS.match(text, value.end)):
        following = phrases.NEXT_ITEM.match(text, worded.end())
    if following is None or (following["empty"] and not apart):
        return False
    line = rest_of_line(text, following.end())
    headed = text[value.end - 1 : value.end + 2].strip() not in ("", value.label)
    if not headed or phrases.REJECTED.search(line):
        return False
    other = values.heading.match(text, following.end())
    if other is not None:
        return values.by_key.get(other[1].casefold()) != value.label
    option = values.texts.at(text, following.end())
    return option is not None and value.label not in option.labels
