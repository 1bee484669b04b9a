"""Maps the columns of a file to record fields by common names of questions, contexts, answers and options."""

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from medqlora.data.fields import is_missing
from medqlora.data.readers import Row
from medqlora.data.wording import listed, plain
from medqlora.errors import InputError

FIELDS = ("id", "question", "contexts", "answer", "long_answer", "options", "topics", "images")

#: record field → synonyms, in order of preference
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "pmid", "pubid", "pubmed_id", "qid", "question_id", "_id", "uid", "uuid", "example_id"),
    "question": (
        *("question", "query", "prompt", "instruction", "input", "sent1", "body", "stem", "problem"),
        *("question_text", "question_stem", "qtext"),
    ),
    "contexts": (
        *("contexts", "context", "abstract", "abstracts", "passages", "passage", "documents", "document"),
        *("text", "texts", "article", "evidence", "paragraph", "paragraphs", "snippets", "background"),
        *("abstract_text", "vignette"),
    ),
    "options": ("options", "choices", "endings", "answer_choices", "answer_options", "candidates", "option"),
    "answer": (
        *("answer", "label", "target", "gold", "final_decision", "cop", "answer_idx", "answer_key"),
        *("answer_index", "answer_letter", "correct", "correct_answer", "correct_option", "correct_choice"),
        *("correct_idx", "correct_index", "correct_letter", "gold_label", "gold_answer", "ground_truth"),
        *("decision", "exact_answer", "output", "response", "completion", "answers", "correct_answers"),
    ),
    "long_answer": (
        *("long_answer", "rationale", "explanation", "exp", "reasoning", "justification", "ideal_answer"),
        *("chain_of_thought", "cot"),
    ),
    "topics": (
        *("topics", "topic", "meshes", "mesh", "mesh_terms", "subject_name", "topic_name", "subject"),
        *("category", "specialty"),
    ),
    "images": ("images", "image", "image_path", "image_file", "image_name", "img", "img_path", "img_name"),
}

#: names that number the rows of one file, and stand for something else in another: the id only where no other column
#: is, and every row has a number or code of its own
_NUMBERS = (
    *("nr", "no", "num", "number", "#", "row", "row_id", "item", "item_id", "sno", "lfdnr", "qno"),
    *("case", "case_id", "case_no", "case_nr", "record", "record_id", "record_no", "record_nr"),
    *("question_no", "question_nr", "question_number"),
)

#: names that reveal the answer, as a column or inside a context
TELL_TALE = frozenset(
    key
    for name in ("answer", "long_answer")
    for key in SYNONYMS[name]
    if key not in ("output", "response", "reasoning", "exp", "cot", "completion", "decision")
)

_IGNORED = re.compile(r"[\s_\-.]+")
_FAMILY = re.compile(r"(?P<stem>|op|opt|option|choice|ending|answer)(?P<mark>[a-z]|\d{1,2})")
#: how options are marked: by letters, or by numbers from 0 or from 1
_MARKS = (string.ascii_lowercase, [str(n) for n in range(26)], [str(n) for n in range(1, 27)])
_ADDRESS = re.compile(r"\s*(?:https?|ftp)://\S+\s*")
_LONG = 25  # characters; shorter texts are codes, names or dates
_CODE = re.compile(r"(?=.*\d)[\w\-/#]{1,40}")  # of a row
_LOOKED_AT = 200  # rows that are inspected

_WORDS_OF = {True: ("yes", "true", "on"), False: ("no", "false", "off")}


def key(name: str) -> str:
    """A column name without case, spaces, underscores, hyphens and dots: "Answer Key" is "answerkey"."""
    return _IGNORED.sub("", name.casefold()) or name


def columns_of(rows: Iterable[Row]) -> list[str]:
    """All columns of a file, in order."""
    return list(dict.fromkeys(column for row in rows for column in row.value))


def lookup(value: Mapping[str, object], keys: Iterable[str]) -> object:
    """The value of the first of `keys` that an object has, by normalized names; None for none."""
    names = {key(str(name)): name for name in value}
    return next((value[names[wanted]] for wanted in keys if wanted in names), None)


_KEYS = {
    field: {key(name): rank for rank, name in reversed(list(enumerate(names)))}
    for field, names in SYNONYMS.items()
}
_NUMBER_KEYS = frozenset(map(key, _NUMBERS))
_TELL_TALE_KEYS = frozenset(map(key, TELL_TALE))


