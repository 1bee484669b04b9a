"""One decoder layer, forward and backward, as a single node of the autograd graph."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from medqlora.compat.torch import foreach_add_
from medqlora.fused.attention import Attended
from medqlora.fused.attention_half import AttentionHalf, AttentionSaved, Heads
from medqlora.fused.group import Group, Projection
from medqlora.fused.mlp_half import HalfSaved, MLPHalf
from medqlora.fused.projections import norm_of, projection
from medqlora.fused.step import Step

#: what of a layer waits for the backward
Keep = Literal["all", "input", "offload"]
#: of each layer's dropout masks: one for each of its seven projections
_SEEDS_A_LAYER = 8


class Layer:
    """A layer of a transformers decoder, on its own path over the same weights.

    Args:
        module: the model's `…DecoderLayer`.
        number: its place in the decoder.
        last: everything behind the attention, and q, run at the selected rows alone.
        dtype: what it computes in.
        cached: its weights stay dequantized.
        whole: entered while its weights are used, forward or backward; of a base that is spread over processes.
    """

    def __init__(
        self,
        module: Any,
        number: int,
        *,
        last: bool,
        dtype: torch.dtype,
        cached: bool = False,
        whole: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        attention, mlp = module.self_attn, module.mlp
        names = ("q_proj", "k_proj", "v_proj")
        q, k, v = (projection(getattr(attention, name)) for name in names)
        width: int = attention.head_dim
        q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        heads = Heads(
            q.linear.out_features // width,
            k.linear.out_features // width,
            width,
            None if q_norm is None else q_norm.weight,
            None if k_norm is None else k_norm.weight,
            1e-6 if q_norm is None else q_norm.variance_epsilon,
        )
        seed = number * _SEEDS_A_LAYER

        def group(*projections: Projection) -> Group:
            return Group(projections, dtype, cached=cached)

        groups = (group(q), group(k, v)) if last else (group(q, k, v),)
        self.first = AttentionHalf(groups, norm_of(module.input_layernorm), heads, seed)
        self.second = MLPHalf(
            group(projection(attention.o_proj)),
            group(projection(mlp.gate_proj), projection(mlp.up_proj)),
            group(projection(mlp.down_proj)),
            norm_of(module.post_attention_layernorm),
            seed + 3,
        )
        self.last = last
        self.whole = whole

    @property
    def groups(self) -> list[Group]:
        return self.first.groups + self.second.groups

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The LoRA weights, in the order of `backward`'s gradients."""
        return [parameter for group in self.groups for parameter in group.parameters]

    def forward(
        self, x: Tensor, step: Step, *, whole: bool = True
    ) -> tuple[Tensor, tuple[AttentionSaved, HalfSaved]]:
        """The output [T, D] ([R, D] of the last layer) of x [T, D]; `whole=False` stops before down_proj."""
        attended, of_first = self.first.forward(x, step)
        residual = x
        if self.last:
            attended, residual = attended[step.selection.places], x[step.selection.rows]
        y, of_second = self.second.forward(attended, residual, step.seed, step.functions, whole=whole)
        return y, (of_first, of_second)

    def backward(
        self, dy: Tensor, x: Tensor, saved: tuple[AttentionSaved, HalfSaved], step: Step, *, needs_x: bool
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """x's gradient (None unless `needs_x`) and those of `parameters`."""
        of_first, of_second = saved
        d_attended, d_residual, of_lora = self.second.backward(dy, of_second, step.seed, step.functions)
        if self.last:
            selection = step.selection
            whole = d_attended.new_zeros(of_first.q.shape[0], d_attended.shape[1])
            d_attended = whole.index_add_(0, selection.places, d_attended)
        d_normed, of_qkv = self.first.backward(d_attended, x, of_first, step, needs_x=needs_x)
        d_x = None
        if d_normed is not None:
            d_x = torch.empty_like(x)
            residual = None if self.last else d_residual
            step.functions.rms_norm_backward(
                x, self.first.norm_weight, self.first.eps, d_normed, residual, d_x
            )
            if self.last:
                d_x.index_add_(0, step.selection.rows, d_residual)
        return d_x, of_qkv + of_lora


class LayerFunction(torch.autograd.Function):
    """`Layer` in the graph: `apply(x, layer, step, keep, *layer.parameters)`.

    With `keep` "all" the layer's activations are kept; with "input" x alone, and the layer runs again in the
    backward but for down_proj; with "offload" x waits for that in host memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, step: Step, keep: Keep, *parameters: Tensor) -> Tensor:
        with layer.whole():
            y, saved = layer.forward(x.detach(), step)
        ctx.layer, ctx.step, ctx.keep, ctx.device = layer, step, keep, x.device
        kept = _to_host(x) if keep == "offload" else x
        ctx.save_for_backward(kept, *(_flatten(*saved) if keep == "all" else ()))
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        layer, step = ctx.layer, ctx.step
        x, *flat = ctx.saved_tensors
        # compiled functions would be compiled again for a tensor that has a graph
        x = x.detach().to(ctx.device, non_blocking=True)
        with torch.autocast(x.device.type, enabled=False), layer.whole():
            saved = _unflatten(flat) if ctx.keep == "all" else layer.forward(x, step, whole=False)[1]
            d_x, gradients = layer.backward(dy, x, saved, step, needs_x=ctx.needs_input_grad[0])
            if step.accumulate:
                _add(layer.parameters, gradients)
                gradients = [None] * len(gradients)
        return d_x, None, None, None, *gradients


def _add(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Adds gradients where they belong: those that lie together in memory in one launch."""
    together: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        held = parameter.grad
        assert held is not None, "a gradient to add to was asked for, and there is none"
        if gradient.is_contiguous():
            together[0].append(held)
            together[1].append(gradient)
        else:
            held.add_(gradient)
    if together[0]:
        foreach_add_(*together)


def _to_host(x: Tensor) -> Tensor:
    """A copy in host memory, which the device makes in its own time: on one stream, so x may go at once."""
    host = torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=x.device.type == "cuda")
    return host.copy_(x.detach(), non_blocking=True)


def _flatten(first: AttentionSaved, second: HalfSaved) -> list[Tensor | None]:
    q, k, v, attended, low, raw_q, raw_k = first
    padded = low if len(low) == 2 else (*low, None)
    return [q, k, v, *attended, *padded, raw_q, raw_k, *second]


def _unflatten(flat: list[Any]) -> tuple[AttentionSaved, HalfSaved]:
    q, k, v, out, logsumexp, random_state, low, low_kv, raw_q, raw_k, *second = flat
    lows = (low,) if low_kv is None else (low, low_kv)
    first = AttentionSaved(q, k, v, Attended(out, logsumexp, random_state), lows, raw_q, raw_k)
    return first, HalfSaved(*second)
