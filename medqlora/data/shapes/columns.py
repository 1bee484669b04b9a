"""Which column of a file is which: the names that people give to a question, its contexts, and its answer."""

import re
from collections.abc import Iterable, Mapping, Sequence

from medqlora.data.fields import is_missing
from medqlora.data.readers import Row
from medqlora.data.wording import listed, plain
from medqlora.errors import InputError

OURS = ("id", "question", "contexts", "answer", "long_answer", "options", "topics")

#: our name → the names that stand for it, the first before the others where a file has several
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
}

#: what gives the answer away, in a column or inside of a context
TELL_TALE = frozenset(
    key
    for name in ("answer", "long_answer")
    for key in SYNONYMS[name]
    if key not in ("output", "response", "reasoning", "exp", "cot", "completion", "decision")
)

_IGNORED = re.compile(r"[\s_\-.]+")
_FAMILY = re.compile(r"(?P<stem>|op|opt|option|choice|ending|answer)(?P<mark>[a-z]|\d{1,2})")
_ADDRESS = re.compile(r"\s*(?:https?|ftp)://\S+\s*")
_LONG = 25  # characters; a shorter text is a code, a name or a date
_LOOKED_AT = 200  # rows

_WORDS_OF = {True: ("yes", "true", "on"), False: ("no", "false", "off")}


def key(name: str) -> str:
    """A column's name without case, spaces, underscores, hyphens and stops: "Answer Key" is "answerkey"."""
    return _IGNORED.sub("", name.casefold()) or name


_KEYS = {
    ours: {key(name): rank for rank, name in reversed(list(enumerate(names)))}
    for ours, names in SYNONYMS.items()
}
_TELL_TALE_KEYS = frozenset(map(key, TELL_TALE))


def is_tell_tale(name: str) -> bool:
    """Whether a key's value gives the answer away: `final_decision`, `answer`, `reasoning_free_pred`, …"""
    plain_key = key(name)
    return (
        plain_key in _TELL_TALE_KEYS
        or bool(re.search(r"(?:^|[\s_\-.])preds?$|[\s_\-.]predictions?$", name.casefold()))
        or bool(
            re.fullmatch(r"(?:is)?correct(?:answer|option|choice|idx|index|letter|label|key)?s?", plain_key)
        )
    )


def find(name: str | bool, there: Iterable[str]) -> str | None:
    """The file's column that a person means: as written, else whatever the case and the spaces.

    YAML makes true of `Yes` and false of `No`: a column of that name is meant.
    """
    every = list(there)
    wanted = _WORDS_OF[name] if isinstance(name, bool) else (name,)
    for word in wanted:
        if word in every:
            return word
    for word in wanted:
        near = [column for column in every if key(column) == key(word)]
        if len(near) == 1:
            return near[0]
    return None


