"""The attention kernels for short examples give what attention example by example gives; on a GPU or interpreted."""

import os

import pytest
import torch
from torch.nn import functional as F

from medqlora.fused.kernels import elementwise

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "no GPU: with Triton installed, TRITON_INTERPRET=1 runs its kernels here", allow_module_level=True
    )
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _loops(loops_of_the_interpreter: None) -> None:
    """With loops that the interpreter can run."""


def by_example(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Causal attention of each example alone, as torch computes it."""
    group = q.shape[1] // k.shape[1]
    parts = []
    for queries, keys, values in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        own, shared, read = (x.transpose(0, 1)[None] for x in (queries, keys, values))
        out = F.scaled_dot_product_attention(
            own, shared.repeat_interleave(group, 1), read.repeat_interleave(group, 1), is_causal=True
        )
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize(
    ("lengths", "heads", "keys", "width"),
    [([70, 1, 0, 33, 0], 4, 2, 16), ([64, 65], 2, 2, 16), ([5, 70], 3, 1, 32), ([2] * 17 + [66], 1, 1, 16)],
)
def test_outputs_and_gradients_of_packed_examples(
    lengths: list[int], heads: int, keys: int, width: int
) -> None:
    from medqlora.fused.kernels import triton_attention

    torch.manual_seed(0)
    tokens = sum(lengths)
    q, k, v = (
        torch.randn(tokens, count, width, device=DEVICE, requires_grad=True) for count in (heads, keys, keys)
    )
    bounds = torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int()
    expected = by_example(q, k, v, [length for length in lengths if length])
    gradient = torch.randn_like(expected)
    # rows of all results lie apart in memory, as in the operands of matrix products
    wide = torch.full((tokens, heads * width + 8), 7.0, device=DEVICE)
    out = wide[:, : heads * width].unflatten(1, (heads, width))
    of_v = torch.full((tokens, keys * width + 8), 7.0, device=DEVICE)
    d_v = of_v[:, : keys * width].unflatten(1, (keys, width))
    d_q, d_k = torch.empty_like(q), torch.empty_like(k)
    with torch.no_grad():
        sums = triton_attention.attend(q, k, v, bounds, 256, out)
        triton_attention.attend_backward(gradient, q, k, v, out, sums, bounds, 256, d_q, d_k, d_v)
    wanted = (expected, *torch.autograd.grad(expected, (q, k, v), gradient))
    turns = tuple(torch.randn(tokens, width // 2, device=DEVICE) for _ in range(2))
    for number, found in enumerate((d_q, d_k)):
        turned = torch.empty_like(found)
        elementwise.rotate_backward(found, *turns, None, None, 0.0, turned)
        places = [torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)]
        with torch.no_grad():
            triton_attention.attend_backward(gradient, q, k, v, out, sums, bounds, 256, *places, turns)
        assert torch.allclose(places[number], turned, rtol=1e-4, atol=1e-5)
    tolerance = 2e-2 if DEVICE.type == "cuda" else 1e-5  # a GPU multiplies float32 in TF32
    for found, right in zip((out, d_q, d_k, d_v), wanted, strict=True):
        assert torch.allclose(found, right, rtol=tolerance, atol=tolerance)
    assert (wide[:, heads * width :] == 7).all()
    assert (of_v[:, keys * width :] == 7).all()
