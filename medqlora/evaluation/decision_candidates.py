"""Finds every place of a text that may be the decision.

A place becomes a `Candidate` with a strength; `decisions.parse_decision` says on which of them the text comes out.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from medqlora.evaluation import decision_languages as languages
from medqlora.evaluation import decision_phrases as phrases
from medqlora.evaluation.decision_values import Value, Values

#: candidates' strengths: a mere list item; "the most appropriate treatment is", which may be a step of the
#: reasoning; a decision at the start, the end or after "therefore"; "the answer is"; "final answer", JSON, tags
#: and \boxed
LISTED, IMPLIED, STATED, ANNOUNCED, FINAL = range(5)


class Candidate(NamedTuple):
    """A place that may be the decision.

    Attributes:
        at: its index in the text.
        label: the label there; None where several stand together, or none that is possible.
        strength: LISTED, IMPLIED, STATED, ANNOUNCED or FINAL.
        revises: whether its sentence presents it as a conclusion or correction ("so", "however", "wait").
    """

    at: int
    label: str | None
    strength: int
    revises: bool = False


def candidates(text: str, values: Values) -> Iterator[Candidate]:
    """Every place of `text` that may be a decision."""
    items = _items(text, values)
    yield from _leading(text, values, items)
    yield from _last(text, values, items)
    yield from _keys(text, values)
    yield from _nouns(text, values)
    yield from _phrases(text, values)
    yield from _statements(text, values)
    yield from _subjects(text, values)
    if values.letters and (above := phrases.NONE_ABOVE.search(text, max(0, len(text) - 60))):
        if values.read(text, above.start("said")) is None:
            yield Candidate(above.start(), None, ANNOUNCED)


def _keys(text: str, values: Values) -> Iterator[Candidate]:
    """What stands behind a JSON key, in a tag or in a box."""
    for found in phrases.KEY.finditer(text):
        value = values.read(text, found.end())
        if value is not None or _none_of_these(text, found.end(), values):
            label = value.label if value is not None else None
            yield Candidate(found.start(), label, FINAL, _revises(text, found.start()))


def _nouns(text: str, values: Values) -> Iterator[Candidate]:
    """What "the answer …" announces, in English and other languages."""
    for noun in phrases.NOUN.finditer(text):
        value = _announced(text, noun, values)
        if value is None or _disowned(text, noun.start()):
            continue
        final = "final" in noun["quality"].lower()
        revises = final or _revises(text, noun.start())
        strength = FINAL if final else ANNOUNCED
        if noun["thing"] == "diagnosis" and noun["quality"] and not revises:
            if value.label is None or _limited(text, value.end):
                continue
            strength = IMPLIED
        yield Candidate(noun.start(), value.label, strength, revises)
    for found in languages.MARKER.finditer(text):
        if languages.WRONG.search(text[max(0, found.start() - 16) : found.start()]):
            continue
        value = values.read(text, found.end())
        if value is not None and not languages.SUPPOSED.search(_sentence_before(text, found.start())):
            label = None if value.label is not None and _list_goes_on(text, value, values) else value.label
            yield Candidate(found.start(), label, ANNOUNCED)


def _phrases(text: str, values: Values) -> Iterator[Candidate]:
    """What follows "I would choose", "I think it's", "Ans.", "therefore"."""
    for pattern, strength in (
        (phrases.CHOOSE, ANNOUNCED),
        (phrases.THINK, ANNOUNCED),
        (phrases.ABBREVIATED, ANNOUNCED),
        (phrases.THEREFORE, STATED),
    ):
        for found in pattern.finditer(text):
            value = values.read(text, found.end()) if text[found.end() : found.end() + 1] else None
            if value is not None and not _disowned(text, found.start()):
                revises = pattern is phrases.THEREFORE or _revises(text, found.start())
                yield Candidate(found.start(), value.label, strength, revises)
    for found in phrases.LABEL_LINE.finditer(text):
        value = values.read(text, found.end())
        if value is not None and phrases.LINE_ENDS.match(text, value.end):
            yield Candidate(found.start(), value.label, ANNOUNCED)


def _statements(text: str, values: Values) -> Iterator[Candidate]:
    """What "the most appropriate treatment is" names, where it is about the question's case."""
    for found in phrases.STATEMENT.finditer(text):
        if found["case"] and not phrases.THIS_CASE.search(found["case"]):
            continue
        before = text[max(0, found.start() - 24) : found.start()]
        if phrases.ANOTHERS.search(re.sub(r"\b(?:the|an?)\s$", "", before, flags=re.IGNORECASE)):
            continue
        value = values.read(text, found.end())
        if value is None or _disowned(text, found.start()) or _limited(text, value.end):
            continue
        revises = _revises(text, found.start())
        yield Candidate(found.start(), value.label, ANNOUNCED if revises else IMPLIED, revises)


