# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""Dropout as one kernel that reads its seed on the device. Philox: Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405."""

import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

_BLOCK = 1024


def drop(x: Tensor, rate: float, seed: Tensor, offset: int, out: Tensor) -> None:
    """Writes x [T, columns] with dropped values to `out`, which is contiguous; x's rows may have a stride."""
    rows, columns = x.shape
    if rows:
        _drop[(rows, triton.cdiv(columns, _BLOCK))](
            x, seed, out, x.stride(0), x.stride(1), columns, offset, rate, BLOCK=_BLOCK
        )


@triton.jit(do_not_specialize=["offset"])
def _drop(x, seed, out, x_row, x_column, columns, offset, rate, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    values = tl.load(x + row * x_row + column * x_column, mask=inside, other=0.0).to(tl.float32)
    chosen = tl.rand(tl.load(seed) + offset, (row * columns + column).to(tl.uint32))
    values = tl.where(chosen >= rate, values * (1 / (1 - rate)), 0.0)
    tl.store(out + row * columns + column, values.to(out.dtype.element_ty), mask=inside)