class Columns:
    """The columns of a file by our names.

    Args:
        rows: its rows.
        fields: our name → the file's column, where the user said so; nothing else is looked at for it.
        option: the option that named the file, for messages.
        optional: of our names in `fields`, those that the file may lack.

    Raises:
        InputError: a column of `fields` is in no row, or no column holds the questions.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        fields: Mapping[str, str | bool | int | float],
        option: str,
        optional: Sequence[str] = (),
    ) -> None:
        self._option = option
        self._there = list(dict.fromkeys(column for row in rows for column in row.value))
        self._mapped: dict[str, list[str]] = {}
        for ours, given in fields.items():
            parts: list[str | bool] = [given if isinstance(given, bool) else str(given)]
            if ours == "options" and isinstance(given, str):
                parts = [part.strip() for part in given.split(",")]
            found = [find(part, self._there) for part in parts]
            if None in found and ours not in optional:
                raise self._no_column(rows, parts[found.index(None)], ours)
            self._mapped[ours] = [column for column in found if column is not None]
        claimed = {column for columns in self._mapped.values() for column in columns}
        self._names = {
            ours: self._mapped[ours] if ours in self._mapped else self._candidates(ours, claimed)
            for ours in OURS
        }
        if "contexts" not in self._mapped:
            asked = self._names["question"][:1]
            self._names["contexts"] = [
                column
                for column in self._names["contexts"]
                if not (key(column) in ("text", "texts") and _repeats(rows, column, asked))
                and not _is_addresses(rows, column)
            ]
        self.families = [] if self._names["options"] else _families(self._there, claimed)
        if not self._names["question"]:
            raise self._no_column(rows, "question", "question")

    def _candidates(self, ours: str, claimed: set[str]) -> list[str]:
        ranks = _KEYS[ours]
        held = [column for column in self._there if key(column) in ranks and column not in claimed]
        return sorted(held, key=lambda column: (column != ours, ranks[key(column)]))

    def fix(self, ours: str) -> str:
        """How the user says which column is meant, for messages; only a source has `fields`."""
        source = self._option.startswith("--data.source.")
        return f"map ours with --data.source.fields.{ours} COLUMN" if source else "rename one"

    def _no_column(self, rows: Sequence[Row], column: str | bool, ours: str) -> InputError:
        name = _WORDS_OF[column][0] if isinstance(column, bool) else column
        return InputError(
            f"{self._option}: no row of {rows[0].file} has the column {name!r}; there are "
            f"{listed(sorted(self._there))}: {self.fix(ours)}"
        )

    def names(self, ours: str) -> list[str]:
        """The file's columns for a name of ours, in the order in which they are taken; [] for none."""
        return self._names[ours]

    def name(self, ours: str) -> str:
        """The first of them, for messages; our name where there is none."""
        return self._names[ours][0] if self._names[ours] else ours

    def is_mapped(self, ours: str) -> bool:
        """Whether the user named the column."""
        return ours in self._mapped

    def pick(self, row: Row, ours: str) -> tuple[str, object]:
        """The column that holds it in this row, and its value; our name and None where none does.

        Raises:
            InputError: two columns are filled differently and neither has our name.
        """
        filled = [name for name in self._names[ours] if not is_missing(row.value.get(name))]
        if not filled:
            return self.name(ours), None
        first, value = filled[0], row.value[filled[0]]
        others = [name for name in filled[1:] if row.value[name] != value]
        if others and ours in ("question", "contexts", "long_answer") and key(first) != key(ours):
            raise InputError(
                f"{row.where}: {plain(first)} and {plain(others[0])} could both be the {ours}: "
                f"{self.fix(ours)}"
            )
        return first, value

    def unused(self, rows: Sequence[Row], used: Iterable[str]) -> list[str]:
        """The columns that look like content, or are called like it, and are not read.

        Args:
            rows: the file's rows.
            used: what is read besides `names`.
        """
        read = {*used, *(column for columns in self.families for column in columns)}
        for ours in ("id", "topics"):
            read.update(self._names[ours])
        for ours in ("question", "contexts", "long_answer", "options"):
            read.update(self._names[ours] if self.is_mapped(ours) else self._names[ours][:1])
        for ours in ("question", "contexts", "long_answer"):  # rows of one file may have them by other names
            first, *others = self._names[ours] or [""]
            for column in others:
                if any(
                    is_missing(row.value.get(first)) and not is_missing(row.value.get(column)) for row in rows
                ):
                    read.add(column)
        synonyms = {name for ours in OURS if ours not in ("id", "topics") for name in _KEYS[ours]}
        return [
            column
            for column in self._there
            if column not in read
            and (
                (key(column) in synonyms and any(not is_missing(row.value.get(column)) for row in rows))
                or any(_is_content(row.value.get(column)) for row in rows[:_LOOKED_AT])
            )
        ]


def _repeats(rows: Sequence[Row], column: str, asked: Sequence[str]) -> bool:
    """Whether a text holds the row's question, as the whole example does that is ready for training, with its
    answer: no context."""
    for row in rows[:_LOOKED_AT]:
        question = row.value.get(asked[0]) if asked else None
        text = row.value.get(column)
        if isinstance(question, str) and isinstance(text, str) and len(question.strip()) > 1:
            return question.strip() in text
    return False


def _is_addresses(rows: Sequence[Row], column: str) -> bool:
    """Whether a column has addresses alone, as BioASQ's `documents` has beside the snippets."""
    found = False
    for row in rows[:_LOOKED_AT]:
        value = row.value.get(column)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if is_missing(item):
                continue
            if not isinstance(item, str) or not _ADDRESS.fullmatch(item):
                return False
            found = True
    return found


def _is_content(value: object) -> bool:
    if isinstance(value, str):
        return len(value.strip()) >= _LONG and " " in value.strip()
    if isinstance(value, Mapping):
        return any(map(_is_content, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_is_content, value))


def _families(there: Sequence[str], claimed: set[str]) -> list[list[str]]:
    """Columns that hold an option each: A, B, C; opa, opb; option_1, option_2; ending0, ending1."""
    found: dict[str, dict[str, str]] = {}
    for column in there:
        match = _FAMILY.fullmatch(key(column))
        if match and column not in claimed:
            stem = match["stem"]
            if stem or column.isalpha():  # columns called 1, 2, … are numbers of something else
                found.setdefault(stem, {}).setdefault(match["mark"].removeprefix("0") or "0", column)
    families = []
    for stem in ("option", "op", "opt", "choice", "ending", "", "answer"):
        held = found.get(stem, {})
        for marks in (
            list("abcdefghijklmnopqrstuvwxyz"),
            list(map(str, range(26))),
            list(map(str, range(1, 27))),
        ):
            columns = []
            for mark in marks:
                if mark not in held:
                    break
                columns.append(held[mark])
            if len(columns) > 1:
                families.append(columns)
                break
    return families[:1]
