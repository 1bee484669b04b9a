"""From what a model wrote to a decision, or to None: never to a guess.

Models answer in many ways: `Yes, …`, `**Answer:** no`, `The answer is maybe.`, `{"answer": "B"}`, `(B)`,
`\\boxed{C}`, or after pages of thought. Every place that may be a decision becomes a `Candidate` with a
strength, and `parse_decision` gives an answer only where the candidates agree, or where the text itself
says which of them is its last word. An output that is read wrongly flatters or hurts a medical accuracy
silently; one that is not read is counted as wrong and its rate is reported.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from medqlora.evaluation import decision_phrases as phrases
from medqlora.evaluation.decision_values import Value, Values, values_for

#: candidates' strengths: a mere list item; a decision at the start, the end or after "therefore"; "the answer
#: is"; "final answer", JSON, tags and \boxed
LISTED, STATED, ANNOUNCED, FINAL = range(4)


class Candidate(NamedTuple):
    """A place that may be the decision.

    Attributes:
        at: its index in the text.
        label: the label there; None where several stand together.
        strength: LISTED, STATED, ANNOUNCED or FINAL.
        revises: whether its sentence presents it as a conclusion or correction ("so", "however", "wait").
    """

    at: int
    label: str | None
    strength: int
    revises: bool = False


def parse_decision(text: str, labels: Sequence[str], options: Mapping[str, str] | None = None) -> str | None:
    """The decision that `text` states, or None where it states none or more than one.

    In order of strength: a final answer ("final answer", a JSON key, `<answer>`, `\\boxed`, `####`); an
    announced one ("the answer is", "Answer:", "(B) is correct", "I would say"); one that is simply stated
    (first or last in the text, or after "therefore"). What stands in `<think>` is not read; thought that
    never ends gives None. A weaker candidate that disagrees gives None, unless the text marks the stronger
    as its last word. "yes or no", conditions, questions and other people's opinions decide nothing.

    Args:
        text: what was generated, without the prompt.
        labels: the decisions that are possible: words ("yes", "no", "maybe") or letters ("A" to "J").
        options: for multiple choice, label → text of the option, which then counts as its label.

    Returns:
        One of `labels`, in their own spelling, or None. Takes time linear in the length of `text`.
    """
    if not labels or not text or text.isspace():
        return None
    values = values_for(tuple(labels), tuple((options or {}).items()))
    for part in _questions(_spoken(text)):
        decision = _resolve(sorted(_candidates(part, values), key=_order))
        if decision is not None:
            return decision
    return None


def _order(candidate: Candidate) -> tuple[int, bool, str, int, bool]:
    """The order of the text; at one place, several labels together (None) come first."""
    at, label, strength, revises = candidate
    return at, label is not None, label or "", strength, revises


def _spoken(text: str) -> str:
    """What the model says, without its thoughts, its end token and styling tags."""
    text = text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0xA0: " "})
    ends = list(phrases.THOUGHT_END.finditer(text))
    if ends:
        text = text[ends[-1].end() :]
    unended = phrases.THOUGHT_START.search(text)
    if unended:
        text = text[: unended.start()]
    end = phrases.END_TOKEN.search(text)
    if end and text[: end.start()].strip():
        text = text[: end.start()]
    return phrases.STYLE_TAG.sub("", text)


def _questions(text: str) -> Iterator[str]:
    """The parts of `text` that begin with a question's header; the first that decides is the answer."""
    starts = [found.start() for found in phrases.NEXT_QUESTION.finditer(text)]
    for start, end in zip([0, *starts], [*starts, len(text)], strict=True):
        if text[start:end].strip():
            yield text[start:end]


