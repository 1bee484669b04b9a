"""The matrix products of a decoding pass: a weight group's, with LoRA's first product beside it."""

from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from medqlora.fused.decoding.decode_pass import MOST_NF4_ROWS, NF4_ROWS
from medqlora.fused.group import Group
from medqlora.fused.kernels.triton_nf4_product import products
from medqlora.fused.kernels.triton_nf4_row import row_products

#: rows up to which `row_products` is faster than `products`
_FEW = 2
#: most rows of `products`
_MOST_ROWS = MOST_NF4_ROWS
#: outputs of a program of `products` and of `row_products`
_OUTPUTS, _FEW_OUTPUTS = 64, 4
#: programs that share the columns of A in `row_products`
_LOW_SPLITS = 4
#: the orders of `triton_decode.leave`
PLAIN, NIBBLES, INTEGERS = 0, 1, 2


class Operand(NamedTuple):
    """x of a product, as `triton_decode.leave` writes it.

    Attributes:
        out: [rows, in] in 16 bits.
        limbs, scales: x as integers with `INTEGERS`; otherwise not used.
        order: one of the orders.
    """

    out: Tensor
    limbs: Tensor
    scales: Tensor
    order: int


class LowRank(NamedTuple):
    """LoRA of one group as the kernels take it.

    Attributes:
        down: A [ranks, in], scaled.
        up: B [out, ranks].
        owners: [ranks] int64: the adapter of each rank; None where all rows have the same adapter.
        own: ranks of each projection of the group, one behind another; 0 where they differ.
    """

    down: Tensor
    up: Tensor
    owners: Tensor | None
    own: int = 0


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
    """y = x Wᵀ and x Aᵀ of one weight group.

    The kernels multiply up to 64 rows with NF4. Weights that are kept in 16 bits, and those of more rows, which are
    dequantized first, are multiplied by torch.

    Args:
        group: the weights.
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

    def _takes_nf4(self, rows: int) -> bool:
        return self._nf4 and rows <= (_MOST_ROWS if self.group.kept is None else NF4_ROWS)

    def operand(self, rows: int) -> Operand:
        """An uninitialised operand of so many rows."""
        group = self.group
        out = group.down.new_empty(rows, group.inputs)
        if not self._takes_nf4(rows):
            return Operand(out, out, out, PLAIN)
        if rows > _FEW:
            return Operand(out, out, out, NIBBLES)
        limbs = out.new_empty(rows, 2 * group.inputs, dtype=torch.int8)
        scales = out.new_empty(rows, group.inputs // 64, dtype=torch.float32)
        return Operand(out, limbs, scales, INTEGERS)

    def run(self, x: Operand, routed: LowRank | None) -> Sums:
        """The product of an operand.

        Args:
            x: from `operand`.
            routed: LoRA of rows with different adapters; None for the group's own.
        """
        group = self.group
        lora = routed
        if lora is None and group.tail:
            lora = LowRank(group.down, group.up, None, _own_ranks(group))
        if x.order == NIBBLES:
            return self._many(x, lora)
        if x.order == INTEGERS:
            return self._few(x, lora)
        kept = group.kept
        if kept is None:
            weight = x.out.new_empty(group.outputs, group.inputs)
            group.weights.dequantize_into(weight)
            product = _wide(x.out, weight)[None]
            return Sums(product, product if lora is None else _wide(x.out, lora.down)[None], lora)
        if routed is None:  # A stands below W
            both = _wide(x.out, kept[: group.outputs + group.tail])[None]
            return Sums(both, both[..., group.outputs :], lora)
        return Sums(_wide(x.out, kept[: group.outputs])[None], _wide(x.out, routed.down)[None], lora)

    def _many(self, x: Operand, lora: LowRank | None) -> Sums:
        group, rows = self.group, len(x.out)
        ranks = 0 if lora is None else len(lora.down)
        down = group.down if lora is None else lora.down
        words = group.inputs // 8
        splits = _part(words // 16, 4)
        out = x.out.new_empty(splits, rows, group.outputs + ranks, dtype=torch.float32)
        tiles, end, end_1 = self._ends(_OUTPUTS)
        products[(tiles + triton.cdiv(ranks, _OUTPUTS), splits)](
            x.out, out, down, down.stride(0), *self._operands, end, end_1, self._code, self._second_code,
            group.outputs, rows,
            ROWS=max(16, triton.next_power_of_2(rows)), COLUMNS=group.inputs, RANKS=ranks, NESTED=self._nested,
            SECOND_BLOCK=self._second_block, ASSEMBLY=self._assembly, SPLITS=splits, BLOCK=_OUTPUTS,
            WORDS=_part(words // splits, 32), LONG=_part(group.inputs // splits, 64), STAGES=3 if rows <= 16 else 2,
        )  # fmt: skip
        return Sums(out, out[..., group.outputs :], lora)

    def _few(self, x: Operand, lora: LowRank | None) -> Sums:
        group, rows = self.group, len(x.out)
        ranks = 0 if lora is None else len(lora.down)
        down = group.down if lora is None else lora.down
        splits = _part(group.inputs // 32, _LOW_SPLITS)
        out = x.out.new_empty(1, rows, group.outputs, dtype=torch.float32)
        low = x.out.new_empty(splits, rows, ranks, dtype=torch.float32)
        tiles, end, end_1 = self._ends(_FEW_OUTPUTS)
        low_programs = triton.cdiv(ranks, _FEW_OUTPUTS) * splits
        row_products[(low_programs + tiles,)](
            x.out, x.limbs.view(torch.int32), x.scales, out, low, down, down.stride(0), *self._operands, end, end_1,
            self._code, self._second_code, group.outputs, ranks, low_programs,
            ROWS=rows, COLUMNS=group.inputs, NESTED=self._nested, SECOND_BLOCK=self._second_block,
            ASSEMBLY=self._assembly, LOW_SPLITS=splits, BLOCK=_FEW_OUTPUTS,
            # each of 32 threads reads four words at a time
            WORDS=_part(group.inputs // 8, 128), LONG=_part(group.inputs // splits, 256), num_warps=1,
        )  # fmt: skip
        return Sums(out, low, lora)

    def _ends(self, block: int) -> tuple[int, int, int]:
        """Programs of all weights, and those that come before the second and before the third."""
        ends, tiles = [], 0
        for size in self.group.sizes:
            tiles += size // block
            ends.append(tiles)
        ends += [tiles] * (3 - len(ends))
        return tiles, ends[0], ends[1]


def _own_ranks(group: Group) -> int:
    """The ranks of each projection where all have an adapter of the same rank; 0 where they differ."""
    ranks = {adapter.a.shape[0] for adapter, _, _ in group.adapters}
    return ranks.pop() if len(ranks) == 1 and len(group.adapters) == len(group.projections) else 0


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


def _part(count: int, most: int) -> int:
    """The largest power of 2 up to `most` that divides `count`."""
    while count % most:
        most //= 2
    return most
