"""A group of linear layers that read the same input: one weight, one product, with their LoRA folded in.

With W the layers' weights one under another, A their LoRA inputs likewise (scaled) and B their outputs on
a block diagonal, y = x Wᵀ + (x Aᵀ) Bᵀ is one product [x | x Aᵀ] [W | B]ᵀ, and the input's gradient is
[dy | dy B] [W; A]. So operands are allocated with a tail of columns for what LoRA appends, and W is
dequantized straight into a matrix that has room for B beside it or for A below it. Saved are inputs; W
is dequantized again in the backward.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medqlora.compat.torch import foreach_mul_
from medqlora.fused.dequantize import FourBit


class Adapter(NamedTuple):
    """PEFT's LoRA on one layer.

    Attributes:
        a: [r, in] float32, trained.
        b: [out, r] float32, trained.
        scaling: alpha / r, or alpha / sqrt(r) with rsLoRA.
        dropout: PEFT's own module, which knows whether it is in force.
    """

    a: nn.Parameter
    b: nn.Parameter
    scaling: float
    dropout: nn.Module

    @property
    def drop_rate(self) -> float:
        """The probability with which an input of A is dropped now; 0 outside of training."""
        return float(getattr(self.dropout, "p", 0.0)) if self.dropout.training else 0.0


class Projection(NamedTuple):
    """One linear layer: a bitsandbytes `Linear4bit` and what PEFT put around it."""

    linear: Any
    adapter: Adapter | None


def matrix(rows: int, columns: int, like: Tensor) -> Tensor:
    """An uninitialised [rows, columns] whose rows begin at multiples of 128 bytes (64 values in 16 bits)."""
    return like.new_empty(rows, -(-columns // 64) * 64)[:, :columns]


class Group:
    """Linear layers of one input.

    Args:
        projections: in the order of their outputs.
        dtype: what is multiplied in.
        cached: keep W dequantized, with B beside it and A below it: 16 bits a weight instead of a dequantization
            in every product.
    """

    def __init__(
        self, projections: Sequence[Projection], dtype: torch.dtype, *, cached: bool = False
    ) -> None:
        self.projections = list(projections)
        first = self.projections[0].linear
        self.weights = FourBit([each.linear.weight for each in self.projections])
        device = first.weight.device
        self.inputs: int = first.in_features
        self.sizes: list[int] = [each.linear.out_features for each in self.projections]
        self.outputs = sum(self.sizes)
        #: adapter, its first output and its first place among the group's ranks
        self.adapters: list[tuple[Adapter, int, int]] = []
        start = rank = 0
        for each, size in zip(self.projections, self.sizes, strict=True):
            if each.adapter is not None:
                self.adapters.append((each.adapter, start, rank))
                rank += each.adapter.a.shape[0]
            start += size
        # a row of a half-precision operand has to begin at a multiple of 16 bytes
        self.ranks = -(-rank // 8) * 8
        self._whole: Tensor | None = None
        if cached:
            columns = -(-(self.inputs + self.ranks) // 64) * 64
            self._whole = torch.zeros(self.outputs + self.ranks, columns, device=device, dtype=dtype)
            self.weights.dequantize_into(self._whole[: self.outputs, : self.inputs])
            self.down = self._whole[self.outputs :, : self.inputs]
            self.up = self._whole[: self.outputs, self.inputs : self.inputs + self.ranks]
        else:
            self.down = torch.zeros(self.ranks, self.inputs, device=device, dtype=dtype)
            self.up = torch.zeros(self.outputs, self.ranks, device=device, dtype=dtype)
        self.bias = self._bias(dtype)
        self.active = True

    def _bias(self, dtype: torch.dtype) -> Tensor | None:
        biases = [each.linear.bias for each in self.projections]
        if all(bias is None for bias in biases):
            return None
        device = self.projections[0].linear.weight.device
        parts = [
            torch.zeros(size, device=device) if bias is None else bias.detach()
            for bias, size in zip(biases, self.sizes, strict=True)
        ]
        return torch.cat([part.to(dtype) for part in parts])

    @property
    def tail(self) -> int:
        """Columns that an operand needs beyond its own: the ranks of the adapters in force."""
        return self.ranks if self.active else 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        """A and B of each adapter in turn; gradients are given in this order."""
        return [parameter for adapter, _, _ in self.adapters for parameter in (adapter.a, adapter.b)]

    def casts(self) -> list[tuple[Tensor, nn.Parameter, float]]:
        """(where, what, times what): the copies that bring `down` and `up` up to date."""
        copies: list[tuple[Tensor, nn.Parameter, float]] = []
        for adapter, start, rank in self.adapters:
            ranks = slice(rank, rank + adapter.a.shape[0])
            copies.append((self.down[ranks], adapter.a, adapter.scaling))
            copies.append((self.up[start : start + adapter.b.shape[0], ranks], adapter.b, 1.0))
        return copies

    # ---- forward -----------------------------------------------------------------------------------

    def operand(self, rows: int, like: Tensor) -> Tensor:
        """[rows, in + tail], to be filled but for the tail and given to `forward`."""
        return matrix(rows, self.inputs + self.tail, like)

    def forward(
        self, x: Tensor, seed: int | None, residual: Tensor | None = None, *, tailed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The outputs [T, out], with `residual` added, and x Aᵀ [T, tail].

        Args:
            x: as `operand` gives it, its tail still empty.
            seed: of the dropout; None for none.
            residual: [T, out].
            tailed: give the outputs as `gradient_operand` would, [T, out + tail], for a backward that
                writes their gradient in their place; without residual.
        """
        low = x[:, self.inputs :]
        if self.tail:
            self.compress(x[:, : self.inputs], seed, low)
        weight = self._beside(x)
        added = self.bias if residual is None else residual
        if tailed:
            y = self.gradient_operand(x.shape[0], x)
            torch.mm(x, weight.t(), out=y[:, : self.outputs])
            if added is not None:
                y[:, : self.outputs].add_(added)
        else:
            y = x @ weight.t() if added is None else torch.addmm(added, x, weight.t())
        return y, low.clone(memory_format=torch.contiguous_format)

    def compress(self, x: Tensor, seed: int | None, out: Tensor) -> None:
        """x Aᵀ into `out` [T, tail], each adapter's own mask on x where there is dropout."""
        if not self._drops(seed):
            torch.mm(x, self.down.t(), out=out)
            return
        out.zero_()
        for number, (adapter, _, rank) in enumerate(self.adapters):
            ranks = slice(rank, rank + adapter.a.shape[0])
            out[:, ranks] = _drop(x, adapter, seed, number) @ self.down[ranks].t()

    # ---- backward ----------------------------------------------------------------------------------

    def gradient_operand(self, rows: int, like: Tensor) -> Tensor:
        """[rows, out + tail], to be filled but for the tail and given to the two functions below."""
        return matrix(rows, self.outputs + self.tail, like)

    def input_gradient(self, dy: Tensor, seed: int | None) -> Tensor:
        """x's gradient [T, in]; needs `compress_gradient` to have filled dy's tail."""
        dropped = self._drops(seed)
        tail = 0 if dropped else self.tail
        dx = dy[:, : self.outputs + tail] @ self._below(tail)
        if dropped:
            low = dy[:, self.outputs :]
            for number, (adapter, _, rank) in enumerate(self.adapters):
                ranks = slice(rank, rank + adapter.a.shape[0])
                dx += _drop(low[:, ranks] @ self.down[ranks], adapter, seed, number)
        return dx

    def compress_gradient(self, dy: Tensor) -> None:
        """Fills the tail of dy [T, out + tail] with dy B."""
        if self.tail:
            torch.mm(dy[:, : self.outputs], self.up, out=dy[:, self.outputs :])

    def weight_gradients(self, dy: Tensor, x: Tensor, low: Tensor, seed: int | None) -> list[Tensor | None]:
        """The gradients of `parameters`, float32; all None while the adapters are switched off.

        Args:
            dy: [T, out + tail], its tail filled.
            x: [T, in], the group's input.
            low: [T, tail], what `forward` gave beside its outputs.
            seed: as in `forward`.
        """
        if not self.tail:
            return [None] * len(self.parameters)
        up = product(dy[:, : self.outputs].t(), low)
        d_low = dy[:, self.outputs :]
        down = None if self._drops(seed) else product(d_low.t(), x)
        of_a: list[Tensor] = []
        of_b: list[Tensor] = []
        for number, (adapter, start, rank) in enumerate(self.adapters):
            ranks = slice(rank, rank + adapter.a.shape[0])
            of_a.append(
                product(d_low[:, ranks].t(), _drop(x, adapter, seed, number)) if down is None else down[ranks]
            )
            of_b.append(up[start : start + adapter.b.shape[0], ranks])
        foreach_mul_(of_a, [adapter.scaling for adapter, _, _ in self.adapters])
        return [gradient for pair in zip(of_a, of_b, strict=True) for gradient in pair]

    # ---- both --------------------------------------------------------------------------------------

    def _beside(self, like: Tensor) -> Tensor:
        """[W | B], [out, in + tail]."""
        if self._whole is not None:
            return self._whole[: self.outputs, : self.inputs + self.tail]
        weight = matrix(self.outputs, self.inputs + self.tail, like)
        self.weights.dequantize_into(weight[:, : self.inputs])
        weight[:, self.inputs :].copy_(self.up[:, : self.tail])
        return weight

    def _below(self, tail: int) -> Tensor:
        """[W; A], [out + tail, in]."""
        if self._whole is not None:
            return self._whole[: self.outputs + tail, : self.inputs]
        weight = self.down.new_empty(self.outputs + tail, self.inputs)
        self.weights.dequantize_into(weight[: self.outputs])
        weight[self.outputs :].copy_(self.down[:tail])
        return weight

    def _drops(self, seed: int | None) -> bool:
        return seed is not None and bool(self.tail) and any(each[0].drop_rate for each in self.adapters)


def _drop(x: Tensor, adapter: Adapter, seed: int | None, number: int) -> Tensor:
    """x with the adapter's mask, which the seed and the adapter's number in the group bring back at any time."""
    rate = adapter.drop_rate
    if not rate or seed is None:
        return x
    generator = torch.Generator(x.device).manual_seed(seed + number)
    keep = torch.empty(x.shape, device=x.device, dtype=torch.bool).bernoulli_(1 - rate, generator=generator)
    return x * keep * (1 / (1 - rate))


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b in float32, from half-precision operands without rounding in between where the device can."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()
