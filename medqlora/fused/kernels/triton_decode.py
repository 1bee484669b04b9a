# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""What lies between the matrix products of a decoding pass: one token a row, one launch per function.

The products come as the float32 sums of `triton_nf4_product`, [SPLITS, rows, outputs + RANKS]: a kernel adds them,
LoRA's second product and the bias. A norm's 1 / rms commutes with the product behind it: `residual` leaves x · weight
and the sums of its squares, and the kernel behind the product multiplies.
"""

import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]

from medqlora.fused.kernels.triton_nf4_row import LARGEST

#: columns that a program of `residual` and `gated` computes
COLUMNS = 256
#: keys that a program of `attend` reads
KEYS = 128
_COLUMNS = tl.constexpr(COLUMNS)
_LARGEST = tl.constexpr(float(LARGEST))


@triton.jit
def leave(  # type: ignore[no-untyped-def]
    out, limbs, scales, row, first, value, columns, ORDER: tl.constexpr, WIDTH: tl.constexpr
):
    """Writes WIDTH columns of a product's operand, from the column `first` on.

    ORDER 0 is plain; 1 the nibble order of `triton_nf4_product`; 2 is plain, and beside it the integers of
    `triton_nf4_row`: for each block of 64 values a scale, and for each eight values four words of four bytes, the high
    bytes of the first and of the last four in the order of their nibbles, and the low ones.

    Args:
        out: [rows, columns].
        limbs: [rows, 4, columns / 8] int32, as int8.
        scales: [rows, columns / 64] float32.
        value: [WIDTH] float32; columns is a multiple of 64, and with ORDER 2 WIDTH too.
    """
    n = first + tl.arange(0, WIDTH)
    inside = n < columns
    place = n
    if ORDER == 1:
        place = (n % 8) * (columns // 8) + n // 8
    tl.store(out + row * columns + place, value.to(out.dtype.element_ty), mask=inside)
    if ORDER == 2:
        block = first // 64 + tl.arange(0, WIDTH // 64)
        values = tl.reshape(value, (WIDTH // 64, 64))
        top = tl.max(tl.abs(values), 1)
        scale = tl.where(top > 0, top / _LARGEST, 1.0)
        whole = tl.floor(values / scale[:, None] + 0.5)
        high = tl.floor((whole + 128.0) / 256.0)
        low = whole - 256.0 * high
        tl.store(scales + row * (columns // 64) + block, scale, mask=block * 64 < columns)
        number = block[:, None] * 64 + tl.arange(0, 64)[None, :]
        member = (number % 8) ^ 1
        to = limbs + row * (columns * 2) + (member // 4) * (columns // 2) + (number // 8) * 4 + member % 4
        tl.store(to, high.to(tl.int8), mask=number < columns)
        tl.store(to + columns, low.to(tl.int8), mask=number < columns)


@triton.jit
def _sums(  # type: ignore[no-untyped-def]
    product, low, up, owners, adapter, row, n, inside, rows, width, low_width, up_row,
    SPLITS: tl.constexpr, LOW_SPLITS: tl.constexpr, RANKS: tl.constexpr, ROUTED: tl.constexpr,
):  # fmt: skip
    """x Wᵀ + (x Aᵀ) Bᵀ of one row at the outputs n. ROUTED: ranks of other adapters than the row's don't count.

    Args:
        product: [SPLITS, rows, width] float32, x Wᵀ in its first columns.
        low: [LOW_SPLITS, rows, low_width] float32, x Aᵀ in its first columns.
        up: B [outputs, RANKS], rows at a distance of up_row.
        owners: [RANKS] int64, the adapter of each rank.
    """
    start = product + row * width
    total = tl.load(start + n, mask=inside, other=0.0)
    for split in tl.static_range(1, SPLITS):
        total += tl.load(start + split * rows * width + n, mask=inside, other=0.0)
    for first in tl.static_range(0, RANKS, 16):
        rank = first + tl.arange(0, 16)
        here = low + row * low_width + rank
        compressed = tl.load(here, mask=rank < RANKS, other=0.0)
        for split in tl.static_range(1, LOW_SPLITS):
            compressed += tl.load(here + split * rows * low_width, mask=rank < RANKS, other=0.0)
        if ROUTED:
            compressed = tl.where(
                tl.load(owners + rank, mask=rank < RANKS, other=-2) == adapter, compressed, 0.0
            )
        b = tl.load(
            up + n[:, None] * up_row + rank[None, :],
            mask=inside[:, None] & (rank < RANKS)[None, :],
            other=0.0,
        )
        total += tl.sum(b.to(tl.float32) * compressed[None, :], 1)
    return total


@triton.jit
def _inverse(squares, row, columns, eps, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """1 / rms of a row, from the sums of squares that `residual` left: [rows, PARTS], of `columns` columns."""
    part = tl.arange(0, PARTS)
    total = tl.sum(tl.load(squares + row * PARTS + part, mask=part * _COLUMNS < columns, other=0.0), 0)
    return tl.rsqrt(total / columns + eps)


@triton.jit(do_not_specialize=["rows"])
def residual(  # type: ignore[no-untyped-def]
    x, product, low, up, owners, adapters, bias, weight, out, limbs, scales, squares, rows, width, low_width, up_row,
    columns,
    SPLITS: tl.constexpr, LOW_SPLITS: tl.constexpr, RANKS: tl.constexpr, OWN: tl.constexpr, ROUTED: tl.constexpr,
    BIAS: tl.constexpr, ORDER: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Adds a product to x [rows, columns] in place; `out` is x · weight, the operand of the product behind a norm."""
    row = tl.program_id(0)
    part = tl.program_id(1)
    n = part * _COLUMNS + tl.arange(0, _COLUMNS)
    inside = n < columns
    here = x + row * columns + n
    value = tl.load(here, mask=inside, other=0.0).to(tl.float32)
    if SPLITS > 0:
        adapter = 0
        if ROUTED:
            adapter = tl.load(adapters + row)
        value += _sums(
            product, low, up, owners, adapter, row, n, inside, rows, width, low_width, up_row,
            SPLITS, LOW_SPLITS, RANKS, ROUTED,
        )  # fmt: skip
        if BIAS:
            value += tl.load(bias + n, mask=inside, other=0.0).to(tl.float32)
        value = value.to(x.dtype.element_ty).to(tl.float32)
        tl.store(here, value.to(x.dtype.element_ty), mask=inside)
    scale = tl.load(weight + n, mask=inside, other=0.0).to(tl.float32)
    leave(out, limbs, scales, row, part * _COLUMNS, value * scale, columns, ORDER, _COLUMNS)
    tl.store(squares + row * PARTS + part, tl.sum(value * value, 0))


