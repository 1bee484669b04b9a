"""A file's rows as records: which column is which, what its answers are, and what is said of it at the start."""

from collections import Counter
from collections.abc import Mapping, Sequence

from medqlora.data import fields as values
from medqlora.data.readers import Row
from medqlora.data.shapes.answers import Answer, Answers, single
from medqlora.data.shapes.columns import Columns
from medqlora.data.shapes.contexts import parsed_cell, passages
from medqlora.data.shapes.conversations import expanded, form_of, in_our_columns
from medqlora.data.shapes.labels import Labels
from medqlora.data.shapes.options import options_of, options_of_columns
from medqlora.data.wording import listed, plain
from medqlora.errors import InputError
from medqlora.records import Record

_CONTENT = ("question", "contexts", "answer", "options")


class Table:
    """What the columns of a file mean.

    Args:
        rows: the file's rows, at least one.
        option: the option that named the file, for messages.
        labels: the possible answers of a question without options; none for free answers.
        fields: our name → the file's column; what it names overrides every form that would be recognised.
        answer_index: what the numbers among the answers count from, 0 or 1; None: told by the whole file.
        answers: whether answers are read. Without, a row's answer may be anything.
        default_labels: the user named no labels, so that the answers of chat or instruction data may be free.
        optional: of our names in `fields`, those that the file may lack.

    Raises:
        InputError: a column of `fields` is not there, or none holds the questions.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        option: str,
        labels: Labels,
        fields: Mapping[str, str | bool | int | float] | None = None,
        answer_index: int | None = None,
        *,
        answers: bool = True,
        default_labels: bool = False,
        optional: Sequence[str] = (),
    ) -> None:
        fields = fields or {}
        self.rows = expanded(rows)
        self.form = None if set(fields) & set(_CONTENT) else form_of(self.rows)
        self._labels, self._answers_wanted = labels, answers
        self._read = [self._tried(row) for row in self.rows]
        readable = [row for row in self._read if row is not None]
        if not readable:
            self._ours(self.rows[0])  # which says what is wrong
        self._columns = Columns(readable or rows, fields, option, optional)
        self._answers: Answers | None = None
        if answers:
            pairs = [(row, options) for row in readable if (options := self._tried_options(row)) is not None]
            self._answers = Answers(pairs, self._columns, labels, answer_index, option)
            if self.form is not None and default_labels and not any(options for _, options in pairs):
                self._answers.free = self._answers.none_is_a_label(readable, lambda row: row)
        self.found: Counter[str] = Counter()
        self._went_on = self._went_on_beside = 0

    @property
    def free(self) -> bool:
        """Whether the answers are free texts though no labels were named."""
        return self._answers is not None and self._answers.free

    @free.setter
    def free(self, value: bool) -> None:
        if self._answers is not None:
            self._answers.free = value

    @property
    def answer_column(self) -> str:
        """The column of the answers, for messages."""
        return (self._answers.columns if self._answers and self._answers.columns else ["answer"])[0]

    @property
    def has_answers(self) -> bool:
        """Whether a column is taken for the answers."""
        return bool(self._answers and self._answers.columns)

    @property
    def columns(self) -> list[str]:
        """All columns of the file."""
        return list(dict.fromkeys(name for row in self.rows for name in row.value))

    def _ours(self, row: Row) -> Row:
        return row if self.form is None else in_our_columns(row, self.form, answers=self._answers_wanted)

    def _tried(self, row: Row) -> Row | None:
        try:
            return self._ours(row)
        except InputError:
            return None  # it is told where the row is read

    def _tried_options(self, row: Row) -> dict[str, str] | None:
        try:
            return self._options(row)
        except InputError:
            return None

    def record(self, row: Row, default_id: str) -> Record:
        """A row as a record.

        Args:
            row: one of `rows`.
            default_id: the id where the row has none.

        Raises:
            InputError: something in it is not as it should be.
        """
        row, columns = self._ours(row), self._columns
        question = values.text(row, *columns.pick(row, "question"), needed=True)
        options = self._options(row)
        held = passages(row, *columns.pick(row, "contexts"))
        answer = self._answers.of(row, options) if self._answers is not None else None
        long_answer = self._long_answer(row, answer)
        if answer is not None:
            self.found[answer.text] += 1
        return Record(
            id=self._identity(row, default_id),
            question=question,
            contexts=held.texts,
            context_labels=held.names or self._section_names(row, len(held.texts)),
            options=options,
            labels=self._labels_of(row, options),
            answer=None if answer is None else answer.text,
            long_answer=long_answer,
            topics=tuple(dict.fromkeys([*self._topics(row), *held.topics])),
            where=row.where,
        )

    def _identity(self, row: Row, default_id: str) -> str:
        names = self._columns.names("id")
        column = next((name for name in names if not values.is_missing(row.value.get(name))), None)
        if column is not None:
            return values.identity(row, column, row.value[column])
        if self._columns.is_mapped("id"):
            raise InputError(
                f"{row.where}: {self._columns.name('id')} is missing or empty: every row needs an id"
            )
        return values.identity(row, "key", default_id)

    def _options(self, row: Row) -> dict[str, str]:
        names = self._columns.names("options")
        if self._columns.is_mapped("options") and len(names) > 1:
            return options_of_columns(row, names, named=True)
        for name in names:
            if not values.is_missing(row.value.get(name)):
                return options_of(row, name, row.value[name])
        for family in self._columns.families:
            if given := options_of_columns(row, family, named=False):
                return given
        return {}

    def _labels_of(self, row: Row, options: Mapping[str, str]) -> tuple[str, ...]:
        words = self._labels.words
        if not options:
            return () if self.free else words
        if words and self._labels.explicit and words != tuple(options):
            raise InputError(
                f"{row.where}: its options are {listed(options)}, and --data.source.labels has "
                f"{', '.join(words)}: leave --data.source.labels out for multiple choice"
            )
        return () if not words else tuple(options)

    def _long_answer(self, row: Row, answer: Answer | None) -> str:
        if self._answers is None:
            return ""
        column, value = self._columns.pick(row, "long_answer")
        value = None if values.is_null_word(value) else single(value)
        if isinstance(value, (list, tuple)) and (
            column != "long_answer" or isinstance(row.value[column], str)
        ):
            value = " ".join(values.texts(row, column, value))
        text = values.text(row, column, value)
        if answer is not None and answer.rationale:
            self._went_on += not text
            self._went_on_beside += bool(text)
        return text or (answer.rationale if answer is not None else "")

    def _topics(self, row: Row) -> list[str]:
        names = self._columns.names("topics")
        if names and (self._columns.is_mapped("topics") or names[0] == "topics"):
            value = row.value.get(names[0])
            return list(values.texts(row, names[0], parsed_cell(row, names[0], value)))
        found: list[str] = []
        for name in names:
            value = parsed_cell(row, name, row.value.get(name))
            held = value if isinstance(value, (list, tuple)) else [value]
            found += [item.strip() for item in held if isinstance(item, str) and item.strip()]
        return found

    def _section_names(self, row: Row, count: int) -> tuple[str, ...]:
        """PubMedQA's own files have the sections' names in a column LABELS, beside CONTEXTS."""
        for name in ("LABELS", "labels", "context_labels"):
            try:
                names = values.texts(row, name, row.value.get(name))
            except InputError:
                continue
            if names and len(names) == count:
                return names
        return ()

    def words(self) -> list[str]:
        """What was understood of the file, for its line at the start; call it when its records are read."""
        words = [self.form.words] if self.form is not None else []
        answers = self._answers
        if answers is None:
            return [word.replace("last answer learned", "asked without their last answer") for word in words]
        if not self.found:
            return words
        if self.free:
            return [*words, "free answers"]
        shown = [label for label in self._labels.words if self.found[label]]
        if shown and sum(self.found[label] for label in shown) == sum(self.found.values()):
            words.append("labels " + "/".join(map(plain, shown[:8])))
        return words

    def remarks(self) -> list[str]:
        """What the user should know of the columns, a line each without the file's name."""
        readable = [row for row in self._read if row is not None]
        unused = self._columns.unused(readable, [self.answer_column, *self._ignored()])
        lines = []
        if unused:
            lines.append(f"not used: {listed(unused)}")
        if self._went_on:
            lines.append(
                f"in {self._went_on:,} of {len(self.rows):,} rows text follows the label: learned as the rationale"
            )
        if self._went_on_beside:
            lines.append(
                f"in {self._went_on_beside:,} of {len(self.rows):,} rows text follows the label: left out, since "
                f"{self._columns.name('long_answer')} holds the rationale"
            )
        return lines

    def _ignored(self) -> list[str]:
        """Columns that are left out on purpose and need no word: sections' names; all answers where none is read."""
        names = ["LABELS", "labels", "context_labels"]
        if self._answers is None:
            return [*names, *self._columns.names("answer"), *self._columns.names("long_answer")]
        return [*names, *self._answers.checked]
