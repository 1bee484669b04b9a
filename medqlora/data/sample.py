"""Random parts of a set: of the training examples, and by label of the questions that are evaluated."""

import random
from collections.abc import Mapping
from typing import NamedTuple

from medqlora.errors import InputError
from medqlora.records import Record

#: set → its option and the rest of a message that says how to take all of it
_OPTIONS: Mapping[str, tuple[str, str, str]] = {
    "train": ("train_samples", "training", "train on"),
    "dev": ("validation_samples", "validation", "validate on"),
    "test": ("test_samples", "test", "test on"),
}


class Sample(NamedTuple):
    """A part of a set that stands for it.

    Attributes:
        size: its questions.
        of: the questions of the whole set.
        seed: that drew it.
    """

    size: int
    of: int
    seed: int

    def __str__(self) -> str:
        return f"sample ({self.size} of {self.of}, seed {self.seed})"


def draw_sample(records: list[Record], count: int | None, seed: int) -> list[Record]:
    """`count` random records in their original order, drawn by `seed`; all of them for None.

    Raises:
        InputError: there are fewer records.
    """
    if count is None or count == len(records):
        return records
    check_size("train", count, len(records))
    chosen = set(random.Random(f"{seed}/sample").sample(range(len(records)), count))
    return [record for index, record in enumerate(records) if index in chosen]


def draw_by_label(
    name: str, records: list[Record], count: int | None, seed: int
) -> tuple[list[Record], Sample | None]:
    """About the same share of each label's records, `count` in all, in their original order; all of them for None.

    The labels' counts are rounded by the largest remainder, so each is within one of its exact share. Free answers are
    one label.

    Args:
        name: the set, "dev" or "test".
        records: the whole set.
        count: at least 1.
        seed: draws the records.

    Returns:
        The records, and what they are a sample of; None where they are all.
    """
    if count is None or count >= len(records):
        return records, None
    places: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        places.setdefault(str(record.answer) if record.labels else "", []).append(index)
    shares = {label: count * len(of_label) / len(records) for label, of_label in places.items()}
    sizes = {label: int(share) for label, share in shares.items()}
    by_remainder = sorted(shares, key=lambda label: sizes[label] - shares[label])
    for label in by_remainder[: count - sum(sizes.values())]:
        sizes[label] += 1
    drawn = random.Random(f"{seed}/{name}")
    chosen = {index for label, of_label in places.items() for index in drawn.sample(of_label, sizes[label])}
    kept = [record for index, record in enumerate(records) if index in chosen]
    return kept, Sample(count, len(records), seed)


def check_size(name: str, count: int | None, size: int) -> None:
    """Raises InputError for a sample that is larger than its set."""
    if count is not None and count > size:
        option, words, use = _OPTIONS[name]
        raise InputError(
            f"--data.{option} is {count}, but the {words} set holds {size}: lower it, or leave it out to {use} all"
        )
