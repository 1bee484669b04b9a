"""SwiGLU and LoRA's small products beside it in one pass over the MLP's activations, by Triton kernels on a GPU."""

from collections.abc import Sequence

from torch import Tensor

from medqlora.fused.kernels.available import has_triton

#: ranks for which the kernel was measured to be faster than separate products
RANKS = (16,)
#: the MLP's width has to be a multiple of it: the most columns of a block
COLUMNS = 128


def fits(width: int, ranks: Sequence[int]) -> bool:
    """Whether the kernels run an MLP of that width whose adapters have these ranks."""
    return len(set(ranks)) == 1 and ranks[0] in RANKS and width % COLUMNS == 0 and has_triton()


def swiglu_backward_and_sums(
    gate_up: Tensor,
    gradient: Tensor,
    low: Tensor,
    d_low: Tensor,
    held: tuple[Tensor, Tensor, Tensor],
    factor: float,
) -> None:
    """Overwrites gate|up [T, 2 F] with its gradient, and adds to LoRA's gradients what needs these activations.

    Args:
        gate_up: half precision.
        gradient: [T, F], of silu(gate) · up.
        low: [T, 2 r]: gate|up's input times Aᵀ.
        d_low: [T, r]: down's gradient times its B.
        held: the gradients of gate's B and up's B [F, r] and of down's A [r, F], contiguous, float32.
        factor: of the last one: down's scaling.
    """
    from medqlora.fused.kernels import triton_swiglu

    triton_swiglu.backward(gate_up, gradient, low, d_low, held, factor)
