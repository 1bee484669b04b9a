"""The key-value cache: rows of tokens in blocks, and a table of each row's blocks.

PagedAttention: Kwon et al., 2023, https://arxiv.org/abs/2309.06180. A row takes as many blocks as it can need, whatever
the length of the others, and gives them back at its end.
"""

import torch
from torch import Tensor

from medqlora.fused.attention_half import Heads

#: tokens of a block
BLOCK = 16
#: blocks that no row has: zeros, which stand behind the last block of each row; and what idle rows of a pass write to
_EMPTY, _SCRATCH = 0, 1
RESERVED = 2


def blocks_for(tokens: int) -> int:
    """The blocks that hold so many tokens."""
    return -(-tokens // BLOCK)


class KeyValueCache:
    """Keys and values of each layer, [blocks, BLOCK, H_kv, d]; a slot of the table has one row's blocks in order.

    No two slots have a block in common. A pass may run over slots without a row: they have a block of their own.

    Args:
        layers: number of layers.
        heads: of a layer's attention.
        dtype, device: of keys and values.

    Attributes:
        table: [slots, columns] int64: the blocks of each slot.
        blocks: those that rows can have; 0 before `resize`.
        version: changes with the buffers' addresses.
    """

    def __init__(self, layers: int, heads: Heads, dtype: torch.dtype, device: torch.device) -> None:
        self._layers, self._heads, self._dtype, self._device = layers, heads, dtype, device
        self.version = 0
        self._free: list[int] = []
        self._owned: list[list[int]] = []
        self._allocate(0)
        self._new_table(0, 0)

    @property
    def slots(self) -> int:
        """Rows of the table."""
        return self.table.shape[0]

    @property
    def capacity(self) -> int:
        """Tokens that a row can have."""
        return self.table.shape[1] * BLOCK

    @property
    def free(self) -> int:
        """Blocks that no row has."""
        return len(self._free)

    @property
    def nbytes(self) -> int:
        """The bytes of keys and values."""
        return self._all.nbytes

    @property
    def token_bytes(self) -> int:
        """The bytes of one token's keys and values, over all layers."""
        return 2 * self._layers * self._heads.keys * self._heads.width * self._dtype.itemsize

    def keys(self, layer: int) -> Tensor:
        return self._all[0, layer]

    def values(self, layer: int) -> Tensor:
        return self._all[1, layer]

    # ---- sizes -----------------------------------------------------------------------------------

    def release(self) -> None:
        """Frees everything; there are no rows then."""
        self._allocate(0)
        self._new_table(0, 0)

    def resize(self, blocks: int) -> None:
        """New buffers with room for so many blocks; those of the rows are copied.

        Raises:
            ValueError: the rows have more blocks.
        """
        taken = sum(map(len, self._owned))
        if blocks < taken:
            raise ValueError(f"{taken} blocks are in use: a cache of {blocks} can't hold them")
        if not taken:
            self._allocate(0)  # freed before the new ones are allocated
            self._allocate(blocks)
            return
        old = self._all
        self._allocate(blocks)
        source, target = [block for slot in self._owned for block in slot], range(RESERVED, RESERVED + taken)
        renamed = dict(zip(source, target, strict=True))
        # layer by layer: a copy of all in between would take as much again
        index = torch.tensor(source, device=self._device)
        for new, kept in zip(self._all.flatten(0, 1), old.flatten(0, 1), strict=True):
            new[RESERVED : RESERVED + taken] = kept[index]
        for slot, owned in enumerate(self._owned):
            self._own(slot, [renamed[block] for block in owned])
        self._free = [block for block in self._free if block >= RESERVED + taken]

    def _allocate(self, blocks: int) -> None:
        """Buffers of zeros, in which all blocks are free."""
        count = RESERVED + blocks if blocks else 0
        size = (2, self._layers, count, BLOCK, self._heads.keys, self._heads.width)
        # a masked token has the weight 0, and 0 times an uninitialised value may be NaN
        self._all = torch.zeros(size, dtype=self._dtype, device=self._device)
        self._copies = self._all.new_empty(2, 0)
        self.blocks = blocks
        self._free = list(range(RESERVED + blocks - 1, RESERVED - 1, -1))
        self.version += 1

    def widen(self, slots: int, tokens: int) -> bool:
        """Makes the table larger where it has fewer slots, or room for fewer tokens a row; whether it did."""
        columns = max(self.table.shape[1], blocks_for(tokens))
        slots = max(self.slots, slots)
        if (slots, columns) == tuple(self.table.shape):
            return False
        owned = self._owned
        self._new_table(slots, columns)
        for slot, blocks in enumerate(owned):
            self._own(slot, blocks)
        return True

    def _new_table(self, slots: int, columns: int) -> None:
        self._owned = [[] for _ in range(slots)]
        self._host = torch.full((slots, columns), _SCRATCH, dtype=torch.int64)
        self.table = self._host.to(self._device, copy=True)
        self._changed = True
        self.version += 1

    # ---- rows ------------------------------------------------------------------------------------

    def take(self, slot: int, tokens: int) -> None:
        """Gives a free slot blocks for so many tokens, without what an earlier row left in them.

        Raises:
            ValueError: the slot has a row, there are too few free blocks, or the table is too narrow.
        """
        count = blocks_for(tokens)
        if self._owned[slot] or count > self.free or count > self.table.shape[1]:
            raise ValueError(f"no room for {tokens} tokens in slot {slot} of the cache")
        blocks = [self._free.pop() for _ in range(count)]
        # a NaN there would reach this row through a weight of 0
        self._all.index_fill_(2, torch.tensor(blocks, device=self._device), 0)
        self._own(slot, blocks)

    def give_back(self, slot: int) -> None:
        """Frees a slot and its blocks."""
        self._free += self._owned[slot]
        self._own(slot, [])

    def move(self, source: int, target: int) -> None:
        """A row goes to a free slot: no key or value is copied. Raises ValueError where the slot is another row's."""
        if self._owned[target]:
            raise ValueError(f"slot {target} of the key-value cache is not free")
        self._own(target, self._owned[source])
        self._own(source, [])

    def _own(self, slot: int, blocks: list[int]) -> None:
        self._owned[slot] = blocks
        row = self._host[slot]
        row.fill_(_EMPTY if blocks else _SCRATCH)
        row[: len(blocks)] = torch.tensor(blocks, dtype=torch.int64)
        self._changed = True

    def update(self) -> None:
        """Writes the table to the device, in place, where rows came, left or moved."""
        if self._changed:
            self.table.copy_(self._host)
            self._changed = False

    def places(self, slot: int, tokens: int) -> Tensor:
        """[tokens] int64 on the host: where the first tokens of a row stand, as `store` takes them."""
        every = torch.arange(tokens)
        return self._host[slot][every // BLOCK] * BLOCK + every % BLOCK

    def store(self, layer: int, keys: Tensor, values: Tensor, source: Tensor, places: Tensor) -> None:
        """Writes the keys and values of a packed pass.

        Args:
            layer: index of the layer.
            keys, values: [T, H_kv, d].
            source: [n] int64: the tokens to keep.
            places: [n] int64: block · BLOCK + position in it of each.
        """
        for kind, tensor in enumerate((keys, values)):
            self._all[kind, layer].flatten(0, 1).index_copy_(0, places, tensor[source])

    # ---- a decoding pass -------------------------------------------------------------------------

    def newest(self, positions: Tensor) -> Tensor:
        """[R] int64: where the tokens at these positions of the first slots stand, as `append` takes them."""
        block = self.table[: len(positions)].gather(1, (positions // BLOCK)[:, None])[:, 0]
        return block * BLOCK + positions % BLOCK

    def append(self, layer: int, keys: Tensor, values: Tensor, places: Tensor) -> None:
        """Writes a token of each of the first slots, [R, H_kv, d], at `newest` [R]."""
        self._all[0, layer].flatten(0, 1).index_copy_(0, places, keys)
        self._all[1, layer].flatten(0, 1).index_copy_(0, places, values)

    def read(self, layer: int, rows: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Copies of the first keys and values of the first slots, [rows, tokens, H_kv, d] each.

        On a CPU they are valid until the next call: fresh memory would cost more than the copy.
        """
        blocks = self.table[:rows, : blocks_for(tokens)].flatten()
        if self._device.type != "cpu":
            copies = [each[layer].index_select(0, blocks) for each in self._all]
        else:
            if self._copies.shape[1] != len(blocks):
                self._copies = self._all.new_empty(2, len(blocks), *self._all.shape[3:])
            copies = [
                torch.index_select(each[layer], 0, blocks, out=copy)
                for each, copy in zip(self._all, self._copies, strict=True)
            ]
        keys, values = (copy.unflatten(0, (rows, -1)).flatten(1, 2)[:, :tokens] for copy in copies)
        return keys, values
