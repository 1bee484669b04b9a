"""The head's loss while its weight stays in host memory: one pass over the pieces that are streamed."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medqlora.fused.group import product
from medqlora.fused.head import HALF_SCALE
from medqlora.models.host_weights import HostHead


class HostHeadLoss(torch.autograd.Function):
    """Σ −log softmax(h Wᵀ)[target] over rows: `apply(hidden [R, D], head, targets [R])`.

    As in attention (Milakov and Gimelshein, 2018, https://arxiv.org/abs/1805.02867) the sums over the vocabulary
    are brought up to date with each piece of W, so that it is streamed once. With l the logits, t the target's
    and s = log Σ exp l over all others, the loss is log(1 + exp(s − t)), and its gradient
    σ(s − t) · (Σ softmax(l of the others) W − W[target]): nothing cancels where the target is nearly certain.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: HostHead, targets: Tensor) -> Tensor:
        x = hidden.detach().to(head.weight.dtype)
        scale = HALF_SCALE if x.dtype == torch.float16 else 1.0
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
            # the first piece is the only one before which there is no maximum
            before = torch.exp(top - higher)
            logits.sub_(higher).exp_()
            total.mul_(before).add_(logits.sum(1, keepdim=True))
            mean.mul_(before).add_(product(logits.mul_(scale).to(x.dtype), piece))
            top = higher
            del logits, piece, own
        margin = top + total.log() - of_target
        if ctx.needs_input_grad[0]:
            gradient = mean.div_(total * scale).sub_(target_rows.float()).mul_(torch.sigmoid(margin))
            ctx.save_for_backward(gradient)
        ctx.dtype = hidden.dtype
        return torch.nn.functional.softplus(margin).sum()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * d_total).to(ctx.dtype), None, None
