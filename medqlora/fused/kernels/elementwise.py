"""The functions of a decoder layer between its matrix products, forward and backward; they compute in float32.

Each fills `out`, so that it can run as one kernel; `fastest` returns the kernels.
Shapes: T tokens, D the model's width, F the MLP's width, H heads of width d.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from medqlora.fused.kernels.available import has_triton

#: the target of a row that adds nothing to the loss
IGNORED = -100


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor, copy: Tensor | None = None) -> None:
    """x / rms(x) · weight over the last dimension: Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467.

    `copy` becomes a copy of x.
    """
    if copy is not None:
        copy.copy_(x)
    wide = x.float()
    out.copy_(wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.float())


def rms_norm_backward(
    x: Tensor, weight: Tensor, eps: float, gradient: Tensor, residual: Tensor | None, out: Tensor
) -> None:
    """x's gradient from the gradient of `rms_norm`'s output, plus `residual`, x's gradient from elsewhere."""
    wide = x.float()
    inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    normed = wide * inverse
    scaled = gradient.float() * weight.float()
    result = inverse * (scaled - normed * (scaled * normed).mean(-1, keepdim=True))
    out.copy_(result if residual is None else result + residual.float())


def rotate(x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float, out: Tensor) -> None:
    """Rotary positions: x [T, H, d], cos and sin [T, d / 2]; with `weight` [d], an RMS norm of each head first.

    Su et al., 2021, https://arxiv.org/abs/2104.09864; it rotates halves, as transformers does.
    """
    wide = x.float()
    if weight is not None:
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.float()
    first, second = wide.chunk(2, -1)
    c, s = cos[:, None], sin[:, None]
    out.copy_(torch.cat((first * c - second * s, second * c + first * s), -1))


def rotate_backward(
    gradient: Tensor,
    cos: Tensor,
    sin: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    eps: float,
    out: Tensor,
) -> None:
    """The gradient of `rotate`'s x: the inverse rotation, then the norm's backward, which needs x."""
    first, second = gradient.float().chunk(2, -1)
    c, s = cos[:, None], sin[:, None]
    result = torch.cat((first * c + second * s, second * c - first * s), -1)
    if x is not None and weight is not None:
        wide = x.float()
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        normed = wide * inverse
        scaled = result * weight.float()
        result = inverse * (scaled - normed * (scaled * normed).mean(-1, keepdim=True))
    out.copy_(result)


def swiglu(gate_up: Tensor, out: Tensor) -> None:
    """silu(gate) · up: gate_up [T, 2 F], out [T, F]. Shazeer, 2020, https://arxiv.org/abs/2002.05202."""
    gate, up = gate_up.chunk(2, -1)
    wide = gate.float()
    out.copy_(wide * torch.sigmoid(wide) * up.float())


def swiglu_backward(gate_up: Tensor, gradient: Tensor, out: Tensor, product: Tensor) -> None:
    """Writes gate_up's gradient to `out` [T, 2 F], and recomputes silu(gate) · up into `product` [T, F].

    `out` may alias `gate_up`, and `product` may alias `gradient`.
    """
    gate, up = (part.float() for part in gate_up.chunk(2, -1))
    wide = gradient.float()
    sigmoid = torch.sigmoid(gate)
    silu = gate * sigmoid
    values = silu * up
    d_gate, d_up = wide * up * (sigmoid + silu * (1 - sigmoid)), wide * silu
    out.copy_(torch.cat((d_gate, d_up), -1))
    product.copy_(values)


def cross_entropy(logits: Tensor, targets: Tensor, scale: float, losses: Tensor) -> None:
    """Writes −log softmax(logits)[target] of each row to `losses` [R] float32.

    The gradient, (softmax − one-hot) · scale, overwrites `logits` [R, V]. Both are 0 for a target below 0.
    """
    wide = logits.float()
    total = wide.logsumexp(1, keepdim=True)
    counts = (targets >= 0)[:, None]
    index = targets.clamp(min=0)[:, None]
    losses.copy_((total - wide.gather(1, index)).where(counts, 0.0)[:, 0])
    result = (wide - total).exp()
    result = result.scatter_add(1, index, result.new_full((), -1.0).expand_as(index)) * scale
    logits.copy_(result.where(counts, 0.0))


#: (logits, targets, scale, losses), as `cross_entropy` takes them
CrossEntropy = Callable[[Tensor, Tensor, float, Tensor], None]


class NormsRows(Protocol):
    """As `rms_norm`."""

    def __call__(
        self, x: Tensor, weight: Tensor, eps: float, out: Tensor, copy: Tensor | None = None
    ) -> None: ...


class Elementwise(NamedTuple):
    """One implementation of the functions above."""

    rms_norm: NormsRows
    rms_norm_backward: Callable[[Tensor, Tensor, float, Tensor, Tensor | None, Tensor], None]
    rotate: Callable[[Tensor, Tensor, Tensor, Tensor | None, float, Tensor], None]
    rotate_backward: Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, float, Tensor], None]
    swiglu: Callable[[Tensor, Tensor], None]
    swiglu_backward: Callable[[Tensor, Tensor, Tensor, Tensor], None]
    cross_entropy: CrossEntropy


@lru_cache(maxsize=3)
def elementwise(kind: Literal["plain", "compiled", "triton"]) -> Elementwise:
    """The functions as they are, each compiled by torch, or the Triton kernels."""
    if kind == "triton":
        from medqlora.fused.kernels import triton_elementwise as kernels

        return Elementwise(*(getattr(kernels, name) for name in Elementwise._fields))
    plain = Elementwise(
        rms_norm, rms_norm_backward, rotate, rotate_backward, swiglu, swiglu_backward, cross_entropy
    )
    return plain if kind == "plain" else Elementwise(*(torch.compile(function) for function in plain))


def fastest(device: torch.device) -> Elementwise:
    """The Triton kernels on a GPU if Triton is installed, otherwise the compiled functions."""
    kind: Literal["compiled", "triton"] = "compiled"
    if device.type == "cuda" and has_triton():
        kind = "triton"
    return elementwise(kind)
