"""The common part of the multiple-choice benchmarks: letters, official sizes, and sets without shared questions."""

from collections.abc import Iterable, Mapping

from medqlora.data import fields, readers
from medqlora.data.checks import unique_ids, without_shared_content
from medqlora.data.readers import Row
from medqlora.data.test_sets import reject_test_questions
from medqlora.errors import InputError
from medqlora.records import Splits

#: the value that names the Hub's set instead of a file
HUB_WORD = "hub"

LETTERS = ("A", "B", "C", "D")


def four_options(row: Row, texts: Mapping[str, object]) -> dict[str, str]:
    """Letter → text of the option. Real sets have empty and equal options, which stay unchanged.

    Args:
        row: the row, for messages.
        texts: the row's key of each option → its value, in order.

    Raises:
        InputError: there are not four options, one is no text, or all are empty.
    """
    if len(texts) != len(LETTERS):
        raise InputError(
            f"{row.where}: has {len(texts)} options: give the version of the set with {len(LETTERS)}"
        )
    options = {
        letter: fields.text(row, key, value)
        for letter, (key, value) in zip(LETTERS, texts.items(), strict=True)
    }
    if not any(text.strip() for text in options.values()):
        raise InputError(f"{row.where}: {', '.join(texts)} are all empty: give the texts of the options")
    return options


def letter_of(row: Row, key: str, value: object) -> str:
    """The letter of an option that the row counts from 0.

    Raises:
        InputError: the value is no whole number from 0 to 3.
    """
    number = fields.whole(value)
    if number is None or not 0 <= number < len(LETTERS):
        raise fields.bad(row, key, value, f"give the right option's number, 0 to {len(LETTERS) - 1}")
    return LETTERS[number]


def check_size(
    count: int,
    official: int,
    what: str,
    origin: str,
    *,
    allow_partial: bool,
    option: str = "--data.source.test",
) -> None:
    """Rejects an incomplete test set: its score can't be compared with a reported one.

    Args:
        count: the number of questions that were read.
        official: the number of questions that the set has.
        what: the set's name ("MedQA's test set").
        origin: the file or repository that they were read from.
        allow_partial: whether fewer questions are accepted.
        option: the option that named `origin`.

    Raises:
        InputError: there are fewer questions and that is not allowed, none, or more.
    """
    if count > official:
        raise InputError(
            f"{option}: {origin} holds {count:,} questions, and {what} has {official:,}: give that set alone"
        )
    if not count or (count < official and not allow_partial):
        fix = "get the whole set" + (", or pass --data.source.allow_partial true" if count else "")
        raise InputError(f"{option}: {origin} holds {count:,} of the {official:,} questions of {what}: {fix}")


def kept_apart(splits: Splits, *, check: bool = True) -> tuple[Splits, tuple[str, ...]]:
    """Removes questions that recur: from dev those of the test set, from train those of dev and test.

    The benchmarks themselves repeat questions across their splits, so these are counted rather than rejected.

    Args:
        splits: the sets.
        check: whether to reject benchmarks' test questions in train and dev.

    Returns:
        The sets, and a line for each set that became smaller (`Source.remarks`).

    Raises:
        InputError: an id is repeated, or, with `check`, train or dev holds a benchmark's test question.
    """
    unique_ids([record for part in splits for record in part], "over train, dev and test")
    if check:
        reject_test_questions({"train": splits.train, "dev": splits.dev})
    dev = without_shared_content(splits.dev, splits.test)
    train = without_shared_content(splits.train, [*splits.test, *dev])
    remarks = [
        f"{len(records) - len(kept):,} of {len(records):,} {part} questions are in {other} too, and left out"
        for part, records, kept, other in (
            ("train", splits.train, train, "dev or test"),
            ("dev", splits.dev, dev, "test"),
        )
        if len(kept) < len(records)
    ]
    return Splits(train, dev, splits.test), tuple(remarks)


def fingerprint(name: str, values: Mapping[str, object], paths: Iterable[object]) -> dict[str, object]:
    """`Source.fingerprint` for a source with these constructor values and local files."""
    local = [str(path) for path in paths if path not in (None, HUB_WORD)]
    return {"source": name, **values, "files": {path: readers.fingerprint(path) for path in local}}
