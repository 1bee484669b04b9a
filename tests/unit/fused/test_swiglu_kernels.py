"""SwiGLU's kernels with LoRA's sums give what the separate functions and products give; on a GPU or interpreted."""

import os

import pytest
import torch

from medqlora.fused.kernels.elementwise import swiglu_backward
from medqlora.fused.kernels.swiglu_lora import fits

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "no GPU: with Triton installed, TRITON_INTERPRET=1 runs its kernels here", allow_module_level=True
    )
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _loops(loops_of_the_interpreter: None) -> None:
    """With loops that the interpreter can run."""


def operand(rows: int, columns: int, stride: int) -> torch.Tensor:
    """Half precision, its rows apart."""
    return torch.randn(rows, stride, device=DEVICE).half()[:, :columns]


@pytest.mark.parametrize(("rows", "rank"), [(70, 16), (33, 32), (1, 16)])
def test_gradients_of_the_activations_and_of_lora(rows: int, rank: int) -> None:
    from medqlora.fused.kernels import triton_swiglu

    torch.manual_seed(0)
    width, factor = 256, 2.0
    gate_up, gradient = operand(rows, 2 * width, 600), operand(rows, width, 300)
    low, d_low = operand(rows, 2 * rank, 2 * rank), operand(rows, rank, 64)
    wanted, product = torch.empty_like(gate_up), torch.empty_like(gradient)
    swiglu_backward(gate_up, gradient, wanted, product)
    held = [torch.ones(shape, device=DEVICE) for shape in ((width, rank), (width, rank), (rank, width))]
    triton_swiglu.backward(gate_up, gradient, low, d_low, (held[0], held[1], held[2]), factor)
    assert torch.allclose(gate_up, wanted, rtol=2e-3, atol=1e-6)
    d_gate, d_up = wanted.float().chunk(2, 1)
    of_gate, of_up = low.float().chunk(2, 1)
    right = [d_gate.t() @ of_gate, d_up.t() @ of_up, factor * d_low.float().t() @ product.float()]
    for found, expected in zip(held, right, strict=True):
        assert torch.allclose(found, 1 + expected, rtol=1e-3, atol=2e-2)


def test_ranks_and_widths_that_do_not_fit_are_refused() -> None:
    for width, ranks in ((14_336, [8, 8, 8]), (14_336, [16, 16, 32]), (14_400, [16] * 3), (14_336, [64] * 3)):
        assert not fits(width, ranks)
    assert fits(14_336, [16] * 3)
