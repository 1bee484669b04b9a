"""A frozen linear layer on packed 4-bit integers, with a gradient for its input."""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from medqlora.models.int4.layouts import Int4Weights
from medqlora.models.int4.state import Int4State


class Int4Linear(nn.Linear):
    """y = x Wᵀ + b with W in 4 bits, dequantized for each product and not kept for the backward.

    It is an `nn.Linear` to PEFT, which puts LoRA around it. Its `weight` is the packed bytes, with `quant_state`.

    Args:
        weights: from the base's files.
        bias: [out]; None for none.
        dtype: type of the product.
    """

    def __init__(self, weights: Int4Weights, bias: Tensor | None, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would allocate the dense matrix
        self.in_features, self.out_features = weights.inputs, len(weights.packed)
        self.state = Int4State(weights.scales, weights.zeros, weights.groups, weights.inputs)
        self.weight = nn.Parameter(weights.packed, requires_grad=False)
        self.weight.quant_state = self.state  # type: ignore[attr-defined]
        self.bias: nn.Parameter | None  # type: ignore[assignment]  # nn.Linear says that it has one
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.compute_dtype = dtype

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """W [out, in]."""
        return self.state.dequantize(self.weight.data, dtype)

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            y: Tensor = _Product.apply(input.to(self.compute_dtype), self)
        return y.to(input.dtype)


class _ProductContext(FunctionCtx):
    layer: Int4Linear


class _Product(torch.autograd.Function):
    """x Wᵀ + b; the backward dequantizes W again. W and b get no gradient."""

    @staticmethod
    def forward(ctx: _ProductContext, x: Tensor, layer: Int4Linear) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return F.linear(x, layer.dequantized(x.dtype), bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: _ProductContext, dy: Tensor) -> tuple[Tensor, None]:
        return dy @ ctx.layer.dequantized(dy.dtype), None