def _resolve(candidates: Sequence[Candidate]) -> str | None:
    """The decision on which `candidates`, in the order of the text, come out."""
    top = max((candidate.strength for candidate in candidates), default=LISTED)
    if top == LISTED:
        return None
    strongest = [candidate for candidate in candidates if candidate.strength == top]
    chosen = strongest[-1]
    if chosen.label is None:
        return None
    said = {candidate.label for candidate in strongest if candidate.label is not None}
    if len(said) > 1 and not chosen.revises:
        return None
    first = min(candidate.at for candidate in strongest if candidate.label == chosen.label)
    for other in candidates:
        if other.label in (None, chosen.label) or other.strength == top:
            continue
        if other.strength == LISTED:
            if top == STATED:
                return None
        elif other.at > chosen.at or (other.at < first and top != FINAL and not chosen.revises):
            return None
    return chosen.label


def _candidates(text: str, values: Values) -> Iterator[Candidate]:
    """Every place of `text` that may be a decision."""
    yield from _leading(text, values)
    yield from _last(text, values)
    for found in phrases.KEY.finditer(text):
        value = values.read(text, found.end())
        if value is not None:
            yield Candidate(found.start(), value.label, FINAL, _revises(text, found.start()))
    for noun in phrases.NOUN.finditer(text):
        value = _announced(text, noun, values)
        if value is not None and not _disowned(text, noun.start()):
            final = "final" in noun["quality"].lower()
            yield Candidate(
                noun.start(),
                value.label,
                FINAL if final else ANNOUNCED,
                final or _revises(text, noun.start()),
            )
    for pattern, strength in ((phrases.CHOOSE, ANNOUNCED), (phrases.THEREFORE, STATED)):
        for found in pattern.finditer(text):
            value = values.read(text, found.end()) if text[found.end() : found.end() + 1] else None
            if value is not None and not _disowned(text, found.start()):
                revises = pattern is phrases.THEREFORE or _revises(text, found.start())
                yield Candidate(found.start(), value.label, strength, revises)
    for found in phrases.IS_CORRECT.finditer(text):
        subject = _before(text, found.start(), values)
        if subject is not None and not _disowned(text, subject.at):
            yield subject


def _leading(text: str, values: Values) -> Iterator[Candidate]:
    """A decision with which the text begins, and the list items that would contradict it."""
    first = None
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
        break
    items = []
    for item in phrases.ITEM.finditer(text):
        value = values.read(text, item.end())
        if value is None or value.label is None:
            continue
        line = text[value.end : value.end + 200].split("\n", 1)[0]
        if not phrases.REJECTED.search(line):
            items.append(Candidate(item.end(), value.label, LISTED))
    if first is not None:
        listed = any(item.label != first.label for item in items)
        yield first._replace(strength=LISTED) if listed else first
    yield from items


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


def _last(text: str, values: Values) -> Iterator[Candidate]:
    """A label that is the last sentence or line by itself."""
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
        yield Candidate(found.start("rest"), value.label, STATED, False)


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
        return values.read(text, at_once.end())
    if line_start and (heading := phrases.HEADING_END.match(text, noun.end())):
        return values.read(text, heading.end())
    if not phrases.BRIDGE.match(sentence):
        return None
    for link in phrases.LINK.finditer(sentence):
        value = values.read(text, start + link.end())
        if value is not None or link["colon"]:
            return value
    return None


def _before(text: str, end: int, values: Values) -> Candidate | None:
    """The label or option that ends at `end`, as the subject of "is correct"."""
    window = text[max(0, end - 24) : end].rstrip(" *_\"'`)]}.:,")
    offset = max(0, end - 24)
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
        return Candidate(at, label, ANNOUNCED, _revises(text, at))
    for key, label in values.options:
        before = text[max(0, end - len(key) - 12) : end].rstrip(" *_\"'`)].")
        if before.casefold().endswith(key) and not before[: len(before) - len(key)][-1:].isalnum():
            at = max(0, end - len(key) - 12)
            letter = _letter_at_end(before[: len(before) - len(key)], values)
            agreed = label if letter in (None, label) else None  # "A (Atenolol)", where that is option B
            return Candidate(at, agreed, ANNOUNCED, _revises(text, at))
    return None


def _letter_at_end(before: str, values: Values) -> str | None:
    """The letter that stands before an option's text, as in "B. Atenolol" and "(B) Atenolol"."""
    before = before.rstrip(" *_\"'`)([]{}.:,–—-")
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
