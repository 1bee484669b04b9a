"""The candidates of a text: every position that may state the decision, with its strength.

`decisions.parse_decision` resolves them.
"""

import re
from collections.abc import Iterator

from medqlora.evaluation.parsing import languages, phrases
from medqlora.evaluation.parsing.lists import (
    items_of,
    last,
    leading,
    list_goes_on,
)
from medqlora.evaluation.parsing.values import (
    ANNOUNCED,
    FINAL,
    IMPLIED,
    STATED,
    Candidate,
    Value,
    Values,
)


def candidates(text: str, values: Values) -> Iterator[Candidate]:
    """Every candidate of `text`, in no particular order."""
    items = items_of(text, values)
    yield from leading(text, values, items)
    yield from last(text, values, items)
    yield from _keys(text, values)
    yield from _nouns(text, values)
    yield from _phrases(text, values)
    yield from _statements(text, values)
    yield from _subjects(text, values)
    if not values.letters:
        yield from _bare_sentences(text, values)
    above = phrases.NONE_ABOVE.search(text, max(0, len(text) - 60)) if values.letters else None
    if above is not None and values.read(text, above.start("said")) is None:
        yield Candidate(above.start(), None, ANNOUNCED)


def _keys(text: str, values: Values) -> Iterator[Candidate]:
    """Labels after a JSON key, in a tag or in a box."""
    for match in phrases.KEY.finditer(text):
        value = _read_all(text, match.end(), values)
        if value is not None or _none_of_these(text, match.end(), values):
            label = value.label if value is not None else None
            yield Candidate(match.start(), label, FINAL, _revises(text, match.start()))


def _nouns(text: str, values: Values) -> Iterator[Candidate]:
    """Labels that "the answer …" announces, in English and other languages."""
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
    lowered = text.lower()
    foreign = any(
        word in lowered for word in languages.WORDS
    )  # the pattern is slow on a text without its words
    for match in languages.MARKER.finditer(text) if foreign else ():
        if languages.WRONG.search(text[max(0, match.start() - 16) : match.start()]):
            continue
        value = _read_all(text, match.end(), values)
        if value is not None and not languages.SUPPOSED.search(_sentence_before(text, match.start())):
            yield Candidate(match.start(), value.label, ANNOUNCED)
    for match in phrases.SEVERAL_ARE.finditer(text):
        value = _read_all(text, match.end(), values, apart=True)
        several = phrases.NO_OPTION.match(text, match.end()) or (value is not None and value.label is None)
        if several and not _disowned(text, match.start()):
            yield Candidate(match.start(), None, ANNOUNCED)


def _phrases(text: str, values: Values) -> Iterator[Candidate]:
    """Labels after "I would choose", "I think it's", "Ans.", "therefore"; word labels after "the statement is"."""
    for pattern, strength in (
        (phrases.CHOOSE, ANNOUNCED),
        (phrases.THINK, ANNOUNCED),
        (phrases.ABBREVIATED, ANNOUNCED),
        (phrases.SO_IS, ANNOUNCED),
        (phrases.THEREFORE, STATED),
        *(() if values.letters else ((phrases.CLAIM, ANNOUNCED),)),
    ):
        for match in pattern.finditer(text):
            value = _read_all(text, match.end(), values) if match.end() < len(text) else None
            if pattern is phrases.THEREFORE and value is not None and _cut_word(text, value):
                continue
            if value is not None and not _disowned(text, match.start()):
                revises = pattern is phrases.THEREFORE or _revises(text, match.start())
                yield Candidate(match.start(), value.label, strength, revises)
    for match in phrases.CORRECTED.finditer(text):
        value = _corrected(text, match, values)
        if value is not None:
            yield Candidate(match.end("mark"), value.label, ANNOUNCED, True)
    for match in phrases.LABEL_LINE.finditer(text):
        value = values.read(text, match.end())
        if value is not None and phrases.LINE_ENDS.match(text, value.end):
            yield Candidate(match.start(), value.label, ANNOUNCED)


def _bare_sentences(text: str, values: Values) -> Iterator[Candidate]:
    """Word labels that are a later sentence, or begin one before a comma: "Yes. No."."""
    for match in values.sentence.finditer(text):
        value = values.read(text, match.start(1))
        if value is not None and (text[value.end :].strip(" ") or match[1].casefold() not in ("no", "maybe")):
            revises = _revises(text, match.start(1))
            yield Candidate(match.start(1), value.label, STATED, revises)


