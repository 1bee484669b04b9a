"""The matrix products of a decoding pass by the kernels: a weight group's, with LoRA's first product beside it."""

from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from medqlora.fused.group import Group
from medqlora.fused.kernels.triton_nf4_product import products

#: rows up to which `products` runs on the ordinary units, row by row
_FEW = 2
#: rows up to which NF4 is faster than weights that are kept in 16 bits
_NF4_ROWS = 2


class LowRank(NamedTuple):
    """LoRA of one group as the kernels take it.

    Attributes:
        down: A [ranks, in], scaled.
        up: B [out, ranks].
        owners: [ranks] int64: the adapter of each rank; None where all rows have the same adapter.
    """

    down: Tensor
    up: Tensor
    owners: Tensor | None


class Sums(NamedTuple):
    """A product that the next kernel adds up.

    Attributes:
        product: [splits, rows, width] float32: x Wᵀ in its first columns.
        low: the same of x Aᵀ.
        lora: None without adapters.
    """

    product: Tensor
    low: Tensor
    lora: LowRank | None


class GroupProduct:
    """y = x Wᵀ and x Aᵀ of one weight group, for up to 64 rows.

    Args:
        group: its NF4 weights, or the 16-bit ones that it keeps.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self._nf4 = obstacle(group) is None
        if not self._nf4:
            return
        pairs = group.weights.nf4_pairs()
        state = pairs[0][1]
        self._assembly = group.down.is_cuda
        self._nested = state.nested
        self._operands: list[Tensor] = []
        for packed, each in pairs:
            self._operands += (packed, each.absmax)
            self._operands += (each.state2.absmax, each.offset) if each.nested else (each.absmax, each.absmax)
        for _ in range(3 - len(pairs)):
            self._operands += self._operands[:4]
        self._code = state.code
        self._second_code = state.state2.code if state.nested else state.code
        self._second_block = state.state2.blocksize if state.nested else 1

    def nibbles(self, rows: int) -> bool:
        """Whether the operand for so many rows is in nibble order."""
        return self._nf4 and (self.group.kept is None or rows <= _NF4_ROWS)

    def operand(self, rows: int) -> Tensor:
        """[rows, in], uninitialised."""
        group = self.group
        wide = self.nibbles(rows) and rows <= _FEW
        return group.down.new_empty(rows, group.inputs, dtype=torch.float32 if wide else None)

    def run(self, x: Tensor, routed: LowRank | None) -> Sums:
        """The product of an operand.

        Args:
            x: from `operand`.
            routed: LoRA of rows with different adapters; None for the group's own.
        """
        group = self.group
        lora = routed
        if lora is None and group.tail:
            lora = LowRank(group.down, group.up, None)
        if self.nibbles(len(x)):
            return self._kernel(x, lora)
        kept = group.kept
        assert kept is not None
        if routed is None:  # A stands below W
            both = _wide(x, kept[: group.outputs + group.tail])[None]
            return Sums(both, both[..., group.outputs :], lora)
        return Sums(_wide(x, kept[: group.outputs])[None], _wide(x, routed.down)[None], lora)

    def _kernel(self, x: Tensor, lora: LowRank | None) -> Sums:
        group, rows = self.group, len(x)
        ranks = 0 if lora is None else len(lora.down)
        down = group.down if lora is None else lora.down
        tiling = tiling_of(group, rows)
        out = x.new_empty(tiling.splits, rows, group.outputs + ranks, dtype=torch.float32)
        ends, tiles = [], 0
        for size in group.sizes:
            tiles += size // tiling.block
            ends.append(tiles)
        ends += [tiles] * (3 - len(ends))
        products[(tiles + triton.cdiv(ranks, tiling.block), tiling.splits)](
            x, out, down, down.stride(0), *self._operands, ends[0], ends[1], self._code, self._second_code,
            group.outputs, rows,
            ROWS=rows if rows <= _FEW else max(16, triton.next_power_of_2(rows)), MANY=rows > _FEW,
            COLUMNS=group.inputs, RANKS=ranks, NESTED=self._nested, SECOND_BLOCK=self._second_block,
            ASSEMBLY=self._assembly, SPLITS=tiling.splits, BLOCK=tiling.block, WORDS=tiling.words,
            LONG=tiling.columns, STAGES=tiling.stages, num_warps=tiling.warps,
        )  # fmt: skip
        return Sums(out, out[..., group.outputs :], lora)


def _wide(x: Tensor, weight: Tensor) -> Tensor:
    """x weightᵀ in float32."""
    if x.is_cuda and x.dtype != torch.float32:
        return torch.mm(x, weight.t(), out_dtype=torch.float32)
    return (x @ weight.t()).float()


def obstacle(group: Group) -> str | None:
    """The reason why the NF4 kernel can't run a group; None where it can."""
    if not 0 < len(group.weights.nf4_pairs()) <= 3:
        return "its weights are not in NF4 with blocks of 64"
    if group.inputs % 128 or any(size % 64 for size in group.sizes):
        return "its sizes are no multiples of 128 and 64"
    return None


class Tiling(NamedTuple):
    """What a program of `products` computes.

    Attributes:
        block: outputs.
        words: of eight weights, at a time.
        columns: of A, at a time.
        splits: programs that share the columns.
        stages, warps: as Triton has them.
    """

    block: int
    words: int
    columns: int
    splits: int
    stages: int
    warps: int


def tiling_of(group: Group, rows: int) -> Tiling:
    """The fastest tiling of several on an H200."""
    words = group.inputs // 8
    if rows <= _FEW:
        # 32 threads read four words each
        return Tiling(4, _part(words, 128), _part(group.inputs, 256), 1, 1, 1)
    splits = _part(words // 16, 4)
    stages = 3 if rows <= 16 else 2
    return Tiling(64, _part(words // splits, 32), _part(group.inputs // splits, 64), splits, stages, 4)


def _part(count: int, most: int) -> int:
    """The largest power of 2 up to `most` that divides `count`."""
    while count % most:
        most //= 2
    return most