@triton.jit(do_not_specialize=["rows"])
def gated(  # type: ignore[no-untyped-def]
    product, low, up, owners, adapters, bias, squares, out, limbs, scales, rows, width, low_width, up_row,
    columns, hidden, eps,
    SPLITS: tl.constexpr, LOW_SPLITS: tl.constexpr, RANKS: tl.constexpr, OWN: tl.constexpr, ROUTED: tl.constexpr,
    BIAS: tl.constexpr, ORDER: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """silu(gate) · up, [rows, columns], from the product gate|up of a normed row of `hidden` columns."""
    row = tl.program_id(0)
    n = tl.program_id(1) * _COLUMNS + tl.arange(0, _COLUMNS)
    inside = n < columns
    adapter = 0
    if ROUTED:
        adapter = tl.load(adapters + row)
    inverse = _inverse(squares, row, hidden, eps, PARTS)
    gate = inverse * _sums(
        product, low, up, owners, adapter, row, n, inside, rows, width, low_width, up_row,
        SPLITS, LOW_SPLITS, RANKS, ROUTED,
    )  # fmt: skip
    second = RANKS * OWN
    other = inverse * _sums(
        product, low + second, up + second, owners, adapter, row, n + columns, inside, rows, width, low_width, up_row,
        SPLITS, LOW_SPLITS, RANKS, ROUTED,
    )  # fmt: skip
    if BIAS:
        gate += tl.load(bias + n, mask=inside, other=0.0).to(tl.float32)
        other += tl.load(bias + columns + n, mask=inside, other=0.0).to(tl.float32)
    value = tl.where(inside, gate * tl.sigmoid(gate) * other, 0.0)
    leave(out, limbs, scales, row, tl.program_id(1) * _COLUMNS, value, columns, ORDER, _COLUMNS)


@triton.jit
def _turned(  # type: ignore[no-untyped-def]
    a, b, row, head, cos, sin, q_norm, k_norm, head_eps, queries, NORM: tl.constexpr, HALF: tl.constexpr
):
    """The halves of a query or key head, normed and rotated."""
    column = tl.arange(0, HALF)
    if NORM:
        scale = tl.rsqrt(tl.sum(a * a + b * b, 0) / (2 * HALF) + head_eps)
        norm = q_norm
        if head >= queries:
            norm = k_norm
        a *= scale * tl.load(norm + column).to(tl.float32)
        b *= scale * tl.load(norm + HALF + column).to(tl.float32)
    c = tl.load(cos + row * HALF + column)
    s = tl.load(sin + row * HALF + column)
    return a * c - b * s, b * c + a * s


@triton.jit(do_not_specialize=["rows", "first", "columns"])
def heads(  # type: ignore[no-untyped-def]
    product, low, up, owners, adapters, bias, squares, cos, sin, q_norm, k_norm, positions, q, keys, values, table,
    rows, width, low_width, up_row, hidden, eps, head_eps, first, queries, key_heads, columns,
    SIZE: tl.constexpr, SPLITS: tl.constexpr, LOW_SPLITS: tl.constexpr, RANKS: tl.constexpr, OWN: tl.constexpr,
    ROUTED: tl.constexpr, BIAS: tl.constexpr, NORM: tl.constexpr, HALF: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One head of q, k or v of one row: rotates q and k, and writes k and v to the cache at the row's position.

    Args:
        product: of q|k|v, or of a part of it whose first head is `first`.
        q: [rows, queries, 2 HALF].
        keys, values: [blocks, SIZE, key_heads, 2 HALF].
        table: [slots, columns] int64: the blocks of each row.
    """
    row = tl.program_id(0)
    head = tl.program_id(1) + first
    column = tl.arange(0, HALF)
    inside = column < HALF
    n = tl.program_id(1) * 2 * HALF + column
    adapter = 0
    if ROUTED:
        adapter = tl.load(adapters + row)
    # q, k or v, counted from the product's first
    projection = (head >= queries).to(tl.int32) + (head >= queries + key_heads).to(tl.int32)
    projection -= (first >= queries).to(tl.int32)
    rank = projection * RANKS * OWN
    inverse = _inverse(squares, row, hidden, eps, PARTS)
    a = inverse * _sums(
        product, low + rank, up + rank, owners, adapter, row, n, inside, rows, width, low_width, up_row,
        SPLITS, LOW_SPLITS, RANKS, ROUTED,
    )  # fmt: skip
    b = inverse * _sums(
        product, low + rank, up + rank, owners, adapter, row, n + HALF, inside, rows, width, low_width, up_row,
        SPLITS, LOW_SPLITS, RANKS, ROUTED,
    )  # fmt: skip
    if BIAS:
        a += tl.load(bias + n).to(tl.float32)
        b += tl.load(bias + HALF + n).to(tl.float32)
    position = tl.load(positions + row)
    to = q + (row * queries + head) * 2 * HALF + column
    if head < queries + key_heads:
        # the products of the packed pass are rounded before the rotation
        a = a.to(q.dtype.element_ty).to(tl.float32)
        b = b.to(q.dtype.element_ty).to(tl.float32)
        a, b = _turned(a, b, row, head, cos, sin, q_norm, k_norm, head_eps, queries, NORM, HALF)
    block = tl.load(table + row * columns + position // SIZE)
    place = (block * SIZE + position % SIZE) * key_heads
    if head >= queries + key_heads:
        to = values + (place + head - queries - key_heads) * 2 * HALF + column
    elif head >= queries:
        to = keys + (place + head - queries) * 2 * HALF + column
    tl.store(to, a.to(q.dtype.element_ty))
    tl.store(to + HALF, b.to(q.dtype.element_ty))


@triton.jit(do_not_specialize=["chunks", "window", "columns"])
def attend(  # type: ignore[no-untyped-def]
    q, keys, values, table, positions, out, tops, totals, scale, window, columns, queries, key_heads, chunks,
    SIZE: tl.constexpr, SHARED: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The attention of a row's SHARED query heads of one key head over BLOCK keys, as a part of a softmax.

    Flash-decoding: Dao et al., 2023, https://pytorch.org/blog/flash-decoding/. GROUP is SHARED rounded up to 16.

    Args:
        keys, values: [blocks, SIZE, key_heads, WIDTH].
        table: [slots, columns] int64: the blocks of each row.
        out: [rows, queries, chunks, WIDTH] float32: each part's weighted values.
        tops, totals: [rows, queries, chunks] float32: its largest logit, and the sum of its weights.
        window: tokens that a query sees, itself included; 0 for all.
    """
    row = tl.program_id(0)
    key_head = tl.program_id(1)
    chunk = tl.program_id(2)
    position = tl.load(positions + row).to(tl.int32)
    member = tl.arange(0, GROUP)
    mine = member < SHARED
    head = key_head * SHARED + member
    place = (row * queries + head) * chunks + chunk
    lowest = 0
    if window > 0:
        lowest = tl.maximum(position - window + 1, 0)
    if (chunk * BLOCK > position) | ((chunk + 1) * BLOCK <= lowest):
        tl.store(tops + place, tl.full([GROUP], float("-inf"), tl.float32), mask=mine)
        tl.store(totals + place, tl.zeros([GROUP], tl.float32), mask=mine)
    else:
        column = tl.arange(0, WIDTH)
        key = chunk * BLOCK + tl.arange(0, BLOCK)
        seen = (key <= position) & (key >= lowest)
        block = tl.load(table + row * columns + key // SIZE, mask=seen, other=0)
        place_of_key = (block * SIZE + key % SIZE) * key_heads + key_head
        at = place_of_key[:, None] * WIDTH + column[None, :]
        mine_q = tl.load(
            q + (row * queries + head)[:, None] * WIDTH + column[None, :], mask=mine[:, None], other=0.0
        )
        k = tl.load(keys + at, mask=seen[:, None], other=0.0)
        logits = tl.dot(mine_q, tl.trans(k)) * scale
        logits = tl.where(seen[None, :], logits, float("-inf"))
        top = tl.max(logits, 1)
        weights = tl.exp(logits - top[:, None])
        v = tl.load(values + at, mask=seen[:, None], other=0.0)
        result = tl.dot(weights.to(v.dtype), v)
        tl.store(tops + place, top, mask=mine)
        tl.store(totals + place, tl.sum(weights, 1), mask=mine)
        tl.store(out + place[:, None] * WIDTH + column[None, :], result, mask=mine[:, None])


@triton.jit(do_not_specialize=["chunks"])
def combine(  # type: ignore[no-untyped-def]
    parts, tops, totals, out, limbs, scales, queries, chunks,
    CHUNKS: tl.constexpr, WIDTH: tl.constexpr, ORDER: tl.constexpr,
):  # fmt: skip
    """The attention's output [rows, queries · WIDTH] from the parts of `attend`; CHUNKS is `chunks` rounded up."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    chunk = tl.arange(0, CHUNKS)
    column = tl.arange(0, WIDTH)
    place = (row * queries + head) * chunks + chunk
    top = tl.load(tops + place, mask=chunk < chunks, other=float("-inf"))
    weight = tl.exp(top - tl.max(top, 0))
    total = tl.sum(weight * tl.load(totals + place, mask=chunk < chunks, other=0.0), 0)
    # a part without a key was not written
    values = tl.load(
        parts + place[:, None] * WIDTH + column[None, :],
        mask=((chunk < chunks) & (top > float("-inf")))[:, None], other=0.0,
    )  # fmt: skip
    result = tl.sum(values * weight[:, None], 0) / total
    leave(out, limbs, scales, row, head * WIDTH, result, queries * WIDTH, ORDER, WIDTH)
