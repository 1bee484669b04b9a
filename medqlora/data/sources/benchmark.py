"""What the multiple-choice benchmarks share: letters, official sizes, and sets that are kept apart."""

from collections.abc import Iterable, Mapping

from medqlora.data import fields, readers
from medqlora.data.checks import unique_ids, without_shared_content
from medqlora.data.readers import Row
from medqlora.data.test_sets import reject_test_questions
from medqlora.errors import InputError
from medqlora.records import Splits

#: what names the Hub's set in the place of a file
HUB_WORD = "hub"

LETTERS = ("A", "B", "C", "D")


def local_copy(option: str) -> str:
    """What to do where the Hub can't be reached, for messages."""
    return f"pass a local copy: {option} FILE"


def four_options(row: Row, texts: Mapping[str, object]) -> dict[str, str]:
    """Letter → text.

    Real sets have options that are empty or alike, and are asked as they are.

    Args:
        row: where they stand, for messages.
        texts: the row's name of each option → its value, in order.

    Raises:
        InputError: there aren't four, one is no text, or all are empty.
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
    """The letter of an option that is counted from 0.

    Raises:
        InputError: it is no whole number from 0 to 3.
    """
    number = fields.whole(value)
    if number is None or not 0 <= number < len(LETTERS):
        raise fields.bad(row, key, value, f"give the right option's number, 0 to {len(LETTERS) - 1}")
    return LETTERS[number]


def check_size(
    found: int,
    official: int,
    what: str,
    place: str,
    *,
    allow_partial: bool,
    option: str = "--data.source.test",
) -> None:
    """A score on a part of a test set can't be compared with a reported one.

    Args:
        found: how many questions were read.
        official: how many the set has.
        what: what the set is called ("MedQA's test set").
        place: where they were read from.
        allow_partial: whether fewer are taken.
        option: the option that named `place`.

    Raises:
        InputError: there are fewer and that isn't allowed, there are none, or there are more.
    """
    if found > official:
        raise InputError(
            f"{option}: {place} holds {found:,} questions, and {what} has {official:,}: give that set alone"
        )
    if not found or (found < official and not allow_partial):
        ways = (
            "get the whole set"
            if not found
            else "get the whole set, or pass --data.source.allow_partial true"
        )
        raise InputError(f"{option}: {place} holds {found:,} of the {official:,} questions of {what}: {ways}")


def kept_apart(splits: Splits, *, check: bool = True) -> tuple[Splits, tuple[str, ...]]:
    """The sets without what a later one holds too: dev without the test set's questions, train without
    those of both. Exam questions are repeated across the splits of the benchmarks themselves, so these are
    left out and counted, rather than refused.

    Args:
        splits: the sets.
        check: whether a benchmark's test question among those to learn from is refused here.

    Returns:
        The sets, and a line for each count that isn't 0 (`Source.remarks`).

    Raises:
        InputError: an id stands twice, or a record to learn from is a test question of a benchmark, and `check`.
    """
    unique_ids([record for part in splits for record in part], "over train, dev and test")
    if check:
        reject_test_questions({"train": splits.train, "dev": splits.dev})
    dev = without_shared_content(splits.dev, splits.test)
    train = without_shared_content(splits.train, [*splits.test, *dev])
    remarks = [
        f"{len(whole) - len(kept):,} of {len(whole):,} {part} questions are in {other} too, and left out"
        for part, whole, kept, other in (
            ("train", splits.train, train, "dev or test"),
            ("dev", splits.dev, dev, "test"),
        )
        if len(kept) < len(whole)
    ]
    return Splits(train, dev, splits.test), tuple(remarks)


def fingerprint(name: str, values: Mapping[str, object], paths: Iterable[object]) -> dict[str, object]:
    """`Source.fingerprint` for a source with these constructor values and local files."""
    local = [str(path) for path in paths if path not in (None, HUB_WORD)]
    return {"source": name, **values, "files": {path: readers.fingerprint(path) for path in local}}
