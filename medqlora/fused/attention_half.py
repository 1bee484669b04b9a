"""The first half of a decoder layer: norm, q|k|v, rotary positions, attention."""

from typing import NamedTuple

import torch
from torch import Tensor

from medqlora.fused.group import Group
from medqlora.fused.kernels.attention import (
    Attended,
    BeforeRotation,
    Segments,
    attend,
    attend_backward,
)
from medqlora.fused.seeds import Seed, plus
from medqlora.fused.step import Selection, Step


class Heads(NamedTuple):
    """The heads of a layer's attention.

    Attributes:
        queries, keys: number of query heads, and of key (and value) heads.
        width: of a head.
        q_norm, k_norm: weights [width] of the head norms before the rotation; None without.
        eps: of these norms.
    """

    queries: int
    keys: int
    width: int
    q_norm: Tensor | None
    k_norm: Tensor | None
    eps: float


class AttentionSaved(NamedTuple):
    """The saved tensors of the first half: T tokens, Q queries.

    Attributes:
        q: [Q, H, d], rotated.
        k, v: [T, H_kv, d].
        attended: the attention's output and state.
        low: the input of each group times Aᵀ.
        raw_q, raw_k: q and k before norm and rotation; None without head norms.
        normed: [T, D], the input of the groups; None where the backward computes it again.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    attended: Attended
    low: tuple[Tensor, ...]
    raw_q: Tensor | None
    raw_k: Tensor | None
    normed: Tensor | None


class Projected(NamedTuple):
    """The inputs of the attention of T tokens and Q queries.

    Attributes:
        q, k, v: [Q, H, d] and [T, H_kv, d]; q and k rotated, v a view.
        lows: the input of each group times Aᵀ.
        raw_q, raw_k: q and k before norm and rotation; without a norm they are rotated in place.
        normed: the input of the last group.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    lows: tuple[Tensor, ...]
    raw_q: Tensor
    raw_k: Tensor
    normed: Tensor


