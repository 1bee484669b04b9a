"""Converts the rows of a file to records, and describes the detected columns and answers."""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from medqlora.data import fields as values
from medqlora.data.readers import Row
from medqlora.data.shapes.answers import Answer, Answers, single
from medqlora.data.shapes.columns import Columns, columns_of
from medqlora.data.shapes.contexts import parsed_cell, passages
from medqlora.data.shapes.conversations import expanded, form_of, in_our_columns
from medqlora.data.shapes.images import ImageColumn
from medqlora.data.shapes.labels import Labels
from medqlora.data.shapes.options import options_of, options_of_columns
from medqlora.data.wording import listed, plain
from medqlora.errors import InputError
from medqlora.records import Record

_T = TypeVar("_T")
_CONTENT = ("question", "contexts", "answer", "options")
_SECTION_COLUMNS = ("LABELS", "labels", "context_labels")


class Table:
    """The interpreted columns of a file.

    Args:
        rows: the rows of the file, at least one.
        option: the option that named the file, for messages.
        labels: the possible answers of questions without options; none for free answers.
        fields: record field → column; overrides the detection of formats.
        answer_index: the first number of numeric answers, 0 or 1; None to detect it from all rows.
        answers: whether answers are read; otherwise they may be anything.
        default_labels: the options name no labels, so that chat or instruction data may have free answers.
        optional: the fields in `fields` whose column may be missing.

    Raises:
        InputError: a column of `fields` is missing, no column has the questions, or SQuAD articles have none.
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
        if not self.rows:
            raise InputError(f"{option}: {rows[0].file} holds SQuAD articles without questions: add some")
        self.form = None if set(fields) & set(_CONTENT) else form_of(self.rows)
        self._labels, self._answers_wanted = labels, answers
        self._read = [_or_none(self._converted, row) for row in self.rows]
        readable = [row for row in self._read if row is not None]
        if not readable:
            self._converted(self.rows[0])  # raises the error
        self._of_source = option.startswith("--data.source.")
        self._columns = Columns(readable or rows, fields, option, optional)
        self._images = ImageColumn(self._columns, readable)
        self._answers: Answers | None = None
        if answers:
            tried = [(row, _or_none(self._options, row)) for row in readable]
            pairs = [(row, options) for row, options in tried if options is not None]
            self._answers = Answers(pairs, self._columns, labels, answer_index, option)
            if self.form is not None and default_labels and not any(options for _, options in pairs):
                self._answers.free = self._answers.none_is_a_label(readable)
        self._answer_counts: Counter[str] = Counter()
        #: rows with text after the label that is the rationale, or that is dropped for a rationale column
        self._rationales = self._dropped_rationales = 0

    @property
    def free(self) -> bool:
        """Whether the answers are free texts in spite of default labels."""
        return self._answers is not None and self._answers.free

    @free.setter
    def free(self, value: bool) -> None:
        if self._answers is not None:
            self._answers.free = value

    @property
    def answer_column(self) -> str:
        """The answer column, for messages."""
        return (self._answers.columns if self._answers and self._answers.columns else ["answer"])[0]

    @property
    def has_answers(self) -> bool:
        """Whether the file has an answer column."""
        return bool(self._answers and self._answers.columns)

    @property
    def numbered(self) -> bool:
        """Whether the ids are a column that numbers the rows, and may stand for other rows in another file."""
        return self._columns.numbered

    @property
    def columns(self) -> list[str]:
        """All columns of the file."""
        return columns_of(self.rows)

    def _converted(self, row: Row) -> Row:
        return row if self.form is None else in_our_columns(row, self.form, answers=self._answers_wanted)

    def record(self, row: Row, default_id: str) -> Record:
        """Converts a row to a record.

        Args:
            row: one of `rows`.
            default_id: the id for a row without one.

        Raises:
            InputError: the row is invalid.
        """
        row, columns = self._converted(row), self._columns
        question = values.text(row, *columns.pick(row, "question"), needed=True)
        options = self._options(row)
        context = passages(row, *columns.pick(row, "contexts"))
        answer = self._answers.of(row, options) if self._answers is not None else None
        long_answer = self._long_answer(row, answer)
        if answer is not None:
            self._answer_counts[answer.text] += 1
        return Record(
            id=self._identity(row, default_id),
            question=question,
            contexts=context.texts,
            context_labels=context.names or self._section_names(row, len(context.texts)),
            options=options,
            labels=self._labels_of(row, options),
            answer=None if answer is None else answer.text,
            long_answer=long_answer,
            topics=tuple(dict.fromkeys([*self._topics(row), *context.topics])),
            where=row.where,
            images=self._images.of(row),
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
            if options := options_of_columns(row, family, named=False):
                return options
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
            self._rationales += not text
            self._dropped_rationales += bool(text)
        return text or (answer.rationale if answer is not None else "")

    def _topics(self, row: Row) -> list[str]:
        names = self._columns.names("topics")
        if names and (self._columns.is_mapped("topics") or names[0] == "topics"):
            value = row.value.get(names[0])
            return list(values.texts(row, names[0], parsed_cell(row, names[0], value)))
        topics: list[str] = []
        for name in names:
            value = parsed_cell(row, name, row.value.get(name))
            items = value if isinstance(value, (list, tuple)) else [value]
            topics += [item.strip() for item in items if isinstance(item, str) and item.strip()]
        return topics

    def _section_names(self, row: Row, count: int) -> tuple[str, ...]:
        """The section names in a column of their own, such as LABELS in PubMedQA's files."""
        for name in _SECTION_COLUMNS:
            try:
                names = values.texts(row, name, row.value.get(name))
            except InputError:
                continue
            if names and len(names) == count:
                return names
        return ()

    def words(self) -> list[str]:
        """The terms for the file's remark; call it after all records are read."""
        words = [self.form.words] if self.form is not None else []
        answers = self._answers
        if answers is None:
            return [word.replace("last answer learned", "asked without their last answer") for word in words]
        if not self._answer_counts:
            return words
        if self.free:
            return [*words, "free answers"]
        counts = self._answer_counts
        labels = [label for label in self._labels.words if counts[label]]
        if labels and sum(counts[label] for label in labels) == sum(counts.values()):
            words.append("labels " + "/".join(map(plain, labels[:8])))
        return words

    def _way_to_use(self, unused: Sequence[str]) -> str:
        """How a column is read as the context, where the file has no column for it."""
        column = next(filter(self._columns.has_own_name, unused), None)
        if column is None or self._columns.has("contexts") or self.form is not None or not self._of_source:
            return ""
        return f"; if it is the context: --data.source.fields.contexts {shlex.quote(column)}"

    def remarks(self) -> list[str]:
        """Notes on the columns for the user, one line each without the file name."""
        readable = [row for row in self._read if row is not None]
        unused = self._columns.unused(readable, [self.answer_column, *self._ignored()])
        lines = self._images.remarks()
        if unused:
            lines.append(f"not used: {listed(unused)}{self._way_to_use(unused)}")
        if self._rationales:
            lines.append(
                f"in {self._rationales:,} of {len(self.rows):,} rows text follows the label: learned as the rationale"
            )
        if self._dropped_rationales:
            lines.append(
                f"in {self._dropped_rationales:,} of {len(self.rows):,} rows text follows the label: left out, since "
                f"{self._columns.name('long_answer')} holds the rationale"
            )
        return lines

    def _ignored(self) -> list[str]:
        """Columns that are ignored on purpose: section names, and answers if none are read."""
        if self._answers is None:
            return [*_SECTION_COLUMNS, *self._columns.names("answer"), *self._columns.names("long_answer")]
        return [*_SECTION_COLUMNS, *self._answers.checked]


def _or_none(convert: Callable[[Row], _T], row: Row) -> _T | None:
    """The converted row; None for an invalid row, which raises when its record is read."""
    try:
        return convert(row)
    except InputError:
        return None
