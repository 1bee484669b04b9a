"""The second half of a decoder layer: o_proj, norm and MLP, row by row."""

from typing import NamedTuple

import torch
from torch import Tensor

from medqlora.fused.group import Group, held_gradient
from medqlora.fused.kernels.elementwise import Elementwise
from medqlora.fused.kernels.swiglu_lora import fits, swiglu_backward_and_sums
from medqlora.fused.seeds import Seed, plus


class HalfSaved(NamedTuple):
    """The saved tensors of the second half at R rows; `low` of a group is its input times Aᵀ.

    Attributes:
        attended: [R, H d], o_proj's input.
        middle: [R, D], the residual stream between the halves.
        gate_up: [R, 2 F + tail]: the backward overwrites it with its gradient.
        low_o, low_gate_up: [R, ranks].
        low_down: [R, ranks]; None if down_proj didn't run.
        normed: [R, D], gate|up's input; None where the backward computes it again.
    """

    attended: Tensor
    middle: Tensor
    gate_up: Tensor
    low_o: Tensor
    low_gate_up: Tensor
    low_down: Tensor | None
    normed: Tensor | None


class MLPHalf:
    """o_proj plus residual; then norm, gate|up, SwiGLU and down_proj plus residual.

    Args:
        o, gate_up, down: the weight groups.
        norm: the weight [D] and epsilon of the norm before gate|up.
        seed: the offset of its groups' dropout seeds from the pass's seed.
        keeps: saves the norm's output for the backward.
    """

    def __init__(
        self,
        o: Group,
        gate_up: Group,
        down: Group,
        norm: tuple[Tensor, float],
        seed: int,
        *,
        keeps: bool = False,
    ) -> None:
        self.keeps = keeps
        self.o, self.gate_up, self.down = o, gate_up, down
        self.norm_weight, self.eps = norm
        self._seed = seed

    @property
    def groups(self) -> list[Group]:
        return [self.o, self.gate_up, self.down]

    def _seeds(self, seed: Seed | None) -> list[Seed | None]:
        return [plus(seed, self._seed + number) for number in (0, 1, 3)]

    def forward(
        self,
        attended: Tensor,
        x: Tensor,
        seed: Seed | None,
        functions: Elementwise,
        *,
        operand: Tensor | None = None,
        spare: bool = False,
        full: bool = True,
    ) -> tuple[Tensor, HalfSaved]:
        """The layer's output [R, D] from `attended` [R, H d] and the layer's input x [R, D].

        Args:
            attended: the attention's output.
            x: the layer's input.
            seed: of the dropout.
            functions: plain or compiled.
            operand: of `o`, [R, H d + tail], if `attended` are its first columns.
            spare: the residual stream may overwrite `x`.
            full: False stops before down_proj, whose output a recomputation doesn't need; the first result is then
                `middle`.
        """
        seed_o, seed_gate_up, seed_down = self._seeds(seed)
        rows = x.shape[0]
        shared = operand is not None
        if operand is None:
            operand = self.o.operand(rows, x)
            operand[:, : self.o.inputs].copy_(attended)
        middle, low_o = self.o.forward(operand, seed_o, x, spare=spare, kept=shared)
        operand = self.gate_up.operand(rows, x)
        residual = torch.empty_like(middle) if full else None
        normed = operand[:, : self.gate_up.inputs]
        functions.rms_norm(middle, self.norm_weight, self.eps, normed, residual)
        gate_up, low_gate_up = self.gate_up.forward(operand, seed_gate_up, tailed=True, kept=self.keeps)
        kept = normed if self.keeps else None
        saved = HalfSaved(attended, middle, gate_up, low_o, low_gate_up, None, kept)
        del normed, operand, kept  # before the next operand is allocated
        if not full:
            return middle, saved
        operand = self.down.operand(rows, x)
        functions.swiglu(gate_up[:, : self.gate_up.outputs], operand[:, : self.down.inputs])
        y, low_down = self.down.forward(operand, seed_down, residual, spare=True)
        return y, saved._replace(low_down=low_down)

    def backward(
        self,
        dy: Tensor,
        saved: HalfSaved,
        seed: Seed | None,
        functions: Elementwise,
        *,
        gradient: Tensor | None = None,
        accumulate: bool = False,
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """The gradients of `attended`, of the residual x, and of LoRA in the order of `groups`.

        Args:
            dy: of the layer's output.
            saved: from `forward`.
            seed: of the dropout.
            functions: plain or compiled.
            gradient: the gradient operand of `down`, if dy are its first columns.
            accumulate: as in `Group.weight_gradients`.
        """
        seed_o, seed_gate_up, _ = self._seeds(seed)
        rows = dy.shape[0]
        if gradient is None:
            gradient = self.down.gradient_operand(rows, dy)
            gradient[:, : self.down.outputs].copy_(dy)
        of_down, added = self._backward_to_gate_up(gradient, saved, seed, functions, accumulate)
        del gradient
        d_gate_up, normed = saved.gate_up, saved.normed
        self.gate_up.compress_gradient(d_gate_up)
        d_normed = self.gate_up.input_gradient(d_gate_up, seed_gate_up)
        if normed is None:
            normed = torch.empty_like(saved.middle)
            functions.rms_norm(saved.middle, self.norm_weight, self.eps, normed)
        of_gate_up = self.gate_up.weight_gradients(
            d_gate_up, normed, saved.low_gate_up, seed_gate_up, accumulate=accumulate, with_b=not added
        )
        del d_gate_up, normed
        d_middle = self.o.gradient_operand(rows, dy)
        d_x = d_middle[:, : self.o.outputs]
        functions.rms_norm_backward(saved.middle, self.norm_weight, self.eps, d_normed, dy, d_x)
        self.o.compress_gradient(d_middle)
        d_attended = self.o.input_gradient(d_middle, seed_o)
        of_o = self.o.weight_gradients(d_middle, saved.attended, saved.low_o, seed_o, accumulate=accumulate)
        return d_attended, d_x, [*of_o, *of_gate_up, *of_down]

    def _backward_to_gate_up(
        self,
        gradient: Tensor,
        saved: HalfSaved,
        seed: Seed | None,
        functions: Elementwise,
        accumulate: bool,
    ) -> tuple[list[Tensor | None], bool]:
        """Overwrites `saved.gate_up` with its gradient, from the gradient operand of `down`.

        Returns:
            The gradients of down's LoRA, and whether those of gate|up's B are added to `.grad` already.
        """
        seed_down, low = self._seeds(seed)[2], saved.low_down
        self.down.compress_gradient(gradient)
        # saves memory: the layer's two largest activations are overwritten by their gradients
        values = saved.gate_up[:, : self.gate_up.outputs]
        torch.autograd.graph.increment_version(saved.gate_up)  # a second backward over them raises
        # holds the product's gradient until `swiglu_backward`
        product = self.down.input_gradient(gradient, seed_down)
        if accumulate and low is not None and self._in_one_pass(gradient, seed):
            self.down.add_to_b(gradient, low)
            (gate, _, _), (up, _, _) = self.gate_up.adapters
            ((down, _, _),) = self.down.adapters
            held = (held_gradient(gate.b), held_gradient(up.b), held_gradient(down.a))
            d_low = gradient[:, self.down.outputs :]
            swiglu_backward_and_sums(values, product, saved.low_gate_up, d_low, held, down.scaling)
            return [None] * len(self.down.parameters), True
        functions.swiglu_backward(values, product, values, product)
        if low is None:
            low = product.new_empty(len(product), self.down.tail)
            if self.down.tail:
                self.down.compress(product, seed_down, low)
        of_down = self.down.weight_gradients(gradient, product, low, seed_down, accumulate=accumulate)
        return of_down, False

    def _in_one_pass(self, like: Tensor, seed: Seed | None) -> bool:
        """Whether LoRA's products run in the kernels of SwiGLU: gate, up and down have an adapter of the same rank."""
        _, seed_gate_up, seed_down = self._seeds(seed)
        ranks = [
            adapter.a.shape[0] for group in (self.gate_up, self.down) for adapter, _, _ in group.adapters
        ]
        return (
            like.is_cuda
            and like.dtype != torch.float32
            and self.gate_up.active
            and len(ranks) == 3
            and len(self.down.adapters) == 1
            and fits(self.down.inputs, ranks)
            and not self.gate_up.drops(seed_gate_up)
            and not self.down.drops(seed_down)
        )