class AttentionHalf:
    """q|k|v as one group; in the last layer q and k|v, because q runs at fewer rows.

    Args:
        groups: (q|k|v,) or (q, k|v).
        norm: the weight [D] and epsilon of the norm before them.
        heads: of their outputs.
        seed: the offset of its groups' dropout seeds from the pass's seed.
        window: tokens that a query sees, itself included; None for all before it. The backward has no window.
        keeps: saves the norm's output for the backward, unless q is a group of its own.
    """

    def __init__(
        self,
        groups: tuple[Group, ...],
        norm: tuple[Tensor, float],
        heads: Heads,
        seed: int,
        window: int | None = None,
        *,
        keeps: bool = False,
    ) -> None:
        self.keeps = keeps and len(groups) == 1
        self.groups = list(groups)
        self.norm_weight, self.eps = norm
        self.heads = heads
        self.window = window
        self._seed = seed

    def _seeds(self, seed: Seed | None) -> list[Seed | None]:
        return [plus(seed, self._seed + number) for number in range(len(self.groups))]

    def _bounds(self, step: Step) -> tuple[Selection | None, Segments, Tensor, Tensor]:
        """The selection if q is a group of its own, the segments, and cos and sin of the queries."""
        if len(self.groups) == 1:
            return None, step.segments, step.cos, step.sin
        chosen = step.selection
        if chosen.queries is None:
            return chosen, chosen.segments, step.cos, step.sin
        return chosen, chosen.segments, step.cos[chosen.queries], step.sin[chosen.queries]

    def project(self, x: Tensor, step: Step, copy: Tensor | None = None) -> Projected:
        """q [Q, H, d] and k [T, H_kv, d], rotated, and v, from the layer's input x [T, D]; `copy` becomes one of x."""
        heads, functions = self.heads, step.functions
        selection, _, cos, sin = self._bounds(step)
        operand = self.groups[-1].operand(x.shape[0], x)
        normed = operand[:, : self.groups[-1].inputs]
        functions.rms_norm(x, self.norm_weight, self.eps, normed, copy)
        seeds = self._seeds(step.seed)
        if selection is None:
            out, low = self.groups[0].forward(operand, seeds[0], kept=self.keeps)
            raw_q, raw_kv = out.split((heads.queries * heads.width, 2 * heads.keys * heads.width), 1)
            lows: tuple[Tensor, ...] = (low,)
        else:
            chosen = normed if selection.queries is None else normed[selection.queries]
            mine = self.groups[0].operand(chosen.shape[0], x)
            mine[:, : self.groups[0].inputs].copy_(chosen)
            raw_q, low_q = self.groups[0].forward(mine, seeds[0])
            raw_kv, low_kv = self.groups[1].forward(operand, seeds[1])
            lows = (low_q, low_kv)
        raw_q = raw_q.unflatten(1, (heads.queries, heads.width))
        raw_k, raw_v = raw_kv.unflatten(1, (2 * heads.keys, heads.width)).split(heads.keys, 1)
        if heads.q_norm is None:  # nothing needs them as they were
            both = [raw_q, raw_k]
            if selection is None:
                both = [out[:, : -heads.keys * heads.width].unflatten(1, (-1, heads.width))]
            for part, c, s in zip(both, (cos, step.cos), (sin, step.sin), strict=False):
                functions.rotate(part, c, s, None, heads.eps, part)
            return Projected(raw_q, raw_k, raw_v, lows, raw_q, raw_k, normed)
        q, k = (torch.empty_like(part, memory_format=torch.contiguous_format) for part in (raw_q, raw_k))
        functions.rotate(raw_q, cos, sin, heads.q_norm, heads.eps, q)
        functions.rotate(raw_k, step.cos, step.sin, heads.k_norm, heads.eps, k)
        return Projected(q, k, raw_v, lows, raw_q, raw_k, normed)

    def forward(
        self, x: Tensor, step: Step, out: Tensor | None = None, copy: Tensor | None = None
    ) -> tuple[Tensor, AttentionSaved]:
        """The concatenated outputs of the heads [Q, H d], from the layer's input x [T, D].

        `out` may receive them, and `copy` becomes a copy of x.
        """
        q, k, v, lows, raw_q, raw_k, normed = self.project(x, step, copy)
        normed_heads = self.heads.q_norm is not None
        place = None if out is None else out.unflatten(1, q.shape[1:])
        attended = attend(q, k, v, self._bounds(step)[1], self.window, place)
        saved = AttentionSaved(
            q,
            k,
            v,
            attended,
            lows,
            raw_q if normed_heads else None,
            raw_k if normed_heads else None,
            normed if self.keeps else None,
        )
        return attended.out.flatten(1) if out is None or attended.out is not place else out, saved

    def backward(
        self, d_attended: Tensor, x: Tensor, saved: AttentionSaved, step: Step, *, needs_x: bool
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """The backward up to the norm.

        Returns:
            The gradient [T, D] of the norm's output (None unless `needs_x`), and of LoRA in the order of `groups`.
        """
        heads, functions = self.heads, step.functions
        selection, segments, cos, sin = self._bounds(step)
        shape = (-1, heads.queries, heads.width)
        tokens, wide_q, wide_kv = x.shape[0], heads.queries * heads.width, heads.keys * heads.width
        if selection is None:
            both = self.groups[0].gradient_operand(tokens, x)
            of_q, of_kv = both[:, :wide_q], both[:, wide_q : wide_q + 2 * wide_kv]
            operands = [both]
        else:
            operands = [
                self.groups[0].gradient_operand(saved.q.shape[0], x),
                self.groups[1].gradient_operand(tokens, x),
            ]
            of_q, of_kv = operands[0][:, :wide_q], operands[1][:, : 2 * wide_kv]
        places = (
            of_q.unflatten(1, shape[1:]),
            of_kv[:, :wide_kv].unflatten(1, saved.k.shape[1:]),
            of_kv[:, wide_kv:].unflatten(1, saved.v.shape[1:]),
        )
        before = None if heads.q_norm is not None else BeforeRotation(*places, cos, sin)
        d_q, d_k, d_v = attend_backward(
            d_attended.reshape(shape), saved.q, saved.k, saved.v, saved.attended, segments, before
        )
        if d_v is not places[2]:
            turns = functions.rotate_backward
            turns(d_q, cos, sin, saved.raw_q, heads.q_norm, heads.eps, places[0])
            turns(d_k, step.cos, step.sin, saved.raw_k, heads.k_norm, heads.eps, places[1])
            places[2].copy_(d_v)
        normed = saved.normed
        if normed is None:
            normed = torch.empty_like(x)
            functions.rms_norm(x, self.norm_weight, self.eps, normed)
        gradients: list[Tensor | None] = []
        result: Tensor | None = None
        # k|v first: its input gradient covers every token, and q's is added at some rows
        for number in reversed(range(len(self.groups))):
            group, operand, seed = self.groups[number], operands[number], self._seeds(step.seed)[number]
            queries = selection.queries if selection is not None and number == 0 else None
            group.compress_gradient(operand)
            inputs = normed if queries is None else normed[queries]
            gradients = (
                group.weight_gradients(operand, inputs, saved.low[number], seed, accumulate=step.accumulate)
                + gradients
            )
            if needs_x:
                part = group.input_gradient(operand, seed)
                if result is None:
                    result = part
                else:
                    result = result.add_(part) if queries is None else result.index_add_(0, queries, part)
        return result, gradients
