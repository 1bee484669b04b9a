# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""SwiGLU and LoRA's small products beside it, in one pass over the MLP's activations.

The backward has gate, up and their gradients in registers. There it also multiplies them with LoRA's operands: the
sums over rows for the gradients of gate's and up's B and of down's A. Products of their own would read each of these
large matrices from memory once more.

Shapes: T tokens, F the MLP's width, r the rank of each of the three adapters.
"""

from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor


class Tiles(NamedTuple):
    """Rows and columns of a kernel's blocks, its warps and stages, and the parts that rows are split into."""

    rows: int
    columns: int
    warps: int
    stages: int
    splits: int


#: the fastest of those tried on an H200, for 1,792 to 7,936 tokens
BACKWARD = Tiles(32, 64, 4, 1, 5)
#: columns per program of the kernel that adds the sums of all parts
_ADDED = 128


def backward(
    gate_up: Tensor,
    gradient: Tensor,
    low: Tensor,
    d_low: Tensor,
    gradients: tuple[Tensor, Tensor, Tensor],
    factor: float,
    tiles: Tiles | None = None,
) -> None:
    """Overwrites gate|up with its gradient, and adds to the gradients of LoRA.

    Args:
        gate_up: [T, 2 F].
        gradient: [T, F], of silu(gate) · up.
        low: [T, 2 r]: gate|up's input times Aᵀ.
        d_low: [T, r]: down's gradient times its B.
        gradients: float32 and contiguous: of gate's B and up's B [F, r], and of down's A [r, F].
        factor: of the last one.
    """
    rows, columns = gradient.shape
    rank = low.shape[1] // 2
    if not rows:
        return
    tiles = tiles or BACKWARD
    sums = torch.empty(tiles.splits, 3, rank, columns, device=gradient.device, dtype=torch.float32)
    _swiglu_backward_sums[(columns // tiles.columns, tiles.splits)](
        gate_up, gradient, low, d_low, sums,
        gate_up.stride(0), gradient.stride(0), low.stride(0), d_low.stride(0), rows, columns,
        RANK=rank, ROWS=tiles.rows, COLUMNS=tiles.columns, num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    _swiglu_add_sums[(triton.cdiv(columns, _ADDED), 3)](
        sums, *gradients, columns, factor, SPLITS=tiles.splits, RANK=rank, COLUMNS=_ADDED, num_warps=4
    )


@triton.jit(do_not_specialize=["rows"])
def _swiglu_backward_sums(  # type: ignore[no-untyped-def]
    gate_up, gradient, low, d_low, sums, gate_up_row, gradient_row, low_row, d_low_row, rows, columns,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    rank = tl.arange(0, RANK)
    kind = gate_up.dtype.element_ty
    of_gate = tl.zeros((RANK, COLUMNS), tl.float32)
    of_up = tl.zeros((RANK, COLUMNS), tl.float32)
    of_down = tl.zeros((RANK, COLUMNS), tl.float32)
    # the parts' blocks of rows take turns, so that all parts end at the same time
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    step = tl.num_programs(1) * ROWS
    there = (row < rows)[:, None]
    at = row.to(tl.int64)[:, None]
    place = gate_up + at * gate_up_row + column[None, :]
    other = gradient + at * gradient_row + column[None, :]
    lows = low + at * low_row + rank[None, :]
    belows = d_low + at * d_low_row + rank[None, :]
    # everything is loaded one block ahead, also the small operands: waiting for these took a third of the time
    next_gate, next_up, next_d, next_low_gate, next_low_up, next_below = _load(
        place, other, lows, belows, there, columns, RANK
    )
    for _ in range(tl.program_id(1), tl.cdiv(rows, ROWS), tl.num_programs(1)):
        gate, up, d = next_gate.to(tl.float32), next_up.to(tl.float32), next_d.to(tl.float32)
        low_gate, low_up, below = next_low_gate, next_low_up, next_below
        to, inside = place, there
        row += step
        there = (row < rows)[:, None]
        place += step.to(tl.int64) * gate_up_row
        other += step.to(tl.int64) * gradient_row
        lows += step.to(tl.int64) * low_row
        belows += step.to(tl.int64) * d_low_row
        next_gate, next_up, next_d, next_low_gate, next_low_up, next_below = _load(
            place, other, lows, belows, there, columns, RANK
        )
        sigmoid = tl.sigmoid(gate)
        silu = gate * sigmoid
        d_gate = (d * up * (sigmoid + silu * (1 - sigmoid))).to(kind)
        d_up = (d * silu).to(kind)
        product = (silu * up).to(kind)
        tl.store(to, d_gate, mask=inside)
        tl.store(to + columns, d_up, mask=inside)
        of_gate = tl.dot(tl.trans(low_gate), d_gate, of_gate)
        of_up = tl.dot(tl.trans(low_up), d_up, of_up)
        of_down = tl.dot(tl.trans(below), product, of_down)
    own = sums + (tl.program_id(1) * 3 * RANK + rank[:, None]) * columns + column[None, :]
    tl.store(own, of_gate)
    tl.store(own + RANK * columns, of_up)
    tl.store(own + 2 * RANK * columns, of_down)


@triton.jit
def _load(place, other, lows, belows, there, columns, RANK: tl.constexpr):  # type: ignore[no-untyped-def]
    """A block's gate, up and their product's gradient, and LoRA's operands of gate, up and down."""
    gate = tl.load(place, mask=there, other=0.0)
    up = tl.load(place + columns, mask=there, other=0.0)
    d = tl.load(other, mask=there, other=0.0)
    low_gate = tl.load(lows, mask=there, other=0.0)
    low_up = tl.load(lows + RANK, mask=there, other=0.0)
    below = tl.load(belows, mask=there, other=0.0)
    return gate, up, d, low_gate, low_up, below


@triton.jit
def _swiglu_add_sums(  # type: ignore[no-untyped-def]
    sums, of_gate, of_up, of_down, columns, factor,
    SPLITS: tl.constexpr, RANK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    which = tl.program_id(1)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = column < columns
    rank = tl.arange(0, RANK)[:, None]
    start = sums + (which * RANK + rank) * columns + column
    total = tl.zeros((RANK, COLUMNS), tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(start + split * 3 * RANK * columns, mask=inside, other=0.0)
    if which == 2:
        place = of_down + rank * columns + column
        tl.store(place, tl.load(place, mask=inside, other=0.0) + total * factor, mask=inside)
    else:
        if which == 1:
            of_gate = of_up
        line = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[:, None]
        turned = of_gate + line * RANK + tl.arange(0, RANK)[None, :]
        there = line < columns
        tl.store(turned, tl.load(turned, mask=there, other=0.0) + tl.trans(total), mask=there)
