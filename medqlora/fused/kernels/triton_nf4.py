# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""Dequantization of NF4, with or without double quantization, to half precision: one launch per weight group.

bitsandbytes needs three launches per weight (scales, their offset, weight) and contiguous output.
Dettmers et al., 2023, https://arxiv.org/abs/2305.14314.
"""

from collections.abc import Callable, Sequence

import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from medqlora.fused.kernels.dequantize import QuantState

#: blocks of 64 values per program, and its warps: the fastest on an H200
_BLOCKS, _WARPS = 64, 2
#: values of the matrix beside the weights that a program copies
_COPIED = 2048


def prepare(
    weights: Sequence[tuple[Tensor, QuantState]],
) -> Callable[[Tensor, tuple[Tensor, Tensor] | None], None]:
    """A function that fills `out` [rows, columns] of a 16-bit type with up to three weights, stacked by rows.

    It also copies the second of two matrices of that type to the first.

    The number of columns is a multiple of 64, and the row stride is even.

    Args:
        weights: packed bytes and state of each weight; double quantization in all of them or in none.
    """
    state = weights[0][1]
    nested = state.nested
    operands: list[Tensor | int] = []
    ends: list[int] = []
    programs = 0
    for packed, each in weights:
        blocks = each.shape.numel() // 64
        programs += -(-blocks // _BLOCKS)
        ends.append(programs)
        operands += (packed, each.absmax)
        operands += (each.state2.absmax, each.offset) if nested else (each.absmax, each.absmax)
        operands += (blocks, each.shape[0])
    for _ in range(3 - len(weights)):
        operands += operands[:6]
        ends.append(programs)
    operands += (ends[0], ends[1], state.code, state.state2.code if nested else state.code)
    second_block = state.state2.blocksize if nested else 1

    def fill(out: Tensor, beside: tuple[Tensor, Tensor] | None) -> None:
        target, source = (out, out) if beside is None else beside
        copied = 0 if beside is None else target.numel()
        _dequantize[(programs + triton.cdiv(copied, _COPIED),)](
            *operands, out, out.shape[1] // 64, out.stride(0) // 2, programs,
            target, source, copied, target.shape[1], target.stride(0), source.stride(0),
            NESTED=nested, SECOND_BLOCK=second_block, BLOCKS=_BLOCKS, COPIED=_COPIED, num_warps=_WARPS,
        )  # fmt: skip

    return fill


@triton.jit
def _dequantize(  # type: ignore[no-untyped-def]
    packed, absmax, second, offset, blocks, rows,
    packed_1, absmax_1, second_1, offset_1, blocks_1, rows_1,
    packed_2, absmax_2, second_2, offset_2, blocks_2, rows_2,
    end, end_1, code, second_code, out, row_blocks, stride, programs,
    target, source, copied, columns, target_row, source_row,
    NESTED: tl.constexpr, SECOND_BLOCK: tl.constexpr, BLOCKS: tl.constexpr, COPIED: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    if program >= programs:
        place = (program - programs) * COPIED + tl.arange(0, COPIED)
        line, column = place // columns, place % columns
        value = tl.load(source + line * source_row + column, mask=place < copied)
        tl.store(target + line * target_row + column, value, mask=place < copied)
        return
    row = 0
    if program >= end_1:
        packed, absmax, second, offset, blocks = packed_2, absmax_2, second_2, offset_2, blocks_2
        row = rows + rows_1
        program -= end_1
    elif program >= end:
        packed, absmax, second, offset, blocks = packed_1, absmax_1, second_1, offset_1, blocks_1
        row = rows
        program -= end
    # four packed bytes at a time: a thread then writes 16 bytes, and neighbours write beside each other
    place = program * BLOCKS * 8 + tl.arange(0, BLOCKS * 8)
    block = place // 8
    inside = block < blocks
    scale = tl.load(absmax + block, mask=inside, other=0)
    if NESTED:
        value = tl.load(second_code + scale.to(tl.int32), mask=inside, other=0.0)
        outer = tl.load(second + block // SECOND_BLOCK, mask=inside, other=0.0)
        scale = value * outer + tl.load(offset)
    four = tl.load(packed.to(tl.pointer_type(tl.int32), bitcast=True) + place, mask=inside, other=0)
    words = tl.join(
        tl.join(_word(four, scale, code, out, 0), _word(four, scale, code, out, 16)),
        tl.join(_word(four, scale, code, out, 8), _word(four, scale, code, out, 24)),
    )
    place = program * BLOCKS * 32 + tl.arange(0, BLOCKS * 32)
    line = place // (row_blocks * 32)
    start = (line + row).to(tl.int64) * stride + place % (row_blocks * 32)
    target = out.to(tl.pointer_type(tl.uint32), bitcast=True)
    tl.store(target + start, tl.reshape(words, (BLOCKS * 32,)), mask=place // 32 < blocks)


@triton.jit
def _word(four, scale, code, out, SHIFT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Two values of a byte: the first lies in its high half, and in the low half of a 32-bit word."""
    byte = (four >> SHIFT) & 255
    first = (tl.load(code + (byte >> 4)) * scale).to(out.dtype.element_ty)
    other = (tl.load(code + (byte & 15)) * scale).to(out.dtype.element_ty)
    word = first.to(tl.uint16, bitcast=True).to(tl.uint32)
    return word | other.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
