"""Which examples an epoch has, and their order: a function of seed and epoch only, so a resumed run draws the same."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from medqlora.records import Encoded


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """Indices of `count` examples in the shuffled order of an epoch: a function of seed and epoch only."""
    indices = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(indices)
    return indices


@dataclass(frozen=True)
class Part:
    """Epochs in a row over the same examples.

    Attributes:
        examples: what they draw from.
        epochs: how many; None for all that follow.
        groups: indices of `examples`; each epoch draws as many from each group. None draws from all alike.
        drawn: examples of an epoch; None for as many as there are.
    """

    examples: Sequence[Encoded]
    epochs: int | None = None
    groups: tuple[tuple[int, ...], ...] | None = None
    drawn: int | None = None

    @property
    def count(self) -> int:
        """Examples of an epoch."""
        return len(self.examples) if self.drawn is None else self.drawn

    def order(self, seed: int, epoch: int, within: int) -> list[int]:
        """Indices of the examples in an epoch's order.

        Without groups and a number this is `epoch_order`. Else each group is passed through in a new random order again
        and again, and an epoch goes on where the one before ended: over the epochs no example is left out.

        Args:
            seed: of the order.
            epoch: of the run, from 0.
            within: of this part, from 0.
        """
        if self.groups is None and self.drawn is None:
            return epoch_order(len(self.examples), seed, epoch)
        groups = self.groups or (tuple(range(len(self.examples))),)
        chosen: list[int] = []
        for number, group in enumerate(groups):
            # what does not divide evenly goes to the first groups
            share = self.count // len(groups) + (number < self.count % len(groups))
            drawn = islice(_passes(group, f"{seed}/{number}"), within * share, (within + 1) * share)
            chosen += drawn
        random.Random(f"{seed}/{epoch}").shuffle(chosen)
        return chosen


class EpochPlan:
    """The epochs of a run.

    Args:
        parts: in their order; the last one has all epochs that follow.
        seed: of the order.
    """

    def __init__(self, parts: Sequence[Part], seed: int = 0) -> None:
        if not parts:
            raise ValueError("a plan needs a part")
        self.parts = tuple(parts)
        self.seed = seed

    def part_of(self, epoch: int) -> tuple[int, int]:
        """Number of the part that `epoch` belongs to, and the epoch's number within it; both from 0."""
        for number, part in enumerate(self.parts[:-1]):
            if part.epochs is None or epoch < part.epochs:
                return number, epoch
            epoch -= part.epochs
        return len(self.parts) - 1, epoch

    def count(self, epoch: int) -> int:
        """Examples of an epoch."""
        return self.part(epoch).count

    def part(self, epoch: int) -> Part:
        """The part that `epoch` belongs to."""
        return self.parts[self.part_of(epoch)[0]]

    def order(self, epoch: int) -> list[int]:
        """Indices of the part's examples in the order of an epoch."""
        number, within = self.part_of(epoch)
        return self.parts[number].order(self.seed, epoch, within)


def _passes(group: Sequence[int], seed: str) -> Iterator[int]:
    """The members of a group without end, each pass in another order."""
    number = 0
    while True:
        members = list(group)
        random.Random(f"{seed}/pass {number}").shuffle(members)
        yield from members
        number += 1
