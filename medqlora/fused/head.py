"""The loss of the output head in pieces, so that the logits never exist all at once."""

from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medqlora.fused.group import product
from medqlora.fused.kernels.elementwise import CrossEntropy
from medqlora.models.host_weights import HostHead

#: logits per piece: 512 rows of Llama-3's vocabulary, 131 MB in half precision
PIECE_LOGITS = 1 << 26
#: the factor on float16 probabilities during the product with the head: without it small ones underflow to 0
_HALF_SCALE = 1024.0


class _Context(Protocol):
    """The autograd context of both functions below; `dtype` is the hidden states'."""

    dtype: torch.dtype
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class HeadLoss(torch.autograd.Function):
    """Σ −w log softmax(h Wᵀ)[target] over rows.

    `apply(hidden [R, D], weight [V, D], targets [R], cross_entropy, weights)`; w is 1, or `weights` [R] float32.

    A row with a target below 0 adds nothing.

    The logits' gradient, softmax − one-hot, needs the logits only. So the forward multiplies each piece back
    through W and saves only the gradient of the hidden rows. A recomputation would need the product with W
    a third time. W receives no gradient.
    """

    @staticmethod
    def forward(
        ctx: _Context,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        cross_entropy: CrossEntropy,
        weights: Tensor | None = None,
    ) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        rows = hidden.shape[0]
        losses = hidden.new_empty(rows, dtype=torch.float32)
        gradient = torch.empty_like(hidden, dtype=torch.float32) if needs_gradient else None
        scale = _HALF_SCALE if weight.dtype == torch.float16 else 1.0
        size = max(1, PIECE_LOGITS // weight.shape[0])
        for start in range(0, rows, size):
            piece = slice(start, start + size)
            logits = hidden[piece].detach().to(weight.dtype) @ weight.t()
            cross_entropy(logits, targets[piece], scale, losses[piece])
            if gradient is not None:
                gradient[piece] = logits @ weight
            del logits
        if gradient is not None:
            gradient.div_(scale)
            ctx.save_for_backward(gradient if weights is None else gradient.mul_(weights[:, None]))
        ctx.dtype = hidden.dtype
        return losses.sum() if weights is None else losses @ weights

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: _Context, d_total: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * d_total).to(ctx.dtype), None, None, None, None


class HostHeadLoss(torch.autograd.Function):
    """Σ −w log softmax(h Wᵀ)[target] over rows: `apply(hidden [R, D], head, targets [R], weights)`, as `HeadLoss`.

    A row with a target below 0 adds nothing.

    W stays in host memory and is streamed once: each piece updates the sums over the vocabulary, as in online
    softmax (Milakov and Gimelshein, 2018, https://arxiv.org/abs/1805.02867). With l the logits, t the target's
    logit and s = log Σ exp l over all others, the loss is log(1 + exp(s − t)) and its gradient
    σ(s − t) · (Σ softmax(l of the others) W − W[target]): no cancellation for a nearly certain target.
    """

    @staticmethod
    def forward(
        ctx: _Context, hidden: Tensor, head: HostHead, targets: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        x = hidden.detach().to(head.weight.dtype)
        scale = _HALF_SCALE if x.dtype == torch.float16 else 1.0
        top = x.new_full((len(x), 1), -torch.inf, dtype=torch.float32)
        total, of_target = torch.zeros_like(top), torch.zeros_like(top)
        mean = torch.zeros_like(x, dtype=torch.float32)
        target_rows = torch.zeros_like(x)
        for start, piece in head.pieces(x.device):
            logits = (x @ piece.t()).float()
            place = (targets - start)[:, None]
            here = (place >= 0) & (place < len(piece))
            place = place.clamp(0, len(piece) - 1)
            own = logits.gather(1, place)
            of_target = torch.where(here, own, of_target)
            target_rows = torch.where(here, piece[place[:, 0]], target_rows)
            logits.scatter_(1, place, torch.where(here, -torch.inf, own))
            higher = torch.maximum(top, logits.amax(1, keepdim=True))
            # before the first piece the maximum is -inf, and the factor 0
            before = torch.exp(top - higher)
            logits.sub_(higher).exp_()
            total.mul_(before).add_(logits.sum(1, keepdim=True))
            mean.mul_(before).add_(product(logits.mul_(scale).to(x.dtype), piece))
            top = higher
            del logits, piece, own
        margin = top + total.log() - of_target
        counts = (targets >= 0)[:, None]
        if ctx.needs_input_grad[0]:
            slope = torch.sigmoid(margin).where(counts, 0.0)
            gradient = mean.div_(total * scale).sub_(target_rows.float()).mul_(slope)
            ctx.save_for_backward(gradient if weights is None else gradient.mul_(weights[:, None]))
        ctx.dtype = hidden.dtype
        losses = torch.nn.functional.softplus(margin).where(counts, 0.0)
        return losses.sum() if weights is None else losses[:, 0] @ weights

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: _Context, d_total: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * d_total).to(ctx.dtype), None, None, None
