"""How many rows have room in the key-value cache, and how large it is: in blocks, whatever the rows' lengths."""

from collections.abc import Sequence
from typing import NamedTuple

from medqlora.fused.decoding.cache import BLOCK, blocks_for

#: most texts at once where the memory decides
MOST_ROWS = 256
#: share of a GPU's free memory that the cache takes then
CACHE_SHARE = 0.85
#: a cache that has to grow, without being told how far, grows by this factor at least: each growth costs a copy, and
#: the graphs' capture
_GROWTH = 2


class Placed(NamedTuple):
    """An answer of `Layout.place`.

    Attributes:
        rows: how many of the wanted rows, from the first on, have room now.
        blocks: of the cache for them.
    """

    rows: int
    blocks: int


class Layout:
    """Chooses the cache's size within limits.

    Args:
        rows: most rows at once.
        tokens: most tokens in all, of whole blocks; None for no limit. A single row may exceed it.
    """

    def __init__(self, rows: int, tokens: int | None) -> None:
        self.rows = rows
        self._blocks = None if tokens is None else tokens // BLOCK

    def fitting(self, needs: Sequence[int], active: Sequence[int] = ()) -> int:
        """How many rows, from the first on, have room beside the active ones; of these tokens each."""
        used, count = sum(map(blocks_for, active)), 0
        for need in needs[: max(0, self.rows - len(active))]:
            used += blocks_for(need)
            alone = not active and count == 0
            if self._blocks is not None and used > self._blocks and not alone:
                break
            count += 1
        return count

    def together(self, needs: Sequence[int]) -> int:
        """The most blocks that rows of these tokens take at a time, whatever their order."""
        sizes = sorted(map(blocks_for, needs), reverse=True)
        blocks = sum(sizes[: self.rows])
        return blocks if self._blocks is None else min(blocks, max([self._blocks, *sizes[:1]]))

    def place(self, blocks: int, active: Sequence[int], wanted: Sequence[int], expected: int = 0) -> Placed:
        """How many of the wanted rows have room now, and the cache's size for them.

        Args:
            blocks: of the present cache.
            active: tokens of each row in it.
            wanted: tokens of each new row, in order.
            expected: blocks that will be needed at a time, these rows' included, as far as the caller knows.
        """
        count = self.fitting(wanted, active)
        needed = sum(map(blocks_for, (*active, *wanted[:count])))
        if needed <= blocks:
            return Placed(count, blocks)
        size = max(needed, expected or _GROWTH * blocks)
        if self._blocks is not None:
            size = max(needed, min(size, self._blocks))
        return Placed(count, size)


def given_tokens(rows: int, micro_batch_tokens: int, max_new_tokens: int) -> int:
    """The most tokens of the cache where the number of rows is given.

    Twice a pass's prompts, and the new tokens: as much as the cache of transformers, which is copied as it grows.
    """
    return 2 * micro_batch_tokens + rows * max_new_tokens
