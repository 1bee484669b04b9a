"""What a decoder layer does between its matrix products, forward and backward, in float32 inside.

Written as plain functions that fill `out`, so that each can be one kernel: `fastest` gives those.
Shapes: T tokens, D the model's width, F the MLP's, H heads of width d.
"""

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
    """x / rms(x) · weight over the last dimension: Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467."""
    wide = x.float()
    out.copy_(wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.float())


def rms_norm_backward(
    x: Tensor, weight: Tensor, eps: float, gradient: Tensor, residual: Tensor | None, out: Tensor
) -> None:
    """x's gradient from that of `rms_norm`'s result, plus `residual`, what reached x beside the norm."""
    wide = x.float()
    inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    normed = wide * inverse
    scaled = gradient.float() * weight.float()
    result = inverse * (scaled - normed * (scaled * normed).mean(-1, keepdim=True))
    out.copy_(result if residual is None else result + residual.float())


def rotate(x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float, out: Tensor) -> None:
    """Rotary positions: x [T, H, d], cos and sin [T, d / 2]; a `weight` [d] normalises each head before it.

    Su et al., 2021, https://arxiv.org/abs/2104.09864, in the halves that transformers rotates.
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
    """The gradient of `rotate`'s x: the rotation back, then that of the norm, which needs x."""
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
    """gate_up's gradient into `out` [T, 2 F], and once more silu(gate) · up into `product` [T, F].

    `out` may be `gate_up`, and `product` may be `gradient`.
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
    """−log softmax(logits)[target] of each row into `losses` [R] float32.

    Its gradient, (softmax − one-hot) · scale, takes the place of `logits` [R, V].
    """
    wide = logits.float()
    whole = wide.logsumexp(1, keepdim=True)
    index = targets[:, None]
    losses.copy_((whole - wide.gather(1, index))[:, 0])
    result = (wide - whole).exp()
    logits.copy_(result.scatter_add(1, index, result.new_full((), -1.0).expand_as(index)) * scale)


class Elementwise(NamedTuple):
    """The functions above, as they are or compiled."""

    rms_norm: Callable[..., None]
    rms_norm_backward: Callable[..., None]
    rotate: Callable[..., None]
    rotate_backward: Callable[..., None]
    swiglu: Callable[..., None]
    swiglu_backward: Callable[..., None]
    cross_entropy: Callable[..., None]


@lru_cache(maxsize=3)
def elementwise(kind: Literal["plain", "compiled", "triton"]) -> Elementwise:
    """The functions as they are, each compiled by torch, or the Triton kernels of `fused_kernels`."""
    if kind == "triton":
        from medqlora.fused import fused_kernels as chosen

        return Elementwise(*(getattr(chosen, name) for name in Elementwise._fields))
    plain: list[Any] = [globals()[name] for name in Elementwise._fields]
    return Elementwise(*(torch.compile(function) if kind == "compiled" else function for function in plain))


def fastest(device: torch.device) -> Elementwise:
    """Triton's on a GPU where it is installed, else what torch compiles."""
    kind: Literal["compiled", "triton"] = "compiled"
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        kind = "triton"
    return elementwise(kind)
