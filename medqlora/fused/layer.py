"""One decoder layer, forward and backward, as a single node of the autograd graph."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from medqlora.compat.torch import foreach_add_
from medqlora.fused.attention_half import AttentionHalf, AttentionSaved, Heads
from medqlora.fused.families import Family
from medqlora.fused.group import Group
from medqlora.fused.kernels.attention import Attended
from medqlora.fused.mlp_half import HalfSaved, MLPHalf
from medqlora.fused.modules import DecoderLayer, linear_module, read_norm, read_projection
from medqlora.fused.step import Step

#: the saved tensors of a layer: all, its input, or its input in host memory
Keep = Literal["all", "input", "offload"]
#: projections with the same input, dequantized together
WEIGHT_GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
#: dropout seeds reserved per layer: one per projection needs seven
_SEEDS_PER_LAYER = 8


class Layer:
    """A layer of a transformers decoder: the same weights, run by the engine's own code.

    Args:
        module: the model's `…DecoderLayer`.
        index: of the layer in the decoder.
        family: of the model.
        last: the last layer: q, and everything after the attention, run at the selected rows only.
        dtype: of the computation.
        cached: its weights stay dequantized.
        keeps: saves the norms' outputs for the backward: less work for more memory.
        window: of its attention, see `AttentionHalf`.
        adapted: with the active adapter, see `read_projection`.
        gathered: a context in which a sharded base's layer has all its weights, for forward and backward.
    """

    def __init__(
        self,
        module: DecoderLayer,
        index: int,
        *,
        family: Family,
        last: bool,
        dtype: torch.dtype,
        cached: bool = False,
        keeps: bool = False,
        window: int | None = None,
        adapted: bool = True,
        gathered: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        def group(*names: str) -> Group:
            projections = [read_projection(linear_module(module, name), adapted=adapted) for name in names]
            return Group(projections, dtype, cached=cached)

        qkv, o, gate_up, down = WEIGHT_GROUPS
        attention = module.self_attn
        width = attention.head_dim
        q, k = (read_projection(linear_module(module, name)).linear for name in qkv[:2])
        heads = Heads(
            q.out_features // width,
            k.out_features // width,
            width,
            attention.q_norm.weight if family.head_norms else None,
            attention.k_norm.weight if family.head_norms else None,
            attention.q_norm.variance_epsilon if family.head_norms else 1e-6,
        )
        seed = index * _SEEDS_PER_LAYER
        groups = (group(*qkv[:1]), group(*qkv[1:])) if last else (group(*qkv),)
        norm = read_norm(module.input_layernorm)
        self.first = AttentionHalf(groups, norm, heads, seed, window, keeps=keeps)
        norm = read_norm(module.post_attention_layernorm)
        self.second = MLPHalf(group(*o), group(*gate_up), group(*down), norm, seed + 3, keeps=keeps)
        self.index = index
        self.last = last
        self.gathered = gathered

    @property
    def groups(self) -> list[Group]:
        return self.first.groups + self.second.groups

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The LoRA weights, in the order of `backward`'s gradients."""
        return [parameter for group in self.groups for parameter in group.parameters]

    def forward(
        self, x: Tensor, step: Step, *, full: bool = True
    ) -> tuple[Tensor, tuple[AttentionSaved, HalfSaved]]:
        """The output [T, D] ([R, D] of the last layer) of x [T, D]; `full=False` stops before down_proj."""
        operand: Tensor | None = None
        o = self.second.o
        if self.last:
            attended, first = self.first.forward(x, step)
            attended, residual = attended[step.selection.places], x[step.selection.rows]
        else:  # the attention writes where o_proj reads
            operand, residual = o.operand(len(x), x), torch.empty_like(x)
            place = operand[:, : o.inputs]
            attended, first = self.first.forward(x, step, place, residual)
            if attended is not place:
                operand = None
        y, second = self.second.forward(
            attended, residual, step.seed, step.functions, operand=operand, spare=True, full=full
        )
        return y, (first, second)

    def backward(
        self,
        dy: Tensor,
        x: Tensor,
        saved: tuple[AttentionSaved, HalfSaved] | None,
        step: Step,
        *,
        needs_x: bool,
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradients of x (None unless `needs_x`) and of `parameters`; without `saved`, recomputes it."""
        first, second = self.forward(x, step, full=False)[1] if saved is None else saved
        down = self.second.down
        d_attended, d_residual, of_second = self.second.backward(
            dy,
            second,
            step.seed,
            step.functions,
            gradient=step.widened.take(dy, down.outputs + down.tail),
            accumulate=step.accumulate,
        )
        del second  # before the attention's backward allocates
        step.inputs.prepare(self.index - 1, x.device)
        if self.last:
            selection = step.selection
            of_queries = d_attended.new_zeros(first.q.shape[0], d_attended.shape[1])
            d_attended = of_queries.index_add_(0, selection.places, d_attended)
        d_normed, of_first = self.first.backward(d_attended, x, first, step, needs_x=needs_x)
        d_x = None
        if d_normed is not None:
            # the layer below reads it as an operand of its down_proj, if that has as many ranks
            d_x = step.widened.give(down.gradient_operand(len(x), x), x.shape[1])
            residual = None if self.last else d_residual
            step.functions.rms_norm_backward(
                x, self.first.norm_weight, self.first.eps, d_normed, residual, d_x
            )
            if self.last:
                d_x.index_add_(0, step.selection.rows, d_residual)
        return d_x, of_first + of_second


class _Context(Protocol):
    """The autograd context of `LayerFunction`."""

    layer: Layer
    step: Step
    keep: Keep
    device: torch.device
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


class LayerFunction(torch.autograd.Function):
    """`Layer` in the graph: `apply(x, layer, step, keep, *layer.parameters)`; any input instead if `step.accumulate`.

    `keep` "all" saves the layer's activations. "input" saves x only, and the backward recomputes the layer up to
    down_proj. "offload" does the same with x in host memory.
    """

    @staticmethod
    def forward(
        ctx: _Context, x: Tensor, layer: Layer, step: Step, keep: Keep, *parameters: Tensor
    ) -> Tensor:
        # before the layer's work: the copy runs beside it
        kept = step.inputs.put(layer.index, x.detach()) if keep == "offload" else None
        with layer.gathered():
            y, saved = layer.forward(x.detach(), step)
        ctx.layer, ctx.step, ctx.keep, ctx.device = layer, step, keep, x.device
        ctx.save_for_backward(x if kept is None else kept, *(_flatten(*saved) if keep == "all" else ()))
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator,unused-ignore]
    def backward(ctx: _Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        layer, step = ctx.layer, ctx.step
        x, *flat = ctx.saved_tensors
        # a tensor with a graph would make torch.compile compile the functions once more
        x = step.inputs.get(layer.index, x, ctx.device) if ctx.keep == "offload" else x.detach()
        with torch.autocast(x.device.type, enabled=False), layer.gathered():
            saved = _unflatten(flat) if ctx.keep == "all" else None
            d_x, gradients = layer.backward(dy, x, saved, step, needs_x=ctx.needs_input_grad[0])
            if step.accumulate:
                _add(layer.parameters, gradients)
                gradients = [None]
        return d_x, None, None, None, *gradients


def _add(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Adds gradients to `.grad`; contiguous ones in one launch."""
    targets: list[Tensor] = []
    sources: list[Tensor] = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        held = parameter.grad
        assert held is not None, "accumulate needs a gradient tensor on every parameter"
        if gradient.is_contiguous():
            targets.append(held)
            sources.append(gradient)
        else:
            held.add_(gradient)
    if targets:
        foreach_add_(targets, sources)


def _flatten(first: AttentionSaved, second: HalfSaved) -> list[Tensor | None]:
    q, k, v, attended, low, *others = first
    padded = low if len(low) == 2 else (*low, None)
    return [q, k, v, *attended, *padded, *others, *second]


def _unflatten(flat: list[Tensor]) -> tuple[AttentionSaved, HalfSaved]:
    q, k, v, out, logsumexp, random_state, low, low_kv, raw_q, raw_k, normed, *second = flat
    lows = (low,) if low_kv is None else (low, low_kv)
    first = AttentionSaved(q, k, v, Attended(out, logsumexp, random_state), lows, raw_q, raw_k, normed)
    return first, HalfSaved(*second)
