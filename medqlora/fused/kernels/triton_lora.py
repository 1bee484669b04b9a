# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""LoRA's gradients: tall products whose large operand is read once, added to float32 gradients in place.

cuBLAS splits their sums over the tokens into many parts, and adds those in a second launch.
"""

from collections.abc import Sequence

import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

#: columns of the large operand per program, tokens per iteration, warps, stages
_COLUMNS, _TOKENS, _WARPS, _STAGES = 32, 128, 4, 4


def add_shared(
    large: Tensor,
    small: Tensor,
    gradients: Sequence[Tensor],
    factor: float,
    tiles: tuple[int, int, int, int] | None = None,
) -> None:
    """Adds factor · smallᵀ large to gradients of A.

    Args:
        large: [T, N], the input of all adapters.
        small: [T, n r], the gradient of their low-rank products.
        gradients: [r, N] of each of up to three adapters, contiguous.
        factor: LoRA's scaling.
        tiles: as the defaults of this file.
    """
    columns, tokens, warps, stages = tiles or (_COLUMNS, _TOKENS, _WARPS, _STAGES)
    rank = gradients[0].shape[0]
    padded = (list(gradients) + [gradients[0]] * 2)[:3]
    _add[(triton.cdiv(large.shape[1], columns),)](
        large, small, *padded, 0, 0, large.shape[0], large.shape[1], large.stride(0), small.stride(0), factor, rank,
        SHARED=True, NUMBER=len(gradients), RANKS=max(16, triton.next_power_of_2(rank)), COLUMNS=columns, TOKENS=tokens,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip


def add_own(
    large: Tensor,
    small: Tensor,
    gradients: Sequence[Tensor],
    starts: Sequence[int],
    tiles: tuple[int, int, int, int] | None = None,
) -> None:
    """Adds largeᵀ small to gradients of B.

    Args:
        large: [T, N], the outputs' gradient.
        small: [T, n r], the low-rank products.
        gradients: [outputs, r] of each of up to three adapters, contiguous.
        starts: the first column of each adapter's outputs, multiples of 64; together they cover N.
        tiles: as the defaults of this file.
    """
    columns, tokens, warps, stages = tiles or (_COLUMNS, _TOKENS, _WARPS, _STAGES)
    rank = gradients[0].shape[1]
    number = len(gradients)
    padded = (list(gradients) + [gradients[0]] * 2)[:3]
    last = large.shape[1]
    bounds = [*starts[1:], last, last][:2]
    _add[(triton.cdiv(last, columns),)](
        large, small, *padded, *bounds, large.shape[0], last, large.stride(0), small.stride(0), 1.0, rank,
        SHARED=False, NUMBER=number, RANKS=max(16, triton.next_power_of_2(rank)), COLUMNS=columns, TOKENS=tokens,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip


@triton.jit(do_not_specialize=["tokens"])
def _add(  # type: ignore[no-untyped-def]
    large, small, gradient, gradient_1, gradient_2, start_1, start_2, tokens, columns, large_row, small_row,
    factor, rank,
    SHARED: tl.constexpr, NUMBER: tl.constexpr, RANKS: tl.constexpr, COLUMNS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * COLUMNS
    column = first + tl.arange(0, COLUMNS)
    there = column < columns
    ranks = tl.arange(0, RANKS)
    start = 0
    if not SHARED:  # the adapter whose outputs these are
        if first >= start_2:
            gradient = gradient_2
            start = start_2
            small += 2 * rank
        elif first >= start_1:
            gradient = gradient_1
            start = start_1
            small += rank
    total = tl.zeros((COLUMNS, RANKS), tl.float32)
    total_1 = tl.zeros((COLUMNS, RANKS), tl.float32)
    total_2 = tl.zeros((COLUMNS, RANKS), tl.float32)
    for begin in range(0, tokens, TOKENS):
        row = begin + tl.arange(0, TOKENS)
        inside = (row < tokens)[:, None]
        at = row.to(tl.int64)[:, None]
        wide = tl.trans(
            tl.load(large + at * large_row + column[None, :], mask=inside & there[None, :], other=0.0)
        )
        low = small + at * small_row + ranks[None, :]
        mine = inside & (ranks < rank)[None, :]
        total = tl.dot(wide, tl.load(low, mask=mine, other=0.0), total)
        if SHARED and NUMBER > 1:
            total_1 = tl.dot(wide, tl.load(low + rank, mask=mine, other=0.0), total_1)
        if SHARED and NUMBER > 2:
            total_2 = tl.dot(wide, tl.load(low + 2 * rank, mask=mine, other=0.0), total_2)
    held = there[:, None] & (ranks < rank)[None, :]
    if SHARED:
        place = ranks[None, :] * columns + column[:, None]
        tl.store(
            gradient + place, tl.load(gradient + place, mask=held, other=0.0) + total * factor, mask=held
        )
        if NUMBER > 1:
            before = tl.load(gradient_1 + place, mask=held, other=0.0)
            tl.store(gradient_1 + place, before + total_1 * factor, mask=held)
        if NUMBER > 2:
            before = tl.load(gradient_2 + place, mask=held, other=0.0)
            tl.store(gradient_2 + place, before + total_2 * factor, mask=held)
    else:
        place = (column - start)[:, None] * rank + ranks[None, :]
        tl.store(
            gradient + place, tl.load(gradient + place, mask=held, other=0.0) + total * factor, mask=held
        )
