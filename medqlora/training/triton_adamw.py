# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""bitsandbytes' 8-bit AdamW on a GPU, with the bits of its kernel and at the memory's rate.

Dettmers et al., 2022, https://arxiv.org/abs/2110.02861. bitsandbytes 0.50 runs a thread block for each 256 values, with
nine barriers in it. Every operation here rounds as in its machine code: fused multiply-adds in the same places,
approximate reciprocals and roots, subnormal numbers as 0.
"""

import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from medqlora.training.adamw_8bit import BLOCK, Moments, Settings

#: blocks of values with one scale per program
_BLOCKS = 4


def update(
    weights: Tensor,
    gradients: Tensor,
    moments: Moments,
    limits: tuple[Tensor, Tensor],
    settings: Settings,
    step: int,
) -> None:
    """One step of AdamW in place, as `bitsandbytes.functional.optimizer_update_8bit_blockwise`.

    Args:
        weights, gradients: [N] float32, N a multiple of 256.
        moments: in 8 bits.
        limits: `thresholds` of the moments' maps.
        settings: of AdamW.
        step: from 1 on.
    """
    blocks = weights.numel() // BLOCK
    _adamw[(triton.cdiv(blocks, _BLOCKS),)](
        weights, gradients, *moments, *limits, blocks,
        *settings.betas, settings.eps, step, settings.rate, settings.decay,
        SIZE=BLOCK, BLOCKS=_BLOCKS, num_warps=4,
    )  # fmt: skip


@triton.jit
def _times(a, b):  # type: ignore[no-untyped-def]
    return tl.inline_asm_elementwise("mul.ftz.f32 $0, $1, $2;", "=f,f,f", [a, b], tl.float32, True, 1)


@triton.jit
def _times_plus(a, b, c):  # type: ignore[no-untyped-def]
    return tl.inline_asm_elementwise(
        "fma.rn.ftz.f32 $0, $1, $2, $3;", "=f,f,f,f", [a, b, c], tl.float32, True, 1
    )


@triton.jit
def _inverse(a):  # type: ignore[no-untyped-def]
    return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [a], tl.float32, True, 1)


@triton.jit
def _root(a):  # type: ignore[no-untyped-def]
    return tl.inline_asm_elementwise("sqrt.approx.ftz.f32 $0, $1;", "=f,f", [a], tl.float32, True, 1)


@triton.jit
def _power(a, exponent):  # type: ignore[no-untyped-def]
    log = tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [a], tl.float32, True, 1)
    return tl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [_times(exponent, log)], tl.float32, True, 1
    )


@triton.jit
def _code(value, limits):  # type: ignore[no-untyped-def]
    """The number of limits below a value: the first three of eight halvings without a look-up for each value."""
    upper = value > tl.load(limits + 127)
    second = tl.where(upper, tl.load(limits + 191), tl.load(limits + 63))
    high = value > second
    above = tl.where(high, tl.load(limits + 223), tl.load(limits + 159))
    below = tl.where(high, tl.load(limits + 95), tl.load(limits + 31))
    third = value > tl.where(upper, above, below)
    found = tl.where(upper, 128, 0) + tl.where(high, 64, 0) + tl.where(third, 32, 0)
    for bit in tl.static_range(3, 8):
        found += tl.where(value > tl.load(limits + found + ((128 >> bit) - 1)), 128 >> bit, 0)
    return found


@triton.jit(do_not_specialize=["step"])
def _adamw(  # type: ignore[no-untyped-def]
    weights, gradients, state_1, state_2, scales_1, scales_2, map_1, map_2, limits_1, limits_2, blocks,
    beta_1, beta_2, eps, step, rate, decay, SIZE: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    inside = block < blocks
    place = block.to(tl.int64)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    there = tl.broadcast_to(inside[:, None], (BLOCKS, SIZE))
    gradient = tl.load(gradients + place, mask=there, other=0.0)
    code_1 = tl.load(state_1 + place, mask=there, other=0).to(tl.int32)
    code_2 = tl.load(state_2 + place, mask=there, other=0).to(tl.int32)
    weight = tl.load(weights + place, mask=there, other=0.0)
    scale_1 = tl.load(scales_1 + block, mask=inside, other=0.0)[:, None]
    scale_2 = tl.load(scales_2 + block, mask=inside, other=0.0)[:, None]
    count = step.to(tl.float32)
    correction = _root(1.0 - _power(beta_2, count))
    size = _times(_times(correction, rate), -_inverse(1.0 - _power(beta_1, count)))
    finite = tl.abs(gradient) < float("inf")
    gradient = _times(gradient, 1.0)  # a subnormal one becomes 0, as where bitsandbytes scales it
    first = _times(_times(scale_1, tl.load(map_1 + code_1)), beta_1)
    first = tl.where(finite, _times_plus(gradient, 1.0 - beta_1, first), 0.0)
    second = _times(_times(scale_2, tl.load(map_2 + code_2)), beta_2)
    second = tl.where(finite, _times_plus(gradient, _times(1.0 - beta_2, gradient), second), 0.0)
    most_1 = tl.max(tl.abs(first), 1)
    most_2 = tl.max(tl.abs(second), 1)
    tl.store(scales_1 + block, most_1, mask=inside)
    tl.store(scales_2 + block, most_2, mask=inside)
    ratio = _times(_inverse(_times_plus(correction, eps, _root(second))), first)
    moved = _times_plus(size, ratio, weight)
    if decay > 0:
        moved = _times(_times_plus(-rate, decay, 1.0), moved)
    tl.store(weights + place, tl.where(finite, moved, weight), mask=there)
    code_1 = _code(_times(_inverse(most_1)[:, None], first), limits_1)
    code_2 = _code(_times(_inverse(most_2)[:, None], second), limits_2)
    # the first moment keeps its sign
    negative = first.to(tl.int32, bitcast=True) < 0
    other = (tl.load(map_1 + code_1).to(tl.int32, bitcast=True) < 0) != negative
    code_1 += tl.where(other, tl.where(first > 0, 1, -1), 0)
    tl.store(state_1 + place, code_1.to(tl.uint8), mask=there)
    tl.store(state_2 + place, code_2.to(tl.uint8), mask=there)
