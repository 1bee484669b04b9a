"""Which column of a file holds the answers, what its numbers count, and what each row's answer is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
        text: the label, the option's letter, or the free answer.
        rationale: the text that goes on after a label; "" for none.
        column: where it stands.
    """

    text: str
    rationale: str
    column: str


class Answers:
    """The answers of one file.

    Args:
        rows: its rows, with their options ({} for none); rows that can't be used may be left out.
        columns: its columns.
        labels: the possible answers of a question without options; none for free answers.
        answer_index: what numbers count from, where the user said so.
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
        # "Option 2" and "opb" name a column, where each option has one
        named = columns.names("options") if columns.is_mapped("options") else [*columns.families, []][0]
        self._letters = dict(zip(map(key, named), LETTERS, strict=False)) if len(named) > 1 else {}
        names = columns.names("answer")
        self._exact = columns.is_mapped("answer") or (bool(names) and key(names[0]) == "answer")
        self.columns = self._ranked(names, rows)
        #: for questions with options and for others: 0, 1, why neither can be told, None where nothing is counted
        self._bases: dict[bool, int | str | None] = {
            choice: self._base([(row, held) for row, held in rows if bool(held) == choice])
            for choice in (True, False)
        }
        # the Hub's test splits have -1 where the answer is not told
        self._hidden = bool(self.columns) and {
            whole(row.value.get(self.columns[0]))
            for row, _ in rows
            if not is_missing(row.value.get(self.columns[0]))
        } == {-1}
        #: columns that say the same as the first, and were compared with it
        self.checked: set[str] = set()
        #: the answers are free texts whatever the labels
        self.free = False

    def _ranked(self, names: list[str], rows: Sequence[tuple[Row, Mapping[str, str]]]) -> list[str]:
        """The columns in the order in which they are asked: the first that any row's answer can be read from
        comes first."""
        if len(names) < 2 or not self._labels.words:
            return names

        def readable(name: str) -> bool:
            for row, options in rows:
                value = row.value.get(name)
                counted = bool(options) or self._labels.counted
                if self._says(value, options) is not None or (counted and whole(value) is not None):
                    return True
            return False

        first = next((name for name in names if readable(name)), names[0])
        return [first, *(name for name in names if name != first)]

    def _says(self, value: object, options: Mapping[str, str]) -> Reading | None:
        if is_missing(value):
            return None
        if not options:
            return self._labels.read(single(value))
        letter = self._letters.get(key(value)) if isinstance(value, str) and len(value) < 40 else None
        by_name = Reading(letter) if letter is not None and letter in options else None
        return read_option(value, options) or by_name

    def _base(self, rows: Sequence[tuple[Row, Mapping[str, str]]]) -> int | str | None:
        """What the numbers among the answers count from; None where they are none, or name labels themselves."""
        if not self.columns or not self._labels.words:
            return None
        found: list[tuple[int, int]] = []
        others = False  # rows that name an option by its letter or text
        by_text = True  # each number is an option's text too: "80" among the options 60, 80 and 100
        for row, options in rows:
            value = single(row.value.get(self.columns[0]))
            number = whole(value)
            if number is None or is_missing(value):
                others = others or (bool(options) and self._says(value, options) is not None)
                continue
            if (str(number) in options) if options else self._labels.read(value) is not None:
                continue
            found.append((number, len(options) or len(self._labels.words)))
            by_text = by_text and _named(str(number), options) is not None
        if not found:
            return None
        if self._given is not None:
            return self._given
        if by_text and (others or not any(_fits(found, first) for first in (0, 1))):
            return None
        if by_text:
            return "each is an option's text as well as a number of one"
        return count_from([pair for pair in found if 0 <= pair[0] <= pair[1]] or found)

    def of(self, row: Row, options: Mapping[str, str]) -> Answer | None:
        """A row's answer; None where it has none.

        Raises:
            InputError: it is none of the labels or options, or its columns disagree.
        """
        filled = [(name, row.value[name]) for name in self.columns if not is_missing(row.value.get(name))]
        if not options and self.columns and self.columns[0] in row.value:
            filled = filled if filled and filled[0][0] == self.columns[0] else []  # an empty answer is none
        if not filled or (self._hidden and whole(filled[0][1]) == -1):
            return None
        column, value = filled[0][0], single(filled[0][1])
        if self.free or not self._labels.words:
            self._reject_two(row, filled)
            return Answer(_free_text(row, column, value), "", column)
        if whole(value) is not None and column != self.columns[0]:
            reading = None  # what it counts from is told by the first column alone
        elif whole(value) is not None and self._bases[bool(options)] is not None:
            reading = self._counted(row, column, value, options)
        else:
            reading = self._says(value, options)
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
            what = "the right option's number" if options else "the label's number"
            raise InputError(
                f"{self._option}: {row.file or 'the file'} has the numbers {plain(column)} as answers: {base}: "
                f"say what {what} counts from with {_INDEX_OPTION} 0 or 1"
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
        """A letter in one column and a text in another have to name the same option."""
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

    def none_is_a_label(self, rows: Sequence[Row], read: Callable[[Row], Row]) -> bool:
        """Whether there are answers, and not one of them is a label."""
        answered = False
        for row in rows:
            try:
                value = read(row).value
            except InputError:
                continue
            for name in self.columns[:1]:
                held = single(value.get(name))
                answered = answered or not is_missing(held)
                if self._labels.read(held) is not None or isinstance(held, bool) or whole(held) is not None:
                    return False
        return answered


def single(value: object) -> object:
    """A list of one answer is that answer, also as text in a cell; so is one of answers that say the same."""
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


def _fits(found: Sequence[tuple[int, int]], first: int) -> bool:
    return all(first <= number < first + count for number, count in found)


def _named(text: str, options: Mapping[str, str]) -> str | None:
    named = [label for label, option in options.items() if folded(option) == folded(text)]
    return named[0] if len(named) == 1 else None


def _free_text(row: Row, column: str, value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return fields.text(row, column, value)