def _limited(text: str, end: int) -> bool:
    """Whether what follows takes back what was said up to `end`, or limits it."""
    return phrases.LIMITED.search(text, end, end + 300) is not None


def _subjects(text: str, values: Values) -> Iterator[Candidate]:
    """What is said to be correct, the best or the next step."""
    for pattern in (phrases.IS_CORRECT, phrases.IS_BEST, phrases.IS_THE_STEP, languages.CORRECT):
        for found in pattern.finditer(text):
            subject = _before(text, found.start(), values)
            if subject is None or _disowned(text, subject.at):
                continue
            if pattern is languages.CORRECT and languages.SUPPOSED.search(_sentence_before(text, subject.at)):
                continue
            if pattern is phrases.IS_THE_STEP and not subject.revises:
                if _limited(text, found.end()):
                    continue
                subject = subject._replace(strength=IMPLIED)
            yield subject


def _none_of_these(text: str, at: int, values: Values) -> bool:
    """Whether the text at `at` names something that is none of the options ("none", "E" where they end at D)."""
    if phrases.NO_OPTION.match(text, at):
        return True
    other = phrases.OTHER_LABEL.match(text, at) if values.letters else None
    if other is None or other["other"].casefold() in values.by_key:
        return False
    return other["other"].isdigit() == all(label.isdigit() for label in values.by_key)


class _Item(NamedTuple):
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


def _items(text: str, values: Values) -> list[_Item]:
    """The lines that begin with a label, in order."""
    items = []
    for found in phrases.ITEM.finditer(text):
        value = values.read(text, found.end())
        if value is not None and value.label is not None:
            line = text[value.end : value.end + 200].split("\n", 1)[0]
            ruled_out = phrases.REJECTED.search(line) is not None
            items.append(_Item(found.end(), value.label, value.end, ruled_out))
            continue
        about = phrases.ABOUT_LETTER.match(text, found.end()) if values.letters else None
        label = values.by_key.get(about["letter"].casefold()) if about and about["letter"].isupper() else None
        if about is not None and label is not None:
            items.append(_Item(found.end(), label, about.end(), True))
    return items


def _leading(text: str, values: Values, items: list[_Item]) -> Iterator[Candidate]:
    """A decision with which the text begins, and the list items that would contradict it."""
    first: Candidate | None = None
    end = 0
    for opening in (phrases.LEAD, phrases.ECHOED_QUESTION):
        found = opening.match(text)
        value = values.read(text, found.end()) if found else None
        if (
            found is None
            or value is None
            or (opening is phrases.ECHOED_QUESTION and "?" in text[found.end() :])
        ):
            continue
        if value.label is None or not _contradicted(text, value, values):
            first = Candidate(found.end(), value.label, STATED)
            end = value.end
        break
    others = [item for item in items if item.at > end]
    listed = [Candidate(item.at, item.label, LISTED) for item in others if not item.ruled_out]
    if first is not None:
        if values.letters and first.label is not None and phrases.RULED_OUT.match(text, end):
            yield from listed
            return
        if any(item.label != first.label for item in listed) or _opens_list(text, end, first, others):
            first = first._replace(strength=LISTED)
        yield first
    yield from listed


def _opens_list(text: str, end: int, first: Candidate, others: list[_Item]) -> bool:
    """Whether the line after the one that begins the text is an item with another label."""
    if not others or others[0].label == first.label:
        return False
    line_end = text.find("\n", end)
    return line_end >= 0 and not text[line_end : others[0].at].strip(" \n\t\r-*#•+(0123456789.)")