def _cut_word(text: str, value: Value) -> bool:
    """Whether `text` ends with a one-letter label in the other case: "Therefore, b", cut within a word."""
    written = re.search(r"(?<!\w)[a-z]\Z", text[-2:])
    return written is not None and value.end == len(text) and value.label != written[0]


def _corrected(text: str, match: re.Match[str], values: Values) -> Value | None:
    """The label that replaces an earlier one ("wait, no, it is C"); "no" itself may be that label."""
    before = text[max(0, match.start() - 24) : match.start()]
    asked = match["mark"].casefold() == "no" and before.rstrip(" *_").endswith("?")
    if asked or not phrases.BEFORE_CORRECTION.search(before) or _disowned(text, match.start()):
        return None
    value = _read_all(text, match.end(), values) if match.end() < len(text) else None
    if value is not None and (match["more"] or match["mark"].casefold() != "no" or values.letters):
        return value
    if match["mark"].casefold() == "no" or values.letters:
        return None
    return values.read(text, match.end("mark") + 1) if match["more"] else None


def _statements(text: str, values: Values) -> Iterator[Candidate]:
    """Labels after "the most appropriate treatment is", where it is about the question's case."""
    for match in phrases.STATEMENT.finditer(text):
        sentence = _sentence_before(text, match.start())
        case = "" if phrases.PART_OF_NAME.match(match["case"] or "") else match["case"]
        if phrases.OTHER_CASE.match(sentence):
            case = f"{sentence} {case}"
        if case and not phrases.THIS_CASE.search(case):
            continue
        before = text[max(0, match.start() - 24) : match.start()]
        if phrases.ANOTHERS.search(re.sub(r"\b(?:the|an?)\s$", "", before, flags=re.IGNORECASE)):
            continue
        value = _read_all(text, match.end(), values)
        if value is None and (verb := phrases.TO_GIVE.match(text, match.end())):
            value = _read_all(text, verb.end(), values)
        if value is None or _disowned(text, match.start()) or _limited(text, value.end):
            continue
        revises = _revises(text, match.start())
        yield Candidate(match.start(), value.label, ANNOUNCED if revises else IMPLIED, revises)


def _limited(text: str, end: int) -> bool:
    """Whether the text after `end` retracts or limits the statement before it."""
    return phrases.LIMITED.search(text, end, end + 300) is not None


def _subjects(text: str, values: Values) -> Iterator[Candidate]:
    """Labels that are called correct, the best or the next step."""
    for pattern in (
        phrases.IS_CORRECT,
        phrases.IS_BEST,
        phrases.IS_THE_STEP,
        languages.CORRECT,
        phrases.ALL_CORRECT,
    ):
        for match in pattern.finditer(text):
            subject = _before(text, match.start(), values, texts_only=pattern is phrases.ALL_CORRECT)
            if subject is None or _disowned(text, subject.at):
                continue
            if phrases.IN_ANOTHER_CASE.match(text, match.end()) and phrases.WOULD_BE.match(match[0]):
                continue
            if pattern is languages.CORRECT and languages.SUPPOSED.search(_sentence_before(text, subject.at)):
                continue
            letter = values.letter_behind(text, match.end())
            if letter is not None and letter != subject.label:
                subject = subject._replace(label=None)
            if phrases.ALSO.search(match[0]):  # a second one, whatever its sentence begins with
                subject = subject._replace(revises=False)
            if pattern is phrases.IS_THE_STEP and not subject.revises:
                if _limited(text, match.end()):
                    continue
                subject = subject._replace(strength=IMPLIED)
            yield subject


def _none_of_these(text: str, at: int, values: Values) -> bool:
    """Whether the text at `at` names none of the options ("none", "E" where they end at D)."""
    if phrases.NO_OPTION.match(text, at):
        return True
    other = phrases.OTHER_LABEL.match(text, at) if values.letters else None
    if other is None or other["other"].casefold() in values.by_key:
        return False
    return other["other"].isdigit() == all(label.isdigit() for label in values.by_key)


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
        return _read_noun(text, at_once.end(), noun, values)
    if line_start and (heading := phrases.HEADING_END.match(text, noun.end())):
        return _read_noun(text, heading.end(), noun, values)
    if not phrases.BRIDGE.match(sentence):
        return None
    for link in phrases.LINK.finditer(sentence):
        value = values.read(text, start + link.end())
        if value is not None or link["colon"]:
            return None if phrases.SAID_WRONG.search(sentence, 0, link.start()) else value
    return None