def is_tell_tale(name: str) -> bool:
    """Whether a name reveals the answer: `final_decision`, `answer`, `reasoning_free_pred`, …"""
    plain_key = key(name)
    return (
        plain_key in _TELL_TALE_KEYS
        or bool(re.search(r"(?:^|[\s_\-.])preds?$|[\s_\-.]predictions?$", name.casefold()))
        or bool(
            re.fullmatch(r"(?:is)?correct(?:answer|option|choice|idx|index|letter|label|key)?s?", plain_key)
        )
    )


def find(name: str | bool, names: Iterable[str]) -> str | None:
    """The column with a name: an exact match, otherwise a unique match ignoring case and spaces.

    YAML turns the column names `Yes` and `No` into booleans.
    """
    columns = list(names)
    words = _WORDS_OF[name] if isinstance(name, bool) else (name,)
    for word in words:
        if word in columns:
            return word
    for word in words:
        near = [column for column in columns if key(column) == key(word)]
        if len(near) == 1:
            return near[0]
    return None


class Columns:
    """The columns of a file by record field.

    Args:
        rows: the rows of the file.
        fields: record field → column, from the options; disables detection for the field.
        option: the option that named the file, for messages.
        optional: the fields in `fields` whose column may be missing.

    Raises:
        InputError: a column of `fields` is in no row, or no column has the questions.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        fields: Mapping[str, str | bool | int | float],
        option: str,
        optional: Sequence[str] = (),
    ) -> None:
        self._option = option
        self._all = columns_of(rows)
        self._mapped: dict[str, list[str]] = {}
        for field, value in fields.items():
            parts: list[str | bool] = [value if isinstance(value, bool) else str(value)]
            if field == "options" and isinstance(value, str):
                parts = [part.strip() for part in value.split(",")]
            columns = [find(part, self._all) for part in parts]
            if None in columns and field not in optional:
                raise self._no_column(rows, parts[columns.index(None)], field)
            self._mapped[field] = [column for column in columns if column is not None]
        claimed = {column for columns in self._mapped.values() for column in columns}
        self._names = {
            field: self._mapped[field] if field in self._mapped else self._candidates(field, claimed)
            for field in FIELDS
        }
        #: whether the ids are a column that numbers the rows of this file
        self.numbered = False
        if not self._names["id"] and "id" not in self._mapped:
            numbers = [one for one in self._all if key(one) in _NUMBER_KEYS and one not in claimed]
            self._names["id"] = [one for one in numbers if _tells_rows_apart(rows, one)][:1]
            self.numbered = bool(self._names["id"])
        if "contexts" not in self._mapped:
            questions = self._names["question"][:1]
            self._names["contexts"] = [
                column
                for column in self._names["contexts"]
                if not (key(column) in ("text", "texts") and _repeats(rows, column, questions))
                and not _is_addresses(rows, column)
            ]
        self.families = [] if self._names["options"] else _families(self._all, claimed)
        if not self._names["question"]:
            raise self._no_column(rows, "question", "question")

    def _candidates(self, field: str, claimed: set[str]) -> list[str]:
        ranks = _KEYS[field]
        columns = [column for column in self._all if key(column) in ranks and column not in claimed]
        return sorted(columns, key=lambda column: (column != field, ranks[key(column)]))

    def fix(self, field: str) -> str:
        """The advice for naming a column, for messages; only sources have the option `fields`."""
        source = self._option.startswith("--data.source.")
        return f"name it with --data.source.fields.{field} COLUMN" if source else "rename one"

    def _no_column(self, rows: Sequence[Row], column: str | bool, field: str) -> InputError:
        name = _WORDS_OF[column][0] if isinstance(column, bool) else column
        return InputError(
            f"{self._option}: no row of {rows[0].file} has the column {name!r}; there are "
            f"{listed(sorted(self._all))}: {self.fix(field)}"
        )

    def names(self, field: str) -> list[str]:
        """The columns for a record field, in order of preference; [] for none."""
        return self._names[field]

    def name(self, field: str) -> str:
        """The preferred column for messages; the field name if there is none."""
        return self._names[field][0] if self._names[field] else field

    def has(self, field: str) -> bool:
        """Whether the file has a column for the field."""
        return bool(self._names[field])

    @staticmethod
    def has_own_name(column: str) -> bool:
        """Whether the column's name is none of the usual names of a field."""
        return not any(key(column) in _KEYS[field] for field in FIELDS)

    def is_mapped(self, field: str) -> bool:
        """Whether the options name the column."""
        return field in self._mapped

    def pick(self, row: Row, field: str) -> tuple[str, object]:
        """The column with the field's value in this row, and the value; the field name and None if it is missing.

        Raises:
            InputError: two columns have different values, and neither has the field's own name.
        """
        filled = [name for name in self._names[field] if not is_missing(row.value.get(name))]
        if not filled:
            return self.name(field), None
        first, value = filled[0], row.value[filled[0]]
        others = [name for name in filled[1:] if row.value[name] != value]
        if others and field in ("question", "contexts", "long_answer") and key(first) != key(field):
            raise InputError(
                f"{row.where}: {plain(first)} and {plain(others[0])} could both be the {field}: "
                f"{self.fix(field)}"
            )
        return first, value

    def unused(self, rows: Sequence[Row], used: Iterable[str]) -> list[str]:
        """The unused columns that have the content or the name of a record field.

        Args:
            rows: the rows of the file.
            used: further columns that are read.
        """
        read = {*used, *(column for columns in self.families for column in columns)}
        for field in ("id", "topics", "images"):
            read.update(self._names[field])
        for field in ("question", "contexts", "long_answer", "options"):
            read.update(self._names[field] if self.is_mapped(field) else self._names[field][:1])
        for field in ("question", "contexts", "long_answer"):  # a row may use another synonym
            first, *others = self._names[field] or [""]
            for column in others:
                if any(
                    is_missing(row.value.get(first)) and not is_missing(row.value.get(column)) for row in rows
                ):
                    read.add(column)
        synonyms = {
            name for field in FIELDS if field not in ("id", "topics", "images") for name in _KEYS[field]
        }
        return [
            column
            for column in self._all
            if column not in read
            and (
                (key(column) in synonyms and any(not is_missing(row.value.get(column)) for row in rows))
                or any(_is_content(row.value.get(column)) for row in rows[:_LOOKED_AT])
            )
        ]


