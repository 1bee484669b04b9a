"""Determines the answer column of a file, whether its numbers count from 0 or 1, and the answer of each row."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from medqlora.data import fields
from medqlora.data.fields import is_missing
from medqlora.data.readers import Row
from medqlora.data.shapes.cells import CellError, parse_cell
from medqlora.data.shapes.columns import Columns, key
from medqlora.data.shapes.labels import Labels, Reading, count_from, folded, read_option, whole
from medqlora.data.shapes.options import LETTERS
from medqlora.data.wording import listed, plain, shown
from medqlora.errors import InputError

_INDEX_OPTION = "--data.source.answer_index"


class Answer(NamedTuple):
    """
    Attributes:
        text: the label, the option letter, or the free answer.
        rationale: the text after a label; "" for none.
        column: its column.
    """

    text: str
    rationale: str
    column: str


class Answers:
    """The answers of one file.

    Args:
        rows: the rows with their options ({} for none); unusable rows may be left out.
        columns: the columns of the file.
        labels: the possible answers of questions without options; none for free answers.
        answer_index: the first number, 0 or 1, if the options set it.
        option: the option that named the file, for messages.
    """

    def __init__(
        self,
        rows: Sequence[tuple[Row, Mapping[str, str]]],
        columns: Columns,
        labels: Labels,
        answer_index: int | None,
        option: str,
    ) -> None:
        self._labels, self._option, self._given = labels, option, answer_index
        self._fix = columns.fix("answer")
        # an answer may be the name of an option's column: "Option 2", "opb"
        named = columns.names("options") if columns.is_mapped("options") else [*columns.families, []][0]
        self._letters = dict(zip(map(key, named), LETTERS, strict=False)) if len(named) > 1 else {}
        names = columns.names("answer")
        self._exact = columns.is_mapped("answer") or (bool(names) and key(names[0]) == "answer")
        self.columns = self._ranked(names, rows)
        #: has options → first number 0 or 1, the reason why it is undecidable, or None if answers are not numbers
        self._bases: dict[bool, int | str | None] = {
            choice: self._base([(row, options) for row, options in rows if bool(options) == choice])
            for choice in (True, False)
        }
        # test splits on the Hub have -1 for hidden answers
        self._hidden = bool(self.columns) and {
            whole(row.value.get(self.columns[0]))
            for row, _ in rows
            if not is_missing(row.value.get(self.columns[0]))
        } == {-1}
        #: columns that repeat the answer and were compared with the first
        self.checked: set[str] = set()
        #: whether the answers are free texts in spite of labels
        self.free = False

    def _ranked(self, names: list[str], rows: Sequence[tuple[Row, Mapping[str, str]]]) -> list[str]:
        """The columns by preference: the first with a readable answer in any row is moved to the front."""
        if len(names) < 2 or not self._labels.words:
            return names

        def readable(name: str) -> bool:
            for row, options in rows:
                value = row.value.get(name)
                counted = bool(options) or self._labels.counted
                if self._stated(value, options) is not None or (counted and whole(value) is not None):
                    return True
            return False

        first = next((name for name in names if readable(name)), names[0])
        return [first, *(name for name in names if name != first)]

    def _stated(self, value: object, options: Mapping[str, str]) -> Reading | None:
        if is_missing(value):
            return None
        if not options:
            return self._labels.read(single(value))
        letter = self._letters.get(key(value)) if isinstance(value, str) and len(value) < 40 else None
        by_name = Reading(letter) if letter is not None and letter in options else None
        return read_option(value, options) or by_name

    def _base(self, rows: Sequence[tuple[Row, Mapping[str, str]]]) -> int | str | None:
        """The first number of the answers; None if there are no numbers, or the numbers are labels."""
        if not self.columns or not self._labels.words:
            return None
        pairs: list[tuple[int, int]] = []  # each number, with the number of options or labels
        others = False  # a row names an option by its letter or text
        by_text = True  # each number is also an option's text: "80" among the options 60, 80 and 100
        for row, options in rows:
            value = single(row.value.get(self.columns[0]))
            number = whole(value)
            if number is None or is_missing(value):
                others = others or (bool(options) and self._stated(value, options) is not None)
                continue
            if (str(number) in options) if options else self._labels.read(value) is not None:
                continue
            pairs.append((number, len(options) or len(self._labels.words)))
            by_text = by_text and _named(str(number), options) is not None
        if not pairs:
            return None
        if self._given is not None:
            return self._given
        if by_text and (others or not any(_fits(pairs, first) for first in (0, 1))):
            return None
        if by_text:
            return "each is the text of one option and the number of another"
        return count_from([pair for pair in pairs if 0 <= pair[0] <= pair[1]] or pairs)

    def of(self, row: Row, options: Mapping[str, str]) -> Answer | None:
        """The answer of a row; None for none.

        Raises:
            InputError: the answer is not a label or option, or columns disagree.
        """
        filled = [(name, row.value[name]) for name in self.columns if not is_missing(row.value.get(name))]
        if not options and self.columns and self.columns[0] in row.value:
            # an empty first column means no answer
            filled = filled if filled and filled[0][0] == self.columns[0] else []
        if not filled or (self._hidden and whole(filled[0][1]) == -1):
            return None
        column, value = filled[0][0], single(filled[0][1])
        if self.free or not self._labels.words:
            self._reject_two(row, filled)
            return Answer(_free_text(row, column, value), "", column)
        if whole(value) is not None and column != self.columns[0]:
            reading = None  # the first number is known only for the first column
        elif whole(value) is not None and self._bases[bool(options)] is not None:
            reading = self._counted(row, column, value, options)
        else:
            reading = self._stated(value, options)
        if options:
            reading = self._agreed(row, column, reading, filled[1:], options)
        if reading is None:
            raise self._no_label(row, column, value, options)
        return Answer(reading.label, reading.rest, column)

    def _counted(self, row: Row, column: str, value: object, options: Mapping[str, str]) -> Reading | None:
        number, names = whole(value), list(options or self._labels.words)
        if not options and not self._labels.counted and self._given is None:
            return self._labels.read(value)
        if str(number) in names:
            return Reading(str(number))
        base = self._bases[bool(options)]
        assert number is not None
        if not 0 <= number <= len(names):
            raise fields.bad(
                row, column, value, f"give a number of the {len(names)} {'options' if options else 'labels'}"
            )
        if isinstance(base, str):
            raise InputError(
                f"{self._option}: {row.file or 'the file'} has the numbers {plain(column)} as answers: {base}: "
                f"give the first number of the {'options' if options else 'labels'} with {_INDEX_OPTION} 0 or 1"
            )
        assert base is not None
        if not base <= number < base + len(names):
            raise fields.bad(
                row,
                column,
                value,
                f"give {base} to {base + len(names) - 1}, as the other rows count from {base}",
            )
        return Reading(names[number - base])

    def _agreed(
        self,
        row: Row,
        column: str,
        reading: Reading | None,
        others: Iterable[tuple[str, object]],
        options: Mapping[str, str],
    ) -> Reading | None:
        """Checks that further columns, such as a letter and a text, name the same option."""
        for name, value in others:
            other = read_option(value, options) if whole(value) is None else None
            if other is not None:
                self.checked.add(name)
            if reading is None:
                reading = other
            elif other is not None and other.label != reading.label:
                raise InputError(
                    f"{row.where}: {plain(column)} names option {reading.label} and {plain(name)} option "
                    f"{other.label}: correct one, or {self._fix}"
                )
        return reading

    def _reject_two(self, row: Row, filled: Sequence[tuple[str, object]]) -> None:
        if not self._exact and any(value != filled[0][1] for _, value in filled[1:]):
            raise InputError(
                f"{row.where}: {plain(filled[0][0])} and {plain(filled[1][0])} could both be the answer: "
                f"{self._fix}"
            )

    def _no_label(self, row: Row, column: str, value: object, options: Mapping[str, str]) -> InputError:
        allowed = list(options or self._labels.words)
        fix = (
            "correct it"
            if options
            else "correct it, or name the possible answers in --data.source.labels ([]: free ones)"
        )
        if not options and (isinstance(value, bool) or whole(value) is not None):
            fix = (
                "name what the numbers mean: --data.source.labels in their order, or as a mapping ({0: no, 1: yes})"
                if not isinstance(value, bool)
                else "name what it means: --data.source.labels [yes, no], or a mapping ({true: …, false: …})"
            )
        return InputError(
            f"{row.where}: {plain(column)} is {shown(value)}, which is none of {listed(allowed)}: {fix}"
        )

    def none_is_a_label(self, rows: Sequence[Row]) -> bool:
        """Whether there are answers and none of them is a label."""
        answered = False
        for row in rows:
            for name in self.columns[:1]:
                answer = single(row.value.get(name))
                answered = answered or not is_missing(answer)
                numeric = isinstance(answer, bool) or whole(answer) is not None
                if numeric or self._labels.read(answer) is not None:
                    return False
        return answered


def single(value: object) -> object:
    """The answer in a list of one or of equal answers, also as text in a cell; other values unchanged."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(CellError):
            value = parse_cell(value)
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (str, int)):
        same = {
            folded(item) if isinstance(item, str) else item for item in value if isinstance(item, (str, int))
        }
        if len(same) == 1:
            return value[0]
    return value


def _fits(pairs: Sequence[tuple[int, int]], first: int) -> bool:
    return all(first <= number < first + count for number, count in pairs)


def _named(text: str, options: Mapping[str, str]) -> str | None:
    named = [label for label, option in options.items() if folded(option) == folded(text)]
    return named[0] if len(named) == 1 else None


def _free_text(row: Row, column: str, value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return fields.text(row, column, value)
