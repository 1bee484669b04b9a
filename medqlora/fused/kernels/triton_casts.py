# ruff: noqa: N803  # compile-time constants are in capitals, as in Triton's own kernels
"""Casts of many float32 tensors to half precision, each times a factor, in one launch; and sums of a few."""

from collections.abc import Callable, Sequence

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

#: values per program
_VALUES = 4096
#: the same of a sum
_ADDED = 1024


def prepare(casts: Sequence[tuple[Tensor, Tensor, float]]) -> Callable[[], None]:
    """A function that fills each target [rows, columns], whose rows may have a stride, with its source times a factor.

    Args:
        casts: (target, source, factor) on one GPU, all targets of one type; a source is contiguous and float32. The
            tensors have to stay where they are.
    """
    device = casts[0][0].device
    entries = [
        (source.data_ptr(), target.data_ptr(), source.numel(), target.shape[1], target.stride(0))
        for target, source, _ in casts
    ]
    table = torch.tensor(entries, dtype=torch.int64).to(device)
    factors = torch.tensor([factor for _, _, factor in casts]).to(device)
    programs = [
        (number, start)
        for number, (_, source, _) in enumerate(casts)
        for start in range(0, source.numel(), _VALUES)
    ]
    work = torch.tensor(programs, dtype=torch.int32).to(device)
    like = casts[0][0]  # its type

    def cast() -> None:
        _cast[(len(programs),)](table, factors, work, like, VALUES=_VALUES, num_warps=4)

    return cast


def add_parts(targets: Sequence[Tensor], first: Tensor, factor: float) -> None:
    """Adds factor times consecutive equal parts of a float32 matrix to up to three targets.

    Args:
        targets: contiguous, of one size.
        first: the first part; the others follow it in memory.
        factor: of all parts.
    """
    size = targets[0].numel()
    padded = (list(targets) + [targets[0]] * 2)[:3]
    _add_parts[(triton.cdiv(size, _ADDED), len(targets))](
        first, *padded, size, factor, VALUES=_ADDED, num_warps=4
    )


@triton.jit
def _add_parts(source, target, target_1, target_2, size, factor, VALUES: tl.constexpr):  # type: ignore[no-untyped-def]
    part = tl.program_id(1)
    if part == 1:
        target = target_1
    elif part == 2:
        target = target_2
    place = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    inside = place < size
    added = tl.load(source + part * size + place, mask=inside, other=0.0) * factor
    tl.store(target + place, tl.load(target + place, mask=inside, other=0.0) + added, mask=inside)


@triton.jit
def _cast(table, factors, work, like, VALUES: tl.constexpr):  # type: ignore[no-untyped-def]
    program = tl.program_id(0)
    number = tl.load(work + 2 * program)
    entry = table + 5 * number
    source = tl.load(entry).to(tl.pointer_type(tl.float32))
    target = tl.load(entry + 1).to(like.dtype)
    count = tl.load(entry + 2)
    columns = tl.load(entry + 3).to(tl.int32)
    stride = tl.load(entry + 4)
    place = tl.load(work + 2 * program + 1) + tl.arange(0, VALUES)
    inside = place < count
    value = tl.load(source + place, mask=inside, other=0.0) * tl.load(factors + number)
    row = (place // columns).to(tl.int64)
    tl.store(target + row * stride + place % columns, value.to(like.dtype.element_ty), mask=inside)