def _tells_rows_apart(rows: Sequence[Row], column: str) -> bool:
    """Whether every row has a whole number or a short code in a column, and no two the same."""
    values = [row.value.get(column) for row in rows]
    if not all(
        isinstance(value, int) and not isinstance(value, bool)
        if not isinstance(value, str)
        else _CODE.fullmatch(value.strip())
        for value in values
    ):
        return False
    return len({str(value).strip() for value in values}) == len(values) > 1


def _repeats(rows: Sequence[Row], column: str, questions: Sequence[str]) -> bool:
    """Whether a text contains the row's question: then it is a formatted training example, not a context."""
    for row in rows[:_LOOKED_AT]:
        question = row.value.get(questions[0]) if questions else None
        text = row.value.get(column)
        if isinstance(question, str) and isinstance(text, str) and len(question.strip()) > 1:
            return question.strip() in text
    return False


def _is_addresses(rows: Sequence[Row], column: str) -> bool:
    """Whether a column has only URLs, as BioASQ's `documents`."""
    any_address = False
    for row in rows[:_LOOKED_AT]:
        value = row.value.get(column)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if is_missing(item):
                continue
            if not isinstance(item, str) or not _ADDRESS.fullmatch(item):
                return False
            any_address = True
    return any_address


def _is_content(value: object) -> bool:
    if isinstance(value, str):
        return len(value.strip()) >= _LONG and " " in value.strip()
    if isinstance(value, Mapping):
        return any(map(_is_content, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_is_content, value))


def _families(names: Sequence[str], claimed: set[str]) -> list[list[str]]:
    """Groups of columns with one option each: A, B, C; opa, opb; option_1, option_2; ending0, ending1."""
    groups: dict[str, dict[str, str]] = {}
    for column in names:
        match = _FAMILY.fullmatch(key(column))
        if match and column not in claimed:
            stem = match["stem"]
            if stem or column.isalpha():  # columns named 1, 2, … are not options
                groups.setdefault(stem, {}).setdefault(match["mark"].removeprefix("0") or "0", column)
    for stem in ("option", "op", "opt", "choice", "ending", "", "answer"):
        marked = groups.get(stem, {})
        for marks in _MARKS:
            columns = [marked[mark] for mark in takewhile(marked.__contains__, marks)]
            if len(columns) > 1:
                return [columns]
    return []
