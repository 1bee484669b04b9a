"""Embedding and head in host memory: saves an eighth to a third of a 4-bit model's bytes, and costs time.

The host gathers the embedding's rows and sends them; the head is streamed through the device piece by piece.
Results equal those of weights on the device.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from medqlora.models.layers import base_model

#: values of the head that are on the device at one time: 67 MB in half precision
PIECE_VALUES = 1 << 25


class HostEmbedding(nn.Embedding):
    """An embedding whose weight stays on the host and reads its ids there.

    The weight is no parameter, so moving the model to a device leaves it on the host.
    """

    weight: Tensor

    def gather(self, ids: Tensor, device: torch.device) -> Tensor:
        """[T, D] on `device`, for ids [T] on the host; the host doesn't wait for the copy."""
        pinned = device.type == "cuda"
        rows = torch.empty(len(ids), self.weight.shape[1], dtype=self.weight.dtype, pin_memory=pinned)
        torch.index_select(self.weight, 0, ids, out=rows)
        return rows.to(device, non_blocking=pinned)

    def forward(self, input: Tensor) -> Tensor:
        rows = self.gather(input.flatten().cpu(), input.device)
        return rows.view(*input.shape, -1)


class HostHead(nn.Linear):
    """A head whose weight stays on the host and is streamed to its input's device."""

    weight: Tensor

    def pieces(self, device: torch.device) -> Iterator[tuple[int, Tensor]]:
        """(first row, rows of the weight on `device`), in order; one at a time is meant to live."""
        size = max(2, PIECE_VALUES // self.weight.shape[1])
        for start in range(0, self.weight.shape[0], size):
            yield start, self.weight[start : start + size].to(device, non_blocking=True)

    def forward(self, input: Tensor) -> Tensor:
        if input.device == self.weight.device:
            return F.linear(input, self.weight)
        return _Streamed.apply(input, self)


class _HeadContext(FunctionCtx):
    head: HostHead


class _Streamed(torch.autograd.Function):
    """x Wᵀ in pieces of W's rows; the backward streams them again. W gets no gradient."""

    @staticmethod
    def forward(ctx: _HeadContext, x: Tensor, head: HostHead) -> Tensor:
        ctx.head = head
        out = x.new_empty(*x.shape[:-1], head.weight.shape[0])
        for start, piece in head.pieces(x.device):
            out[..., start : start + len(piece)] = x @ piece.t().to(x.dtype)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: _HeadContext, d_out: Tensor) -> tuple[Tensor, None]:
        total: Tensor | None = None
        for start, piece in ctx.head.pieces(d_out.device):
            part = (d_out[..., start : start + len(piece)] @ piece.to(d_out.dtype)).float()
            total = part if total is None else total.add_(part)
        assert total is not None
        return total.to(d_out.dtype), None


def to_host(model: nn.Module, *, embedding: bool, head: bool, pinned: bool = False) -> None:
    """Moves the embedding's weight, the head's, or both to the host, where they aren't already.

    The modules stay the same objects and keep their hooks. A head that is tied to the embedding keeps the shared weight
    on the device unless both are moved.

    Args:
        model: a transformers causal language model, or a PEFT model around one.
        pinned: use pinned memory, which a GPU reads directly, although the model isn't on one yet.

    Raises:
        TypeError: a module is of another type, or has a bias.
    """
    base = base_model(model)
    chosen: list[tuple[nn.Module, type[nn.Module], type[nn.Module]]] = []
    if embedding:
        chosen.append((base.get_input_embeddings(), nn.Embedding, HostEmbedding))
    if head:
        chosen.append((base.get_output_embeddings(), nn.Linear, HostHead))
    moved: dict[int, Tensor] = {}
    for module, kind, hosted in chosen:
        if type(module) is hosted:
            continue
        if type(module) is not kind or getattr(module, "bias", None) is not None:
            raise TypeError(
                f"its {type(module).__name__} can't stay on the host: only {kind.__name__} without bias can"
            )
        weight = module.get_parameter("weight")
        del module.weight
        if id(weight) not in moved:
            on_host = weight.detach().cpu()
            moved[id(weight)] = on_host.pin_memory() if weight.is_cuda or pinned else on_host
        module.__class__ = hosted
        object.__setattr__(module, "weight", moved[id(weight)])
