# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""Causal attention within packed examples and its backward, for the lengths of questions: a few hundred tokens.

Dao, 2023, https://arxiv.org/abs/2307.08691. Beside torch's flash attention: blocks of 64 rows, which waste less of a
short example; the gradients of keys and values are summed over the query heads that share them inside the kernel;
and no atomic additions, so that equal inputs give equal bits.

Shapes: T tokens, H query heads, K key heads, d a power of two. Rows and heads may have a stride.
"""

from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor


class Tiles(NamedTuple):
    """Rows and columns of a kernel's blocks of scores, its warps, and the stages of its pipeline."""

    rows: int
    columns: int
    warps: int
    stages: int


#: the fastest of those tried on an H200, at 2,048 and 8,192 tokens
FORWARD = Tiles(64, 64, 4, 3)
QUERIES = Tiles(64, 32, 4, 3)
KEYS = Tiles(32, 64, 4, 3)
_LOG2_E = 1.4426950408889634


def attend(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, out: Tensor, tiles: Tiles = FORWARD
) -> Tensor:
    """Fills `out` [T, H, d] from q [T, H, d], k and v [T, K, d]; returns log2 Σ exp of the scaled scores, [H, T].

    Args:
        bounds: [n + 1] int32: cumulative token counts of the examples; empty ones may be among them.
        longest: no example has more tokens.
    """
    tokens, heads, width = q.shape
    sums = torch.empty(heads, tokens, device=q.device, dtype=torch.float32)
    _attend[(triton.cdiv(longest, tiles.rows), heads, len(bounds) - 1)](
        q, k, v, out, sums, bounds,
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1), out.stride(0), out.stride(1),
        tokens, width**-0.5 * _LOG2_E,
        GROUP=heads // k.shape[1], WIDTH=width, ROWS=tiles.rows, COLUMNS=tiles.columns,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return sums


def attend_backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, bounds: Tensor, longest: int,
    d_q: Tensor, d_k: Tensor, d_v: Tensor, turns: tuple[Tensor, Tensor] | None = None,
    queries: Tiles = QUERIES, keys: Tiles = KEYS,
) -> None:  # fmt: skip
    """Fills the gradients of q, k and v from the gradient of `attend`'s output.

    With `turns`, cos and sin [T, d / 2] float32, those of q and k before their rotation.
    """
    tokens, heads, width = q.shape
    group = heads // k.shape[1]
    dots = torch.empty_like(sums)
    scale = width**-0.5
    strides = (
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1),
        gradient.stride(0), gradient.stride(1),
    )  # fmt: skip
    cos, sin = (sums, sums) if turns is None else turns
    _queries[(triton.cdiv(longest, queries.rows), heads, len(bounds) - 1)](
        q, k, v, gradient, out, sums, dots, d_q, bounds, cos, sin, *strides,
        out.stride(0), out.stride(1), d_q.stride(0), d_q.stride(1), tokens, scale, scale * _LOG2_E,
        TURN=turns is not None, GROUP=group, WIDTH=width, ROWS=queries.rows, COLUMNS=queries.columns,
        num_warps=queries.warps, num_stages=queries.stages,
    )  # fmt: skip
    _keys[(triton.cdiv(longest, keys.columns), k.shape[1], len(bounds) - 1)](
        q, k, v, gradient, sums, dots, d_k, d_v, bounds, cos, sin, *strides,
        d_k.stride(0), d_k.stride(1), d_v.stride(0), d_v.stride(1), tokens, scale, scale * _LOG2_E,
        TURN=turns is not None, GROUP=group, WIDTH=width, ROWS=keys.rows, COLUMNS=keys.columns,
        num_warps=keys.warps, num_stages=keys.stages,
    )  # fmt: skip


