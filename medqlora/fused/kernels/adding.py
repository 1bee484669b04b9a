"""Sums of several tensors in one launch."""

from collections.abc import Sequence

from torch import Tensor

from medqlora.fused.kernels.available import has_triton


def add_in_one_launch(targets: Sequence[Tensor], sources: Sequence[Tensor], factors: Sequence[float]) -> bool:
    """Adds factor · source to each target in place; whether it could: up to three of equal size, with one factor.

    Args:
        targets: contiguous, float32, on a GPU.
        sources: rows of one contiguous float32 matrix, one after the other.
        factors: of the sources.
    """
    sizes = {tensor.numel() for tensor in (*targets, *sources)}
    if len(sizes) > 1 or len(set(factors)) > 1 or len(targets) > 3 or not has_triton():
        return False
    from medqlora.fused.kernels.triton_casts import add_parts

    add_parts(targets, sources[0], factors[0])
    return True
