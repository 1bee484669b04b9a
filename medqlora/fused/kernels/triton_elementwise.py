# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""The functions of `medqlora.fused.kernels.elementwise` as one Triton kernel each, for a GPU.

Every value is read once and written once; a new number of tokens needs no new compilation.
The last dimension of every operand is contiguous; rows may have a stride.
"""

import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

#: values of a row per program of the SwiGLU kernels
_COLUMNS = 1024
#: logits per block of the cross-entropy kernel
_LOGITS = 4096


def _warps(columns: int) -> int:
    return min(16, max(1, columns // 512))


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor, copy: Tensor | None = None) -> None:
    rows, columns = x.shape
    if rows:
        block = triton.next_power_of_2(columns)
        target = out if copy is None else copy
        _rms_norm[(rows,)](
            x, weight, out, target, x.stride(0), out.stride(0), target.stride(0), columns, eps,
            COPY=copy is not None, BLOCK=block, num_warps=_warps(block),
        )  # fmt: skip


def rms_norm_backward(
    x: Tensor, weight: Tensor, eps: float, gradient: Tensor, residual: Tensor | None, out: Tensor
) -> None:
    rows, columns = x.shape
    if rows:
        block = triton.next_power_of_2(columns)
        other = gradient if residual is None else residual
        _rms_norm_backward[(rows,)](
            x, weight, gradient, other, out,
            x.stride(0), gradient.stride(0), other.stride(0), out.stride(0), columns, eps,
            RESIDUAL=residual is not None, BLOCK=block, num_warps=_warps(block),
        )  # fmt: skip


def rotate(x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float, out: Tensor) -> None:
    _rotation(x, x, cos, sin, weight, eps, out, backward=False)


def rotate_backward(
    gradient: Tensor,
    cos: Tensor,
    sin: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    eps: float,
    out: Tensor,
) -> None:
    _rotation(gradient, gradient if x is None else x, cos, sin, weight, eps, out, backward=True)


def _rotation(
    source: Tensor, x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float, out: Tensor,
    *, backward: bool,
) -> None:  # fmt: skip
    rows, heads, width = source.shape
    if rows:
        _rotate[(rows,)](
            source, x, cos, sin, cos if weight is None else weight, out,
            source.stride(0), source.stride(1), x.stride(0), x.stride(1), out.stride(0), out.stride(1),
            heads, width // 2, eps,
            NORM=weight is not None, BACKWARD=backward,
            HEADS=triton.next_power_of_2(heads), HALF=triton.next_power_of_2(width // 2), num_warps=4,
        )  # fmt: skip


def swiglu(gate_up: Tensor, out: Tensor) -> None:
    rows, columns = out.shape
    if rows:
        _swiglu[(rows, triton.cdiv(columns, _COLUMNS))](
            gate_up, out, gate_up.stride(0), out.stride(0), columns, BLOCK=_COLUMNS
        )


def swiglu_backward(gate_up: Tensor, gradient: Tensor, out: Tensor, product: Tensor) -> None:
    rows, columns = gradient.shape
    if rows:
        _swiglu_backward[(rows, triton.cdiv(columns, _COLUMNS))](
            gate_up, gradient, out, product,
            gate_up.stride(0), gradient.stride(0), out.stride(0), product.stride(0), columns, BLOCK=_COLUMNS,
        )  # fmt: skip


def cross_entropy(logits: Tensor, targets: Tensor, scale: float, losses: Tensor) -> None:
    rows, columns = logits.shape
    if rows:
        _cross_entropy[(rows,)](
            logits, targets, losses, logits.stride(0), scale, COLUMNS=columns, BLOCK=_LOGITS, num_warps=8
        )


@triton.jit
def _rms_norm(  # type: ignore[no-untyped-def]
    x, weight, out, copy, x_row, out_row, copy_row, columns, eps, COPY: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    loaded = tl.load(x + row * x_row + column, mask=inside, other=0.0)
    if COPY:
        tl.store(copy + row * copy_row + column, loaded, mask=inside)
    values = loaded.to(tl.float32)
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(values * values, 0) / columns + eps)
    tl.store(out + row * out_row + column, (values * inverse * scale).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm_backward(  # type: ignore[no-untyped-def]
    x, weight, gradient, residual, out, x_row, gradient_row, residual_row, out_row, columns, eps,
    RESIDUAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    values = tl.load(x + row * x_row + column, mask=inside, other=0.0).to(tl.float32)
    scaled = tl.load(gradient + row * gradient_row + column, mask=inside, other=0.0).to(tl.float32)
    scaled *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(values * values, 0) / columns + eps)
    values *= inverse
    result = inverse * (scaled - values * (tl.sum(scaled * values, 0) / columns))
    if RESIDUAL:
        result += tl.load(residual + row * residual_row + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_row + column, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _rotate(  # type: ignore[no-untyped-def]
    source, x, cos, sin, weight, out, source_row, source_head, x_row, x_head, out_row, out_head,
    heads, half, eps,
    NORM: tl.constexpr, BACKWARD: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < half)
    c = tl.load(cos + row * half + column, mask=column < half, other=0.0)
    s = tl.load(sin + row * half + column, mask=column < half, other=0.0)
    start = source + row * source_row + head * source_head + column
    first = tl.load(start, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(start + half, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        w1 = tl.load(weight + column, mask=column < half, other=0.0).to(tl.float32)
        w2 = tl.load(weight + half + column, mask=column < half, other=0.0).to(tl.float32)
    if BACKWARD:
        d1 = first * c + second * s
        d2 = second * c - first * s
        if NORM:
            where = x + row * x_row + head * x_head + column
            x1 = tl.load(where, mask=inside, other=0.0).to(tl.float32)
            x2 = tl.load(where + half, mask=inside, other=0.0).to(tl.float32)
            inverse = tl.rsqrt((tl.sum(x1 * x1, 1) + tl.sum(x2 * x2, 1)) / (2 * half) + eps)[:, None]
            x1 *= inverse
            x2 *= inverse
            d1 *= w1
            d2 *= w2
            mean = ((tl.sum(d1 * x1, 1) + tl.sum(d2 * x2, 1)) / (2 * half))[:, None]
            d1 = inverse * (d1 - x1 * mean)
            d2 = inverse * (d2 - x2 * mean)
    else:
        if NORM:
            inverse = tl.rsqrt((tl.sum(first * first, 1) + tl.sum(second * second, 1)) / (2 * half) + eps)
            first *= inverse[:, None] * w1
            second *= inverse[:, None] * w2
        d1 = first * c - second * s
        d2 = second * c + first * s
    place = out + row * out_row + head * out_head + column
    tl.store(place, d1.to(out.dtype.element_ty), mask=inside)
    tl.store(place + half, d2.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu(gate_up, out, gate_up_row, out_row, columns, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    start = gate_up + row * gate_up_row + column
    gate = tl.load(start, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(start + columns, mask=inside, other=0.0).to(tl.float32)
    value = gate * tl.sigmoid(gate) * up
    tl.store(out + row * out_row + column, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward(  # type: ignore[no-untyped-def]
    gate_up, gradient, out, product, gate_up_row, gradient_row, out_row, product_row, columns,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    start = gate_up + row * gate_up_row + column
    gate = tl.load(start, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(start + columns, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(gradient + row * gradient_row + column, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    place = out + row * out_row + column
    tl.store(place, (d * up * (sigmoid + silu * (1 - sigmoid))).to(out.dtype.element_ty), mask=inside)
    tl.store(place + columns, (d * silu).to(out.dtype.element_ty), mask=inside)
    tl.store(product + row * product_row + column, (silu * up).to(product.dtype.element_ty), mask=inside)


@triton.jit
def _cross_entropy(  # type: ignore[no-untyped-def]
    logits, targets, losses, logits_row, scale, COLUMNS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * logits_row
    target = tl.load(targets + row)
    counts = target >= 0
    chosen = tl.load(start + target, mask=counts, other=0.0).to(tl.float32)
    # running maximum per column of a block, and the sum of exponentials relative to it
    top = tl.full((BLOCK,), -1e30, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, COLUMNS, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        values = tl.load(start + column, mask=column < COLUMNS, other=-1e30).to(tl.float32)
        higher = tl.maximum(top, values)
        total = total * tl.exp(top - higher) + tl.where(column < COLUMNS, tl.exp(values - higher), 0.0)
        top = higher
    largest = tl.max(top, 0)
    whole = largest + tl.log(tl.sum(total * tl.exp(top - largest), 0))
    tl.store(losses + row, tl.where(counts, whole - chosen, 0.0))
    scale = tl.where(counts, scale, 0.0)
    for begin in range(0, COLUMNS, BLOCK):
        column = begin + tl.arange(0, BLOCK)
        inside = column < COLUMNS
        values = tl.load(start + column, mask=inside, other=0.0).to(tl.float32)
        gradient = tl.exp(values - whole) - tl.where(column == target, 1.0, 0.0)
        tl.store(start + column, (gradient * scale).to(logits.dtype.element_ty), mask=inside)
