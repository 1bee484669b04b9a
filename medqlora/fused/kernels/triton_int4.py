# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""Dequantization of 4-bit integers, (q - z) s, to half precision: one launch per weight group.

The layout is that of `models.int4`: two inputs in a byte, the first in its low half; scales and zero points [out, G].
"""

from collections.abc import Callable, Sequence

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from medqlora.models.int4 import Int4State

#: blocks of 64 values per program, and its warps: those of the NF4 kernel
_BLOCKS, _WARPS = 32, 2


def prepare(weights: Sequence[tuple[Tensor, Int4State]]) -> Callable[[Tensor], None]:
    """A function that fills `out` [rows, columns] of a 16-bit type with up to three weights, stacked by rows.

    The number of columns is a multiple of 64, and the row stride is even.

    Args:
        weights: packed bytes and state of each weight.
    """
    ordered = all(state.groups is None for _, state in weights)
    operands: list[Tensor | int] = []
    ends: list[int] = []
    programs = 0
    for packed, state in weights:
        rows, inputs = state.shape
        blocks = rows * inputs // 64
        programs += -(-blocks // _BLOCKS)
        ends.append(programs)
        groups = state.groups
        if groups is None:
            groups = torch.arange(1 if ordered else inputs, dtype=torch.int32, device=packed.device)
            groups //= state.group_size
        operands += (packed, state.scales, state.zeros, groups)
        operands += (state.scales.shape[1], state.group_size, blocks, rows)
    for _ in range(3 - len(weights)):
        operands += operands[:8]
        ends.append(programs)
    operands += (ends[0], ends[1])
    kernel = _dequantize[(programs,)]

    def fill(out: Tensor) -> None:
        kernel(
            *operands, out, out.shape[1] // 64, out.stride(0) // 2,
            ORDERED=ordered, BLOCKS=_BLOCKS, num_warps=_WARPS,
        )  # fmt: skip

    return fill


@triton.jit
def _dequantize(  # type: ignore[no-untyped-def]
    packed, scales, zeros, groups, count, size, blocks, rows,
    packed_1, scales_1, zeros_1, groups_1, count_1, size_1, blocks_1, rows_1,
    packed_2, scales_2, zeros_2, groups_2, count_2, size_2, blocks_2, rows_2,
    end, end_1, out, row_blocks, stride,
    ORDERED: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    above = 0
    if program >= end_1:
        packed, scales, zeros, groups = packed_2, scales_2, zeros_2, groups_2
        count, size, blocks = count_2, size_2, blocks_2
        above = rows + rows_1
        program -= end_1
    elif program >= end:
        packed, scales, zeros, groups = packed_1, scales_1, zeros_1, groups_1
        count, size, blocks = count_1, size_1, blocks_1
        above = rows
        program -= end
    block = program * BLOCKS + tl.arange(0, BLOCKS)
    inside = (block < blocks)[:, None]
    place = block.to(tl.int64)
    row = (place // row_blocks)[:, None]
    pair = tl.arange(0, 32)[None, :]
    column = ((place % row_blocks) * 64)[:, None] + 2 * pair
    byte = tl.load(packed + place[:, None] * 32 + pair, mask=inside, other=0).to(tl.int32)
    if ORDERED:  # a group has an even number of inputs, so both of a byte lie in one
        first = row * count + column // size
        other = first
    else:
        first = row * count + tl.load(groups + column, mask=inside, other=0)
        other = row * count + tl.load(groups + column + 1, mask=inside, other=0)
    low = (byte & 15).to(tl.float32) - tl.load(zeros + first, mask=inside, other=0).to(tl.float32)
    low = low * tl.load(scales + first, mask=inside, other=0).to(tl.float32)
    high = (byte >> 4).to(tl.float32) - tl.load(zeros + other, mask=inside, other=0).to(tl.float32)
    high = high * tl.load(scales + other, mask=inside, other=0).to(tl.float32)
    # the first of two values lies in the low half of a 32-bit word
    word = low.to(out.dtype.element_ty).to(tl.uint16, bitcast=True).to(tl.uint32)
    word |= high.to(out.dtype.element_ty).to(tl.uint16, bitcast=True).to(tl.uint32) << 16
    words = out.to(tl.pointer_type(tl.uint32), bitcast=True)
    start = (row + above) * stride + (place % row_blocks)[:, None] * 32
    tl.store(words + start + pair, word, mask=inside)
