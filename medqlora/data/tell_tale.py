"""Answers that are in the prompt by mistake: a context, or a question, that holds them under a tell-tale key.

A row that was written into its own context gives its answer away: `{'contexts': […], 'final_decision': 'yes'}` as one
text, a section of a context that is called "answer", a line "label: yes". A model trained on such prompts learns to
copy, and its test score means nothing.

Prose is left alone: a key counts as a quoted key with its value, as an XML element, as the name of a section, or at the
start of a line, and a key that prose also has ("Answer: …") counts where its value is one of the record's answers.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from medqlora.data.checks import at_with_id
from medqlora.data.wording import shown
from medqlora.errors import InputError
from medqlora.records import Record

#: names of columns that hold an answer, and that no prose has
_KEYS = (
    r"final_decision|finaldecision|reasoning[ _-](?:required|free)[ _-]pred|long_answer|gold_(?:label|answer|option)s?|"
    r"ground_truth|(?:correct|right|true|best|final)_(?:answer|option|choice|label)|correct_?answer|"
    r"answer_(?:idx|index|key|label|letter|choice)|answerkey|label_(?:idx|index)"
)
#: names that prose, or a table of measurements ("FEV1_pred"), has too
_WORDS = (
    r"answers?|labels?|gold|cop|target|solution|decision|final[ -]decision|predictions?|ground[ -]truth|"
    r"[a-z][a-z0-9_]*_preds?|(?:correct|right|final)[ -](?:answer|option|choice|label)"
)
#: of these, those under which a number is that of an option
_COUNTED = ("answer", "label", "gold", "cop")
_KEY = rf"(?P<key>{_KEYS}|{_WORDS})"
#: an array, a list, a quoted text, or a bare value to the next comma, bracket or line's end
_VALUE = (
    r"(?P<value>(?:[\w.]*array\()?\[[^\]]{0,2000}\]|\"(?:[^\"\\\n]|\\.){0,2000}\"|'(?:[^'\\\n]|\\.){0,2000}'|"
    r"[^,;|{}\[\]\n]{1,2000})"
)
#: a dict of Python's or an object of JSON's, also inside another text: 'key': value, \\"key\\": value, "key" => value
_QUOTED = re.compile(rf"\\?[\"'`]{_KEY}\\?[\"'`]\s*(?::|=>?)\s*\\?{_VALUE}", re.IGNORECASE)
_ELEMENT = re.compile(rf"<{_KEY}>(?P<value>[^<]{{1,2000}})</", re.IGNORECASE)
#: key: value and key=value on a line of its own, also after a bullet
_LINE = re.compile(
    rf"^[ \t>*#|-]*{_KEY}[ \t*]*[:=]+[ \t*]*(?P<value>[^\n]{{1,2000}})$", re.IGNORECASE | re.MULTILINE
)
#: a name that no prose has, anywhere in a text
_ANYWHERE = re.compile(rf"(?<![\w\"'])(?P<key>{_KEYS})[ \t]*[:=]+[ \t]*{_VALUE}", re.IGNORECASE)
_FORMS = (_QUOTED, _ELEMENT, _LINE, _ANYWHERE)
#: PubMedQA's names of its answers, in whatever form: a cell of a Markdown table, a heading, a column of a CSV
_BARE = re.compile(
    r"(?<![^\W_])(?P<key>final_decision|reasoning_(?:required|free)_pred|long_answer)(?![^\W_])(?=[\W_]*(?P<value>\w+))",
    re.IGNORECASE,
)
#: "Answer: yes" as the last line of a question: the whole example, with its answer, as the prompt
_LAST_LINE = re.compile(
    r"^[ \t>*#-]*(?P<key>(?:the )?(?:final |correct )?(?:answer|response|decision|label)|assistant|output|a)"
    r"[ \t*]*:[ \t*]*\n?"
    r"(?P<value>[^\n]{1,200})\s*\Z",
    re.IGNORECASE | re.MULTILINE,
)
#: a quick look: most texts have none of these
_HINTS = (
    "pred",
    "decision",
    "answer",
    "label",
    "gold",
    "truth",
    "target",
    "solution",
    "correct",
    "cop",
)
_SURE = re.compile(rf"(?:{_KEYS})", re.IGNORECASE)
_NAMED = re.compile(_KEY, re.IGNORECASE)
_NOTHING = ("", "none", "null", "nan", "na", "n/a", "[]", "unknown", "?")
_LETTER = re.compile(r"\(?([a-z0-9])[).:]?(?:\s.*)?", re.DOTALL)
_AROUND = " \t\r\n\"'`\\.,;:*()[]{}|"


def reject_tell_tale(records: Sequence[Record]) -> None:
    """No prompt may hold its record's answer under a tell-tale key.

    Args:
        records: what is trained on, validated, tested or asked.

    Raises:
        InputError: a record's context or question does; names its place, the key, and how many records do.
    """
    shared = _shared_texts(records)
    found = [(record, key) for record in records if (key := _in_contexts(record, shared)) is not None]
    found = found or _in_questions(records)
    if not found:
        return
    record, key = found[0]
    raise InputError(
        f"{at_with_id(record)}: the prompt holds the answer under the key {shown(key)} ({len(found):,} of "
        f"{len(records):,} records): take it out of the context, or name the column that holds the passages alone "
        "(--data.source.fields.contexts)"
    )


def tell_tale_key(record: Record) -> str | None:
    """The key in a context or in the question under which the answer stands; None where there is none."""
    asked = _in_question(record)
    return _in_contexts(record, frozenset()) or (asked[0] if asked else None)


def _shared_texts(records: Sequence[Record]) -> frozenset[str]:
    """Contexts of records with different answers, as a system turn is that shows the form of an answer: they give
    none away. Where no answer is known, contexts of several questions."""
    answers: dict[str, set[str]] = {}
    for record in records:
        told = record.question if record.answer is None else record.options.get(record.answer, record.answer)
        for text in record.contexts:
            if _may_hold_one(text):
                answers.setdefault(text, set()).add(told)
    return frozenset(text for text, told in answers.items() if len(told) > 1)


def _in_contexts(record: Record, shared: Collection[str]) -> str | None:
    for name, passage in zip(record.context_labels, record.contexts, strict=False):
        if _NAMED.fullmatch(name.strip()) and _gives_away(name.strip(), passage, record, quoted=True):
            return name.strip()
    texts = [text for text in record.contexts if text not in shared]
    for text in texts:
        for form in _FORMS if _may_hold_one(text) else ():
            for match in form.finditer(text):
                if _gives_away(match["key"], match["value"], record, quoted=form is not _LINE):
                    return match["key"]
    whole = "\n".join(texts)  # a list of keys and values is as many contexts
    for match in _BARE.finditer(whole) if "_" in whole else ():
        if match["value"].casefold() not in _NOTHING and not _SURE.fullmatch(match["value"]):
            return match["key"]
    return None


def _in_question(record: Record) -> tuple[str, str] | None:
    """The key and the value in a question. It may show the form of an answer ('reply with {"answer": "A"}'): only
    names count that no instruction has, and a last line."""
    if not _may_hold_one(record.question) and ":" not in record.question:
        return None
    for form in (_QUOTED, _ELEMENT, _ANYWHERE):
        for match in form.finditer(record.question):
            if _SURE.fullmatch(match["key"]) and _is_answer(match["value"], record):
                return match["key"], match["value"]
    last = _LAST_LINE.search(record.question)
    return (last["key"], last["value"]) if last and _is_answer(last["value"], record) else None


def _in_questions(records: Sequence[Record]) -> list[tuple[Record, str]]:
    """The records whose question holds the answer. Where what they hold is not the right answer in one of ten, it
    is the example of an instruction."""
    found = [(record, held) for record in records if (held := _in_question(record)) is not None]
    wrong = sum(
        record.answer is not None
        and not _is_answer(value, replace(record, labels=(), options=_right(record)))
        for record, (_, value) in found
    )
    return [] if 10 * wrong > len(found) else [(record, key) for record, (key, _) in found]


def _right(record: Record) -> dict[str, str]:
    return {label: text for label, text in record.options.items() if label == record.answer}


def _may_hold_one(text: str) -> bool:
    lower = text.lower()
    return any(hint in lower for hint in _HINTS)


def _gives_away(key: str, value: str, record: Record, *, quoted: bool) -> bool:
    if _plain(value) in _NOTHING:
        return False
    if _SURE.fullmatch(key):
        return True
    return _is_answer(value, record, index=quoted and key.lower() in _COUNTED)


def _is_answer(value: str, record: Record, *, index: bool = False) -> bool:
    """Whether a value is one of the record's possible answers: a label, an option's letter or text, its free answer.

    Args:
        value: as written.
        record: whose answers.
        index: whether the number of a label counts too.
    """
    text = _plain(value)
    answers = {_plain(one) for one in _answers(record)}
    if text in answers or _joined(value) in answers:
        return True
    letter = _LETTER.fullmatch(text)
    if record.options and letter and letter[1] in {label.casefold() for label in record.options}:
        rest = _plain(text[1:])
        return rest in answers or rest == ""
    return index and record.labels != () and text.isdecimal() and int(text[:6]) <= len(record.labels)


def _answers(record: Record) -> Iterable[str]:
    yield from record.labels
    yield from (text for text in record.options.values() if text.strip())
    if record.answer is not None and record.answer.strip():
        yield record.answer


def _joined(value: str) -> str:
    """A list of characters, as the Hub has the annotators' answers: ['y', 'e', 's']."""
    return "".join(re.findall(r"[\"'](.)[\"']", value)).casefold()


def _plain(value: str) -> str:
    return " ".join(value.split()).strip(_AROUND).casefold()
