"""Each Triton kernel gives what the plain function beside it gives; on a GPU, or in Triton's interpreter."""

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from medqlora.fused.kernels import elementwise as plain

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "no GPU: with Triton installed, TRITON_INTERPRET=1 runs its kernels here", allow_module_level=True
    )
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
#: rows × columns: even ones, and ones that fill no block of a kernel
SIZES = [(5, 64), (3, 100)]


@pytest.fixture(scope="module")
def kernels() -> Any:
    from medqlora.fused.kernels import triton_elementwise

    return triton_elementwise


def apart(rows: int, columns: int, gap: int = 8) -> Tensor:
    """[rows, columns] of random values, whose rows lie apart in memory."""
    return torch.randn(rows, columns + gap, device=DEVICE)[:, :columns]


def assert_close(a: Tensor, b: Tensor) -> None:
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_norms(kernels: Any, rows: int, columns: int) -> None:
    x, weight, gradient, residual = (apart(rows, columns, gap) for gap in (0, 8, 16, 24))
    outs = [apart(rows, columns) for _ in range(2)]
    for module, out in zip((plain, kernels), outs, strict=True):
        copy = apart(rows, columns)
        module.rms_norm(x, weight[0], 1e-5, out, copy)
        assert torch.equal(copy, x)
    assert_close(*outs)
    for other in (None, residual):
        for module, out in zip((plain, kernels), outs, strict=True):
            module.rms_norm_backward(x, weight[0], 1e-5, gradient, other, out)
        assert_close(*outs)


@pytest.mark.parametrize(("heads", "width"), [(4, 16), (3, 24)])
@pytest.mark.parametrize("normed", [False, True])
def test_rotations(kernels: Any, heads: int, width: int, normed: bool) -> None:
    shape = (heads, width)
    x, gradient = (
        apart(5, heads * width + 40)[:, 8 : 8 + heads * width].unflatten(1, shape) for _ in range(2)
    )
    cos, sin = (apart(5, width // 2, 0) for _ in range(2))
    weight = torch.randn(width, device=DEVICE) if normed else None
    outs = [apart(5, heads * width).unflatten(1, shape) for _ in range(2)]
    for module, out in zip((plain, kernels), outs, strict=True):
        module.rotate(x, cos, sin, weight, 1e-6, out)
    assert_close(*outs)
    for module, out in zip((plain, kernels), outs, strict=True):
        module.rotate_backward(gradient, cos, sin, x if normed else None, weight, 1e-6, out)
    assert_close(*outs)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_swiglu(kernels: Any, rows: int, columns: int) -> None:
    gate_up, gradient = apart(rows, 2 * columns), apart(rows, columns)
    outs = [apart(rows, columns) for _ in range(2)]
    for module, out in zip((plain, kernels), outs, strict=True):
        module.swiglu(gate_up, out)
    assert_close(*outs)
    products = [apart(rows, columns) for _ in range(2)]
    outs = [apart(rows, 2 * columns) for _ in range(2)]
    for module, out, product in zip((plain, kernels), outs, products, strict=True):
        module.swiglu_backward(gate_up, gradient, out, product)
    assert_close(*outs)
    assert_close(*products)
    kernels.swiglu_backward(gate_up, gradient, gate_up, gradient)  # in place of what it reads
    assert_close(gate_up, outs[0])
    assert_close(gradient, products[0])


@pytest.mark.parametrize(("rows", "columns"), [(5, 1000), (2, 9000)])
def test_cross_entropy(kernels: Any, rows: int, columns: int) -> None:
    logits, targets = apart(rows, columns) * 4, torch.randint(columns, (rows,), device=DEVICE)
    pieces = [logits.clone() for _ in range(2)]
    losses = [torch.empty(rows, device=DEVICE) for _ in range(2)]
    for module, piece, loss in zip((plain, kernels), pieces, losses, strict=True):
        module.cross_entropy(piece, targets, 3.0, loss)
    assert_close(*pieces)
    assert_close(*losses)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("rows", [(96,), (128, 96), (64, 32, 160)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nf4_of_a_whole_group(kernels: Any, double: bool, rows: tuple[int, ...], dtype: torch.dtype) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    from medqlora.fused.kernels.triton_nf4 import prepare

    weights = [
        quantize_4bit(
            torch.randn(size, 192, device=DEVICE, dtype=dtype) * (1 + number),
            blocksize=64,
            quant_type="nf4",
            compress_statistics=double,
        )
        for number, size in enumerate(rows)
    ]
    out = torch.full((sum(rows), 256), 7.0, device=DEVICE, dtype=dtype)
    added = torch.randn(sum(rows), 24, device=DEVICE).to(dtype)
    fill = prepare([(packed.view(torch.uint8), state) for packed, state in weights])
    fill(out[:, :192], (out[:, 192:216], added))
    theirs = torch.cat([dequantize_4bit(packed, state) for packed, state in weights])
    assert torch.allclose(out[:, :192], theirs, rtol=1e-2, atol=1e-6)
    if DEVICE.type == "cuda" or dtype == torch.float16:  # Triton 3.6's interpreter cuts bfloat16 off
        assert (out[:, :192] != theirs).float().mean() < 1e-3
    assert torch.equal(out[:, 192:216], added)
    assert (out[:, 216:] == 7).all()
    fill(out[:, 64:], None)
    assert torch.equal(out[:, 64:], theirs) or torch.allclose(out[:, 64:], theirs, rtol=1e-2, atol=1e-6)
