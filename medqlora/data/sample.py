"""A random part of the training set."""

import random

from medqlora.errors import InputError
from medqlora.records import Record


def draw_sample(records: list[Record], count: int | None, seed: int) -> list[Record]:
    """`count` random records in their original order, drawn by `seed`; all of them for None.

    Raises:
        InputError: there are fewer records.
    """
    if count is None or count == len(records):
        return records
    if count > len(records):
        raise InputError(
            f"--data.train_samples is {count}, but the training set holds {len(records)}: "
            "lower it, or leave it out to train on all"
        )
    chosen = set(random.Random(f"{seed}/sample").sample(range(len(records)), count))
    return [record for index, record in enumerate(records) if index in chosen]