def _read_noun(text: str, at: int, noun: re.Match[str], values: Values) -> Value | None:
    """The label that `noun` announces at `at`; its label is None where none of the options is announced."""
    value = _read_all(text, at, values, apart=(noun["answer"] or "").casefold() == "answers")
    if value is None and (noun["answer"] is not None or noun["quality"]) and _none_of_these(text, at, values):
        return Value(None, at)
    return value


def _read_all(text: str, at: int, values: Values, *, apart: bool = False) -> Value | None:
    """The label at `at`; its label is None where a list of several begins there."""
    value = values.read(text, at)
    if value is not None and value.label is not None and list_goes_on(text, value, values, apart=apart):
        return Value(None, value.end)
    return value


def _before(text: str, end: int, values: Values, *, texts_only: bool = False) -> Candidate | None:
    """The label or option that ends at `end`, as the subject of "is correct".

    Args:
        texts_only: only an option's text, as the subject of "are correct".
    """
    start = max(0, end - min(1_000, 2 * values.texts.longest + 60))
    window = text[start:end].rstrip(" *_\"'`)]}.:,")
    option = _option_before(window, values)
    if option is not None:
        at, labels = option
        joined = phrases.JOINED_BEFORE.search(window[max(0, at - 40) : at])
        if joined is not None and joined["nor"]:
            return None
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
    if texts_only:
        return None
    window = window[-24:]
    offset = end - len(text[start:end]) + len(text[start:end].rstrip(" *_\"'`)]}.:,")) - len(window)
    for match in values.word.finditer(window):
        if match.end() != len(window):
            continue
        label = values.by_key.get(" ".join(match.group(1).split()).casefold())
        before = window[: match.start()]
        joined = phrases.JOINED_BEFORE.search(before)
        if label is None or (joined is not None and joined["nor"]):
            return None
        if len(label) == 1 and not match.group(1).isupper() and not label.isdigit():
            return None
        if len(label) == 1 and not label.isdigit() and not phrases.BEFORE_LETTER.search(before):
            return None  # "vitamin C", "influenza A"
        at = offset + match.start()
        named = phrases.NAMED_BEFORE.sub("", text[max(0, at - 60 - 2 * values.texts.longest) : at])
        option = _option_before(named.rstrip(" ([-–—,"), values)
        single = option is None or label in option[1]  # not "Atenolol (A)", where that is option B
        if joined is not None and (joined["or"] or _names_at_end(before[: joined.start()], values)):
            single = False
        return Candidate(at, label if single else None, ANNOUNCED, _revises(text, at))
    return None


def _option_before(window: str, values: Values) -> tuple[int, tuple[str, ...]] | None:
    """The start of the longest option text at the end of `window`, and its labels."""
    if not values.texts or not values.texts.may_end(window):
        return None
    for match in phrases.WORD_START.finditer(window):
        option = values.texts.exactly_at(window, match.start())
        if option is not None and option.end == len(window):
            return match.start(), option.labels
    return None


def _names_at_end(before: str, values: Values) -> bool:
    """Whether `before` ends with a label or an option's text."""
    before = before.rstrip(" *_\"'`)]}.,")
    return _option_before(before, values) is not None or _letter_at_end(before, values) is not None


def _letter_at_end(before: str, values: Values) -> str | None:
    """The letter before an option's text, as in "B. Atenolol" and "(B) Atenolol"."""
    before = before.rstrip(" *_\"'`)([]{}.:,–—-")[-24:]
    for match in values.word.finditer(before):
        if match.end() == len(before) and len(match.group(1)) == 1 and match.group(1).isupper():
            return values.by_key.get(match.group(1).casefold())
    return None


def _sentence_before(text: str, at: int) -> str:
    """The part of the sentence before `at`, at most 200 characters."""
    return phrases.SENTENCE_END.split(text[max(0, at - 200) : at])[-1]


def _revises(text: str, at: int) -> bool:
    return phrases.REVISES.search(_sentence_before(text, at)) is not None


def _disowned(text: str, at: int) -> bool:
    """Whether the statement at `at` is a condition, a doubt or someone else's opinion."""
    sentence = _sentence_before(text, at)
    if phrases.SUPPOSED.search(sentence):
        return True
    clause = phrases.SURE.sub("", phrases.CLAUSE_START.split(sentence)[-1])
    return phrases.DISOWNED.search(clause) is not None