@triton.jit(do_not_specialize=["tokens"])
def _attend(  # type: ignore[no-untyped-def]
    q, k, v, out, sums, bounds,
    q_row, q_head, k_row, k_head, v_row, v_head, out_row, out_head, tokens, scale,
    GROUP: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    start = tl.load(bounds + tl.program_id(2))
    length = tl.load(bounds + tl.program_id(2) + 1) - start
    # the last blocks have the most columns, and begin first
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS
    if first >= length:
        return
    row = first + tl.arange(0, ROWS)
    place = tl.arange(0, WIDTH)
    inside = row < length
    at = (start + row).to(tl.int64)[:, None]
    mine = tl.load(q + at * q_row + head * q_head + place[None, :], mask=inside[:, None], other=0.0)
    k += start.to(tl.int64) * k_row + head // GROUP * k_head
    v += start.to(tl.int64) * v_row + head // GROUP * v_head
    top = tl.full((ROWS,), -1e30, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    result = tl.zeros((ROWS, WIDTH), tl.float32)
    for begin in range(0, first, COLUMNS):  # every column before the block's first row
        column = begin + tl.arange(0, COLUMNS)
        key = tl.load(k + column[None, :] * k_row + place[:, None])
        scores = tl.dot(mine, key) * scale
        higher = tl.maximum(top, tl.max(scores, 1))
        share = tl.exp2(scores - higher[:, None])
        before = tl.exp2(top - higher)
        total = total * before + tl.sum(share, 1)
        value = tl.load(v + column[:, None] * v_row + place[None, :])
        result = tl.dot(share.to(value.dtype), value, result * before[:, None])
        top = higher
    for begin in range(first, tl.minimum(first + ROWS, length), COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        there = column < length
        key = tl.load(k + column[None, :] * k_row + place[:, None], mask=there[None, :], other=0.0)
        scores = tl.dot(mine, key) * scale
        scores = tl.where((column[None, :] <= row[:, None]) & there[None, :], scores, -1e30)
        higher = tl.maximum(top, tl.max(scores, 1))
        share = tl.exp2(scores - higher[:, None])
        before = tl.exp2(top - higher)
        total = total * before + tl.sum(share, 1)
        value = tl.load(v + column[:, None] * v_row + place[None, :], mask=there[:, None], other=0.0)
        result = tl.dot(share.to(value.dtype), value, result * before[:, None])
        top = higher
    result = result / total[:, None]
    tl.store(
        out + at * out_row + head * out_head + place[None, :], result.to(out.dtype.element_ty),
        mask=inside[:, None],
    )  # fmt: skip
    tl.store(sums + head.to(tl.int64) * tokens + start + row, top + tl.log2(total), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def _queries(  # type: ignore[no-untyped-def]
    q, k, v, gradient, out, sums, dots, d_q, bounds, cos, sin,
    q_row, q_head, k_row, k_head, v_row, v_head, gradient_row, gradient_head, out_row, out_head, d_row, d_head,
    tokens, scale, scale_2,
    TURN: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    start = tl.load(bounds + tl.program_id(2))
    length = tl.load(bounds + tl.program_id(2) + 1) - start
    first = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS
    if first >= length:
        return
    row = first + tl.arange(0, ROWS)
    place = tl.arange(0, WIDTH)
    inside = row < length
    at = (start + row).to(tl.int64)[:, None]
    mine = tl.load(q + at * q_row + head * q_head + place[None, :], mask=inside[:, None], other=0.0)
    d_out = tl.load(
        gradient + at * gradient_row + head * gradient_head + place[None, :], mask=inside[:, None], other=0.0
    )
    output = tl.load(out + at * out_row + head * out_head + place[None, :], mask=inside[:, None], other=0.0)
    dot = tl.sum(d_out.to(tl.float32) * output.to(tl.float32), 1)
    flat = head.to(tl.int64) * tokens + start + row
    tl.store(dots + flat, dot, mask=inside)
    total = tl.load(sums + flat, mask=inside, other=0.0)
    k += start.to(tl.int64) * k_row + head // GROUP * k_head
    v += start.to(tl.int64) * v_row + head // GROUP * v_head
    result = tl.zeros((ROWS, WIDTH), tl.float32)
    for begin in range(0, first, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        key = tl.load(k + column[:, None] * k_row + place[None, :])
        value = tl.load(v + column[:, None] * v_row + place[None, :])
        share = tl.exp2(tl.dot(mine, tl.trans(key)) * scale_2 - total[:, None])
        d_scores = share * (tl.dot(d_out, tl.trans(value)) - dot[:, None])
        result = tl.dot(d_scores.to(key.dtype), key, result)
    for begin in range(first, tl.minimum(first + ROWS, length), COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        there = column < length
        key = tl.load(k + column[:, None] * k_row + place[None, :], mask=there[:, None], other=0.0)
        value = tl.load(v + column[:, None] * v_row + place[None, :], mask=there[:, None], other=0.0)
        share = tl.exp2(tl.dot(mine, tl.trans(key)) * scale_2 - total[:, None])
        share = tl.where((column[None, :] <= row[:, None]) & there[None, :], share, 0.0)
        d_scores = share * (tl.dot(d_out, tl.trans(value)) - dot[:, None])
        result = tl.dot(d_scores.to(key.dtype), key, result)
    _store(result * scale, d_q + head * d_head, d_row, cos, sin, at, inside, TURN, ROWS, WIDTH)


@triton.jit(do_not_specialize=["tokens"])
def _keys(  # type: ignore[no-untyped-def]
    q, k, v, gradient, sums, dots, d_k, d_v, bounds, cos, sin,
    q_row, q_head, k_row, k_head, v_row, v_head, gradient_row, gradient_head,
    d_k_row, d_k_head, d_v_row, d_v_head, tokens, scale, scale_2,
    TURN: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    shared = tl.program_id(1)
    start = tl.load(bounds + tl.program_id(2))
    length = tl.load(bounds + tl.program_id(2) + 1) - start
    # the first columns are seen by the most rows, and begin first
    first = tl.program_id(0) * COLUMNS
    if first >= length:
        return
    column = first + tl.arange(0, COLUMNS)
    place = tl.arange(0, WIDTH)
    there = column < length
    at = (start + column).to(tl.int64)[:, None]
    key = tl.load(k + at * k_row + shared * k_head + place[None, :], mask=there[:, None], other=0.0)
    value = tl.load(v + at * v_row + shared * v_head + place[None, :], mask=there[:, None], other=0.0)
    of_key = tl.zeros((COLUMNS, WIDTH), tl.float32)
    of_value = tl.zeros((COLUMNS, WIDTH), tl.float32)
    # blocks of rows that see all of these columns and lie within the example need no mask
    begin, end = first // ROWS, tl.cdiv(length, ROWS)
    whole = tl.minimum(tl.cdiv(first + COLUMNS, ROWS), end)
    part = tl.maximum(length // ROWS, whole)
    # the heads of a group in turn, the blocks of rows inside
    for number in range(0, GROUP * (part - whole)):
        head = shared * GROUP + number // (part - whole)
        row = (whole + number % (part - whole)) * ROWS + tl.arange(0, ROWS)
        here = (start + row).to(tl.int64)[:, None]
        query = tl.load(q + here * q_row + head * q_head + place[None, :])
        d_out = tl.load(gradient + here * gradient_row + head * gradient_head + place[None, :])
        flat = head.to(tl.int64) * tokens + start + row
        total = tl.load(sums + flat)
        dot = tl.load(dots + flat)
        of_key, of_value = _add_rows(
            key, value, query, d_out, total, dot, scale_2, of_key, of_value, there, False
        )
    others = whole - begin + end - part
    for number in range(0, GROUP * others):
        head = shared * GROUP + number // others
        block = begin + number % others
        row = tl.where(block < whole, block, block - whole + part) * ROWS + tl.arange(0, ROWS)
        inside = row < length
        here = (start + row).to(tl.int64)[:, None]
        query = tl.load(q + here * q_row + head * q_head + place[None, :], mask=inside[:, None], other=0.0)
        outs = gradient + here * gradient_row + head * gradient_head + place[None, :]
        d_out = tl.load(outs, mask=inside[:, None], other=0.0)
        flat = head.to(tl.int64) * tokens + start + row
        total = tl.load(sums + flat, mask=inside, other=0.0)
        dot = tl.load(dots + flat, mask=inside, other=0.0)
        seen = (column[:, None] <= row[None, :]) & inside[None, :]
        of_key, of_value = _add_rows(
            key, value, query, d_out, total, dot, scale_2, of_key, of_value, seen, True
        )
    _store(of_key * scale, d_k + shared * d_k_head, d_k_row, cos, sin, at, there, TURN, COLUMNS, WIDTH)
    tl.store(
        d_v + at * d_v_row + shared * d_v_head + place[None, :], of_value.to(d_v.dtype.element_ty),
        mask=there[:, None],
    )  # fmt: skip


@triton.jit
def _add_rows(  # type: ignore[no-untyped-def]
    key, value, query, d_out, total, dot, scale, of_key, of_value, seen, MASKED: tl.constexpr
):
    """The gradients of a block of keys and values, with a block of queries more."""
    share = tl.exp2(tl.dot(key, tl.trans(query)) * scale - total[None, :])
    if MASKED:
        share = tl.where(seen, share, 0.0)
    of_value = tl.dot(share.to(d_out.dtype), d_out, of_value)
    d_scores = share * (tl.dot(value, tl.trans(d_out)) - dot[None, :])
    return tl.dot(d_scores.to(query.dtype), query, of_key), of_value


@triton.jit
def _store(  # type: ignore[no-untyped-def]
    values, out, out_row, cos, sin, at, inside, TURN: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    """Stores rows at `at` [ROWS, 1]; with TURN, rotated back: `elementwise.rotate_backward`."""
    if TURN:
        half: tl.constexpr = WIDTH // 2
        first, second = tl.split(tl.permute(tl.reshape(values, (ROWS, 2, half)), (0, 2, 1)))
        column = tl.arange(0, half)[None, :]
        c = tl.load(cos + at * half + column, mask=inside[:, None], other=0.0)
        s = tl.load(sin + at * half + column, mask=inside[:, None], other=0.0)
        start = out + at * out_row + column
        tl.store(start, (first * c + second * s).to(out.dtype.element_ty), mask=inside[:, None])
        tl.store(start + half, (second * c - first * s).to(out.dtype.element_ty), mask=inside[:, None])
    else:
        place = tl.arange(0, WIDTH)[None, :]
        tl.store(out + at * out_row + place, values.to(out.dtype.element_ty), mask=inside[:, None])
