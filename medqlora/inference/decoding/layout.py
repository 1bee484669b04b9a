"""The size of the key-value cache: rows side by side, each with room for the longest."""

from collections.abc import Sequence
from typing import NamedTuple

from medqlora.fused.decoding.decode_pass import bucket

#: a cache with more slots for shorter rows is worth the copy of the old one from this growth on
_GROWTH = 1.5


class Size(NamedTuple):
    """Slots of a cache, and tokens of each."""

    slots: int
    capacity: int


class Layout:
    """Chooses the cache's size within a token budget.

    Args:
        rows: most rows at once.
        tokens: most tokens in all; None for no limit.
        multiple: capacities are multiples of it.
    """

    def __init__(self, rows: int, tokens: int | None, multiple: int) -> None:
        self._rows, self._tokens, self._multiple = rows, tokens, multiple

    def most(self, need: int) -> int:
        """Rows of `need` tokens that have room together, at least one."""
        if self._tokens is None:
            return self._rows
        return max(1, min(self._rows, self._tokens // self._up(need)))

    def place(
        self, size: Size, active: Sequence[int], wanted: Sequence[int], expected: int = 0
    ) -> tuple[int, Size]:
        """How many of the wanted rows have room now, and the cache's size for it.

        Args:
            size: of the present cache.
            active: tokens that each row in it needs.
            wanted: tokens that each new row needs, in order.
            expected: rows that will come, these included: a cache for as many need not grow later.
        """
        if not wanted:
            return 0, size
        longest = max(active, default=0)
        for considered in (wanted, wanted[:1]):
            capacity = self._up(max(longest, *considered))
            count = min(len(considered), self.most(capacity) - len(active))
            if count > 0:
                break
        else:
            return 0, size
        free = size.slots - len(active)
        if capacity <= size.capacity and free > 0:
            enough = free >= count or len(active) + count < _GROWTH * size.slots
            if enough:
                return min(free, count), size
        # a larger capacity than needed is kept where that costs no row: rows of that length came before
        kept = max(capacity, size.capacity)
        if self.most(kept) >= len(active) + count:
            capacity = kept
        slots = min(self.most(capacity), max(bucket(len(active) + count), expected))
        return count, Size(max(slots, len(active) + count), capacity)

    def _up(self, tokens: int) -> int:
        return -(-tokens // self._multiple) * self._multiple