def _contradicted(text: str, value: Value, values: Values) -> bool:
    """Whether the sentence (for letters: the line) that begins with `value` names another label too."""
    rest = text[value.end : value.end + 300].split("\n", 1)[0]
    letters = value.label is not None and len(value.label) == 1
    if not letters:
        rest = re.split(r"[.!?](?:\s|$)", rest, maxsplit=1)[0]
    for other in values.word.finditer(rest):
        if values.by_key.get(other.group(1).casefold()) == value.label:
            continue
        before, after = rest[max(0, other.start() - 24) : other.start()], rest[other.end() : other.end() + 60]
        if re.search(r"\b(?:not|than|of|isn't|unlike)\s[\"'(]?$", before, re.IGNORECASE):
            continue
        if letters:
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


def _last(text: str, values: Values, items: list[_Item]) -> Iterator[Candidate]:
    """A label that is the last sentence or line by itself, unless it is where a list of the options was cut."""
    tail = text.rstrip()
    offset = max(0, len(tail) - 90)
    found = phrases.LAST.search(tail, offset)
    if found is None:
        return
    value = values.read(tail, found.start("mark"))
    if value is None or value.label is None or re.search(r"\w", tail[value.end :]):
        return
    alone = found.start() == 0 or "\n" in tail[found.start() : found.start("rest")]
    if alone or len(value.label) > 1:
        cut = _cut_list(tail, found.start("rest"), value, items, values)
        yield Candidate(found.start("rest"), value.label, LISTED if cut else STATED, False)


def _cut_list(tail: str, at: int, value: Value, items: list[_Item], values: Values) -> bool:
    """Whether the last line, which names `value` at `at`, is an item of a list that goes no further."""
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


def _announced(text: str, noun: re.Match[str], values: Values) -> Value | None:
    """The label that "the answer …" announces."""
    before = text[max(0, noun.start() - 24) : noun.start()]
    line_start = phrases.LINE_START.search("\n" + before if noun.start() <= 24 else before) is not None
    headed = line_start and re.match(r"[*_\"']{0,4}\s?:", text[noun.end() : noun.end() + 8])
    if noun["thing"] and not noun["quality"] and not headed:
        return None  # "option" or "result" by itself is a word like any other, except as a heading
    if phrases.ANOTHERS.search(before):
        return None
    after = phrases.AFTER_NOUN.match(text, noun.end())
    start = after.end() if after else noun.end()
    window = text[start : start + 240]
    sentence = phrases.SENTENCE_END.split(window, maxsplit=1)[0]
    at_once = phrases.LINK.match(text, max(noun.end(), start - 1)) or phrases.LINK.match(text, start)
    if at_once:
        return _read_all(text, at_once.end(), noun, values)
    if line_start and (heading := phrases.HEADING_END.match(text, noun.end())):
        return _read_all(text, heading.end(), noun, values)
    if not phrases.BRIDGE.match(sentence):
        return None
    for link in phrases.LINK.finditer(sentence):
        value = values.read(text, start + link.end())
        if value is not None or link["colon"]:
            return value
    return None


def _read_all(text: str, at: int, noun: re.Match[str], values: Values) -> Value | None:
    """The label at `at`; None in it where a list of several follows, or where it is none of the options."""
    value = values.read(text, at)
    if value is None:
        stated = noun["answer"] is not None or noun["quality"]
        return Value(None, at) if stated and _none_of_these(text, at, values) else None
    plural = (noun["answer"] or "").casefold() == "answers"
    if value.label is not None and _list_goes_on(text, value, values, apart=plural):
        return Value(None, value.end)
    return value


def _list_goes_on(text: str, value: Value, values: Values, *, apart: bool = False) -> bool:
    """Whether the next line is a second option's heading and text (`apart`: also after an empty line)."""
    if not values.letters:
        return False
    following = phrases.NEXT_ITEM.match(text, value.end)
    if following is None or (following["empty"] and not apart):
        return False
    other = values.heading.match(text, following.end())
    line = text[following.end() : following.end() + 200].split("\n", 1)[0]
    if other is None or phrases.REJECTED.search(line):
        return False
    headed = text[value.end - 1 : value.end + 2].strip() not in ("", value.label)
    return values.by_key.get(other[1].casefold()) != value.label and headed


