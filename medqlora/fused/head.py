"""The output head's loss without its logits: pieces of rows whose gradient is computed along the way."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: logits that exist at one time: 512 rows of Llama-3's vocabulary, 131 MB in half precision
_LOGITS = 1 << 26
#: what float16 probabilities are multiplied by while they pass through the head: a small one would be 0
HALF_SCALE = 1024.0


class HeadLoss(torch.autograd.Function):
    """Σ −log softmax(h Wᵀ)[target] over rows: `apply(hidden [R, D], weight [V, D], targets [R], cross_entropy)`.

    The logits' gradient, softmax − one-hot, is known as soon as they are. So each piece is multiplied back
    through W at once, and kept is the hidden rows' gradient alone: one pass, where a recomputation takes
    the product with W a third time. W takes no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, cross_entropy: Callable[..., None]
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        rows = hidden.shape[0]
        losses = hidden.new_empty(rows, dtype=torch.float32)
        gradient = torch.empty_like(hidden, dtype=torch.float32) if wanted else None
        scale = HALF_SCALE if weight.dtype == torch.float16 else 1.0
        size = max(1, _LOGITS // weight.shape[0])
        for start in range(0, rows, size):
            piece = slice(start, start + size)
            logits = hidden[piece].detach().to(weight.dtype) @ weight.t()
            cross_entropy(logits, targets[piece], scale, losses[piece])
            if gradient is not None:
                gradient[piece] = logits @ weight
            del logits
        if gradient is not None:
            ctx.save_for_backward(gradient.div_(scale))
        ctx.dtype = hidden.dtype
        return losses.sum()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * d_total).to(ctx.dtype), None, None, None
