"""Answers that are in the prompt by mistake: a context, or a question, that holds them under a tell-tale key.

A row that was written into its own context gives its answer away: `{'contexts': […], 'final_decision': 'yes'}` as one
text, a section of a context that is called "answer", a line "label: yes". A model trained on such prompts learns to
copy, and its test score means nothing.

Prose is left alone: a key counts as a quoted key with its value, as an XML element, as the name of a section, or at the
start of a line, and a key that prose also has ("Answer: …") counts where its value is one of the record's answers.
"""

import re
from collections.abc import Iterable, Sequence

from medqlora.data.checks import at_with_id
from medqlora.data.wording import shown
from medqlora.errors import InputError
from medqlora.records import Record

#: names of columns that hold an answer, and that no prose has
_KEYS = (
    r"final_decision|finaldecision|reasoning_(?:required|free)_pred|long_answer|gold_(?:label|answer|option)s?|"
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
    r"[^,;{}\[\]\n]{1,2000})"
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
#: a quick look: most texts have none of these
_HINTS = (
    "_pred",
    "decision",
    "answer",
    "label",
    "gold",
    "truth",
    "target",
    "solution",
    "prediction",
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
    found = [(record, key) for record in records if (key := tell_tale_key(record)) is not None]
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
    for name, passage in zip(record.context_labels, record.contexts, strict=False):
        if _NAMED.fullmatch(name.strip()) and _gives_away(name.strip(), passage, record, quoted=True):
            return name.strip()
    for text in record.contexts:
        for form in _FORMS if _may_hold_one(text) else ():
            for match in form.finditer(text):
                if _gives_away(match["key"], match["value"], record, quoted=form is not _LINE):
                    return match["key"]
    # a question may show the form of an answer ('reply with {"answer": "A"}'): only names that no instruction has
    for match in _QUOTED.finditer(record.question) if _may_hold_one(record.question) else ():
        if _SURE.fullmatch(match["key"]) and _is_answer(match["value"], record):
            return match["key"]
    return None


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
