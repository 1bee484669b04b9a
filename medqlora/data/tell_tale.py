"""Rejects prompts that hold the answer by mistake, under a tell-tale key in a context or in the question.

Examples: a complete row in its own context, `{'contexts': […], 'final_decision': 'yes'}`; a section with the name
"answer"; a line "label: yes". A model trained on such prompts learns to copy, and its test score means nothing.

Prose does not count. A key counts as a quoted key with its value, as an XML element, as the name of a section, or at
the start of a line. A key that occurs in prose too ("Answer: …") counts where its value is one of the record's answers.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from medqlora.data.checks import at_with_id
from medqlora.data.wording import shown
from medqlora.errors import InputError
from medqlora.records import Record

#: names of answer columns that do not occur in prose
_KEYS = (
    r"final_decision|finaldecision|reasoning[ _-](?:required|free)[ _-]pred|long_answer|gold_(?:label|answer|option)s?|"
    r"ground_truth|(?:correct|right|true|best|final)_(?:answer|option|choice|label)|correct_?answer|"
    r"answer_(?:idx|index|key|label|letter|choice)|answerkey|label_(?:idx|index)"
)
#: names that occur in prose, or in a table of measurements ("FEV1_pred"), too
_WORDS = (
    r"answers?|labels?|gold|cop|target|solution|decision|final[ -]decision|predictions?|ground[ -]truth|"
    r"[a-z][a-z0-9_]*_preds?|(?:correct|right|final)[ -](?:answer|option|choice|label)"
)
#: those of `_WORDS` whose number is the number of an option
_COUNTED = ("answer", "label", "gold", "cop")
_KEY = rf"(?P<key>{_KEYS}|{_WORDS})"
#: an array, a list, a quoted text, or a bare value to the next comma, bracket or line's end
_VALUE = (
    r"(?P<value>(?:[\w.]*array\()?\[[^\]]{0,2000}\]|\"(?:[^\"\\\n]|\\.){0,2000}\"|'(?:[^'\\\n]|\\.){0,2000}'|"
    r"[^,;|{}\[\]\n]{1,2000})"
)
#: a Python dict or a JSON object, also inside another text: 'key': value, \\"key\\": value, "key" => value
_QUOTED = re.compile(rf"\\?[\"'`]{_KEY}\\?[\"'`]\s*(?::|=>?)\s*\\?{_VALUE}", re.IGNORECASE)
_ELEMENT = re.compile(rf"<{_KEY}>(?P<value>[^<]{{1,2000}})</", re.IGNORECASE)
#: key: value and key=value on a line of its own, also after a bullet
_LINE = re.compile(
    rf"^[ \t>*#|-]*{_KEY}[ \t*]*[:=]+[ \t*]*(?P<value>[^\n]{{1,2000}})$", re.IGNORECASE | re.MULTILINE
)
#: a name that does not occur in prose, anywhere in a text
_ANYWHERE = re.compile(rf"(?<![\w\"'])(?P<key>{_KEYS})[ \t]*[:=]+[ \t]*{_VALUE}", re.IGNORECASE)
_FORMS = (_QUOTED, _ELEMENT, _LINE, _ANYWHERE)
#: PubMedQA's answer columns in any form: a cell of a Markdown table, a heading, a column of a CSV
_BARE = re.compile(
    r"(?<![^\W_])(?P<key>final_decision|reasoning_(?:required|free)_pred|long_answer)(?![^\W_])(?=[\W_]*(?P<value>\w+))",
    re.IGNORECASE,
)
#: "Answer: yes" as the last line of a question: the prompt is the complete example, with its answer
_LAST_LINE = re.compile(
    r"^[ \t>*#-]*(?P<key>(?:the )?(?:final |correct )?(?:answer|response|decision|label)|assistant|output|a)"
    r"[ \t*]*:[ \t*]*\n?"
    r"(?P<value>[^\n]{1,200})\s*\Z",
    re.IGNORECASE | re.MULTILINE,
)
#: a fast first check: most texts have none of these
_HINTS = ("pred", "decision", "answer", "label", "gold", "truth", "target", "solution", "correct", "cop")
_SURE = re.compile(rf"(?:{_KEYS})", re.IGNORECASE)
_NAMED = re.compile(_KEY, re.IGNORECASE)
_MISSING = ("", "none", "null", "nan", "na", "n/a", "[]", "unknown", "?")
_LETTER = re.compile(r"\(?([a-z0-9])[).:]?(?:\s.*)?", re.DOTALL)
_AROUND = " \t\r\n\"'`\\.,;:*()[]{}|"


def reject_tell_tale(records: Sequence[Record]) -> None:
    """Rejects a set in which a context or a question holds its record's answer under a tell-tale key.

    Args:
        records: a set for training, validation, test or prediction.

    Raises:
        InputError: names the first such record's file and line, the key, and the number of such records.
    """
    shared = _shared_texts(records)
    leaks = [(record, key) for record in records if (key := _in_contexts(record, shared)) is not None]
    leaks = leaks or _in_questions(records)
    if not leaks:
        return
    record, key = leaks[0]
    raise InputError(
        f"{at_with_id(record)}: the prompt holds the answer under the key {shown(key)} ({len(leaks):,} of "
        f"{len(records):,} records): take it out of the context, or name the column that holds the passages alone "
        "(--data.source.fields.contexts)"
    )


def _shared_texts(records: Sequence[Record]) -> frozenset[str]:
    """Contexts that reveal no answer, since records with different answers share them.

    An example is a system turn that shows the form of an answer. Where answers are unknown, contexts of several
    questions count as shared."""
    answers: dict[str, set[str]] = {}
    for record in records:
        answer = (
            record.question if record.answer is None else record.options.get(record.answer, record.answer)
        )
        for text in record.contexts:
            if _has_hint(text):
                answers.setdefault(text, set()).add(answer)
    return frozenset(text for text, different in answers.items() if len(different) > 1)


def _in_contexts(record: Record, shared: Collection[str]) -> str | None:
    for name, passage in zip(record.context_labels, record.contexts, strict=False):
        if _NAMED.fullmatch(name.strip()) and _gives_away(name.strip(), passage, record, quoted=True):
            return name.strip()
    texts = [text for text in record.contexts if text not in shared]
    for text in texts:
        for form in _FORMS if _has_hint(text) else ():
            for match in form.finditer(text):
                if _gives_away(match["key"], match["value"], record, quoted=form is not _LINE):
                    return match["key"]
    joined = "\n".join(texts)  # a list of keys and values becomes as many contexts
    for match in _BARE.finditer(joined) if "_" in joined else ():
        if match["value"].casefold() not in _MISSING and not _SURE.fullmatch(match["value"]):
            return match["key"]
    return None


def _in_question(record: Record) -> tuple[str, str] | None:
    """The tell-tale key and value in a question; None where there is none.

    A question may show the form of an answer ('reply with {"answer": "A"}'). So only names that no instruction has
    count here, and a last line."""
    if not _has_hint(record.question) and ":" not in record.question:
        return None
    for form in (_QUOTED, _ELEMENT, _ANYWHERE):
        for match in form.finditer(record.question):
            if _SURE.fullmatch(match["key"]) and _is_answer(match["value"], record):
                return match["key"], match["value"]
    last = _LAST_LINE.search(record.question)
    return (last["key"], last["value"]) if last and _is_answer(last["value"], record) else None


def _in_questions(records: Sequence[Record]) -> list[tuple[Record, str]]:
    """The records whose question holds the answer, each with the key.

    Where more than a tenth of the values are not the right answer, they are examples in an instruction."""
    found = [(record, pair) for record in records if (pair := _in_question(record)) is not None]
    wrong = sum(
        record.answer is not None
        and not _is_answer(value, replace(record, labels=(), options=_right(record)))
        for record, (_, value) in found
    )
    return [] if 10 * wrong > len(found) else [(record, key) for record, (key, _) in found]


def _right(record: Record) -> dict[str, str]:
    return {label: text for label, text in record.options.items() if label == record.answer}


def _has_hint(text: str) -> bool:
    lower = text.lower()
    return any(hint in lower for hint in _HINTS)


def _gives_away(key: str, value: str, record: Record, *, quoted: bool) -> bool:
    if _plain(value) in _MISSING:
        return False
    if _SURE.fullmatch(key):
        return True
    return _is_answer(value, record, index=quoted and key.lower() in _COUNTED)


def _is_answer(value: str, record: Record, *, index: bool = False) -> bool:
    """Whether a value is a possible answer of the record: a label, an option's letter or text, its free answer.

    Args:
        value: the value as written.
        record: the record.
        index: whether the number of a label counts too.
    """
    text = _plain(value)
    answers = {_plain(answer) for answer in _answers(record)}
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
    """Joins a list of characters, as the Hub has the annotators' answers: ['y', 'e', 's']."""
    return "".join(re.findall(r"[\"'](.)[\"']", value)).casefold()


def _plain(value: str) -> str:
    return " ".join(value.split()).strip(_AROUND).casefold()