def _before(text: str, end: int, values: Values) -> Candidate | None:
    """The label or option that ends at `end`, as the subject of "is correct"."""
    start = max(0, end - min(1_000, 2 * values.texts.longest + 60))
    window = text[start:end].rstrip(" *_\"'`)]}.:,")
    option = _option_before(window, values)
    if option is not None:
        at, labels = option
        joined = phrases.JOINED_BEFORE.search(window[max(0, at - 40) : at])
        letter = _letter_at_end(window[:at], values)
        if (
            joined is None
            and letter is None
            and not phrases.SUBJECT_START.search(window[max(0, at - 24) : at])
        ):
            return None
        if letter in labels:
            labels = (letter,)
        agreed = labels[0] if len(labels) == 1 and letter in (None, labels[0]) else None
        if joined is not None and (joined["or"] or _names_at_end(window[: at - len(joined[0])], values)):
            agreed = None
        return Candidate(start + at, agreed, ANNOUNCED, _revises(text, start + at))
    window = window[-24:]
    offset = end - len(text[start:end]) + len(text[start:end].rstrip(" *_\"'`)]}.:,")) - len(window)
    for found in values.word.finditer(window):
        if found.end() != len(window):
            continue
        label = values.by_key.get(" ".join(found.group(1).split()).casefold())
        before = window[: found.start()]
        if label is None or re.search(r"(?:\b(?:or|and|nor)|[/&]|\b\w,)\s?[(\"'*]*$", before, re.IGNORECASE):
            return None
        if len(label) == 1 and not found.group(1).isupper() and not label.isdigit():
            return None
        if len(label) == 1 and re.search(
            r"\b(?:vitamin|hepatitis|type|group|factor)\s$", before, re.IGNORECASE
        ):
            return None
        at = offset + found.start()
        option = _option_before(
            text[max(0, at - len(window) - 2 * values.texts.longest) : at].rstrip(" ([-–—,"), values
        )
        agreed = (
            label if option is None or label in option[1] else None
        )  # "Atenolol (A)", where that is option B
        return Candidate(at, agreed, ANNOUNCED, _revises(text, at))
    return None


def _option_before(window: str, values: Values) -> tuple[int, tuple[str, ...]] | None:
    """Where the longest option text that ends `window` begins, and its labels."""
    if not values.texts:
        return None
    for found in phrases.WORD_START.finditer(window):
        option = values.texts.exactly_at(window, found.start())
        if option is not None and option.end == len(window):
            return found.start(), option.labels
    return None


def _names_at_end(before: str, values: Values) -> bool:
    """Whether a label or an option's text ends `before`."""
    before = before.rstrip(" *_\"'`)]}.,")
    return _option_before(before, values) is not None or _letter_at_end(before, values) is not None


def _letter_at_end(before: str, values: Values) -> str | None:
    """The letter that stands before an option's text, as in "B. Atenolol" and "(B) Atenolol"."""
    before = before.rstrip(" *_\"'`)([]{}.:,–—-")[-24:]
    for found in values.word.finditer(before):
        if found.end() == len(before) and len(found.group(1)) == 1 and found.group(1).isupper():
            return values.by_key.get(found.group(1).casefold())
    return None


def _sentence_before(text: str, at: int) -> str:
    """What stands before `at` in its sentence, at most 200 characters."""
    return phrases.SENTENCE_END.split(text[max(0, at - 200) : at])[-1]


def _revises(text: str, at: int) -> bool:
    return phrases.REVISES.search(_sentence_before(text, at)) is not None


def _disowned(text: str, at: int) -> bool:
    """Whether what is said at `at` is a condition, a doubt or someone else's opinion."""
    sentence = _sentence_before(text, at)
    if phrases.SUPPOSED.search(sentence):
        return True
    clause = phrases.SURE.sub("", phrases.CLAUSE_START.split(sentence)[-1])
    return phrases.DISOWNED.search(clause) is not None
