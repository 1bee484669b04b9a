"""A group of linear layers with the same input: one weight and one matrix product, LoRA included.

W stacks the layers' weights by rows, A stacks their scaled LoRA A, and B holds their LoRA B on a block
diagonal. Then y = x Wᵀ + (x Aᵀ) Bᵀ is one product [x | x Aᵀ] [W | B]ᵀ, and the input's gradient is
[dy | dy B] [W; A]. Operands therefore have a tail of columns for LoRA, and W is dequantized into a matrix
with room for B beside it or A below it. The forward saves inputs; the backward dequantizes W again.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from medqlora.compat.torch import addmm_out, foreach_add_, foreach_mul_
from medqlora.fused.kernels.adding import add_in_one_launch
from medqlora.fused.kernels.dequantize import FourBit, Linear4bit
from medqlora.fused.kernels.dropout import drop, drop_on_device
from medqlora.fused.seeds import DeviceSeed, Seed

#: rows of operands begin at multiples of this many values: 128 bytes in 16 bits
ROW_MULTIPLE = 64
#: a group's ranks are padded to a multiple of this: 16 bytes, the alignment of a half-precision operand's rows
RANK_MULTIPLE = 8


class AddsLoRA(Protocol):
    """LoRA that differs from row to row, beside the group's own."""

    @property
    def down(self) -> Tensor:
        """The scaled A of all adapters, [ranks, in]."""

    @property
    def up(self) -> Tensor:
        """Their B, [out, ranks]."""

    @property
    def owners(self) -> Tensor:
        """[ranks] int64: the adapter that each rank belongs to."""

    def add_to(self, y: Tensor, x: Tensor) -> None:
        """Adds each row's LoRA of x [T, in] to y [T, out], in place."""


class Adapter(NamedTuple):
    """PEFT's LoRA on one layer.

    Attributes:
        a: [r, in] float32, trained.
        b: [out, r] float32, trained.
        scaling: alpha / r, or alpha / sqrt(r) with rsLoRA.
        dropout: PEFT's module, whose training mode switches the dropout.
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
    """One linear layer and its active adapter."""

    linear: Linear4bit
    adapter: Adapter | None


def matrix(rows: int, columns: int, like: Tensor) -> Tensor:
    """An uninitialised [rows, columns] whose rows begin at multiples of `ROW_MULTIPLE` values."""
    return like.new_empty(rows, -(-columns // ROW_MULTIPLE) * ROW_MULTIPLE)[:, :columns]


class Group:
    """Linear layers with the same input.

    Args:
        projections: in the order of their outputs.
        dtype: of the matrix products.
        cached: keeps W dequantized, with B beside it and A below it: 16 bits per weight instead of a
            dequantization in every product.
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
        #: adapter, index of its first output, index of its first rank in the group
        self.adapters: list[tuple[Adapter, int, int]] = []
        start = rank = 0
        for each, size in zip(self.projections, self.sizes, strict=True):
            if each.adapter is not None:
                self.adapters.append((each.adapter, start, rank))
                rank += each.adapter.a.shape[0]
            start += size
        self.ranks = -(-rank // RANK_MULTIPLE) * RANK_MULTIPLE
        self._cache: Tensor | None = None
        if cached:
            columns = -(-(self.inputs + self.ranks) // ROW_MULTIPLE) * ROW_MULTIPLE
            self._cache = torch.zeros(self.outputs + self.ranks, columns, device=device, dtype=dtype)
            self.weights.dequantize_into(self._cache[: self.outputs, : self.inputs])
            self.down = self._cache[self.outputs :, : self.inputs]
            self.up = self._cache[: self.outputs, self.inputs : self.inputs + self.ranks]
        else:
            self.down = torch.zeros(self.ranks, self.inputs, device=device, dtype=dtype)
            self.up = torch.zeros(self.outputs, self.ranks, device=device, dtype=dtype)
        self.bias = self._bias(dtype)
        self.active = True
        #: in a pass over rows with different adapters: their LoRA; `active` is then false
        self.by_row: AddsLoRA | None = None

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
    def kept(self) -> Tensor | None:
        """[out + ranks, in] in 16 bits, A below W; None for weights that are not kept dequantized."""
        return None if self._cache is None else self._cache[:, : self.inputs]

    @property
    def tail(self) -> int:
        """Extra columns of an operand: the ranks of the active adapters."""
        return self.ranks if self.active else 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        """A and B of each adapter in turn; gradients have the same order."""
        return [parameter for adapter, _, _ in self.adapters for parameter in (adapter.a, adapter.b)]

    def casts(self) -> list[tuple[Tensor, nn.Parameter, float]]:
        """(target, source, factor) of the copies that update `down` and `up`."""
        copies: list[tuple[Tensor, nn.Parameter, float]] = []
        for adapter, start, rank in self.adapters:
            ranks = slice(rank, rank + adapter.a.shape[0])
            copies.append((self.down[ranks], adapter.a, adapter.scaling))
            copies.append((self.up[start : start + adapter.b.shape[0], ranks], adapter.b, 1.0))
        return copies

    # ---- forward -----------------------------------------------------------------------------------

    def operand(self, rows: int, like: Tensor) -> Tensor:
        """[rows, in + tail]; the caller fills all but the tail and passes it to `forward`."""
        return matrix(rows, self.inputs + self.tail, like)

    def forward(
        self,
        x: Tensor,
        seed: Seed | None,
        residual: Tensor | None = None,
        *,
        spare: bool = False,
        tailed: bool = False,
        kept: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The outputs [T, out] plus `residual`, and x Aᵀ [T, tail].

        Args:
            x: from `operand`, its tail not filled.
            seed: of the dropout; None for none.
            residual: [T, out].
            spare: the outputs may overwrite `residual`.
            tailed: returns the outputs in a `gradient_operand`, [T, out + tail], so that the backward can
                overwrite them with their gradient; takes no residual.
            kept: the caller keeps x, and x Aᵀ is a view of its tail.
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
        elif added is None:
            y = x @ weight.t()
        else:
            y = (
                residual.addmm_(x, weight.t())
                if spare and residual is not None
                else added.addmm(x, weight.t())
            )
        if self.by_row is not None:
            self.by_row.add_to(y[:, : self.outputs], x[:, : self.inputs])
        return y, low if kept else low.clone(memory_format=torch.contiguous_format)

    def compress(self, x: Tensor, seed: Seed | None, out: Tensor) -> None:
        """Writes x Aᵀ to `out` [T, tail]; with dropout, each adapter masks x by itself."""
        if not self.drops(seed):
            torch.mm(x, self.down.t(), out=out)
            return
        out.zero_()
        for number, (adapter, _, rank) in enumerate(self.adapters):
            ranks = slice(rank, rank + adapter.a.shape[0])
            out[:, ranks] = _drop(x, adapter, seed, number) @ self.down[ranks].t()

    # ---- backward ----------------------------------------------------------------------------------

    def gradient_operand(self, rows: int, like: Tensor) -> Tensor:
        """[rows, out + tail]; the caller fills all but the tail and passes it to the functions below."""
        return matrix(rows, self.outputs + self.tail, like)

    def input_gradient(self, dy: Tensor, seed: Seed | None) -> Tensor:
        """x's gradient [T, in]; call `compress_gradient` on dy first."""
        dropped = self.drops(seed)
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

    def weight_gradients(
        self,
        dy: Tensor,
        x: Tensor,
        low: Tensor,
        seed: Seed | None,
        *,
        accumulate: bool = False,
        with_b: bool = True,
    ) -> list[Tensor | None]:
        """The gradients of `parameters`, float32; None for those that are not returned.

        Args:
            dy: [T, out + tail], its tail filled.
            x: [T, in], the group's input.
            low: [T, tail], x Aᵀ from `forward`.
            seed: as in `forward`.
            accumulate: may add them to `.grad` in the products, instead of returning them.
            with_b: False where those of B are added already; needs `accumulate` and no dropout.
        """
        if not self.tail:
            return [None] * len(self.parameters)
        if accumulate and dy.is_cuda and dy.dtype != torch.float32 and not self.drops(seed):
            if with_b:
                self.add_to_b(dy, low)
            self._add_to_a(dy, x)
            return [None] * len(self.parameters)
        up = product(dy[:, : self.outputs].t(), low)
        d_low = dy[:, self.outputs :]
        down = None if self.drops(seed) else product(d_low.t(), x)
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

    def add_to_b(self, dy: Tensor, low: Tensor) -> None:
        """Adds the gradients of every B to `.grad`; arguments as in `weight_gradients`."""
        for adapter, start, rank in self.adapters:
            ranks = slice(rank, rank + adapter.a.shape[0])
            outputs = dy[:, start : start + adapter.b.shape[0]]
            add_product(held_gradient(adapter.b), outputs.t(), low[:, ranks], 1.0)

    def _add_to_a(self, dy: Tensor, x: Tensor) -> None:
        """Adds the gradients of every A to `.grad`; arguments as in `weight_gradients`."""
        first = self.adapters[0][0]
        d_low = dy[:, self.outputs :]
        if len(self.adapters) == 1:
            ranks = slice(0, first.a.shape[0])
            add_product(held_gradient(first.a), d_low[:, ranks].t(), x, first.scaling)
            return
        down = product(d_low.t(), x)  # reads x once for all adapters
        targets = [held_gradient(adapter.a) for adapter, _, _ in self.adapters]
        sources = [down[rank : rank + adapter.a.shape[0]] for adapter, _, rank in self.adapters]
        factors = [adapter.scaling for adapter, _, _ in self.adapters]
        if not add_in_one_launch(targets, sources, factors):
            foreach_mul_(sources, factors)
            foreach_add_(targets, sources)

    # ---- both --------------------------------------------------------------------------------------

    def _beside(self, like: Tensor) -> Tensor:
        """[W | B], [out, in + tail]."""
        if self._cache is not None:
            return self._cache[: self.outputs, : self.inputs + self.tail]
        weight = matrix(self.outputs, self.inputs + self.tail, like)
        tail = weight[:, self.inputs :]
        self.weights.dequantize_into(weight[:, : self.inputs], (tail, self.up) if self.tail else None)
        return weight

    def _below(self, tail: int) -> Tensor:
        """[W; A], [out + tail, in]."""
        if self._cache is not None:
            return self._cache[: self.outputs + tail, : self.inputs]
        weight = self.down.new_empty(self.outputs + tail, self.inputs)
        added = (weight[self.outputs :], self.down) if tail else None
        self.weights.dequantize_into(weight[: self.outputs], added)
        return weight

    def drops(self, seed: Seed | None) -> bool:
        """Whether dropout masks the inputs of A in a pass with this seed."""
        return seed is not None and bool(self.tail) and any(each[0].drop_rate for each in self.adapters)


def _drop(x: Tensor, adapter: Adapter, seed: Seed | None, number: int) -> Tensor:
    """x under the adapter's dropout mask; the seed and the adapter's number in the group reproduce the mask."""
    rate = adapter.drop_rate
    if not rate or seed is None:
        return x
    if isinstance(seed, DeviceSeed):
        return drop_on_device(x, rate, seed.plus(number))
    return drop(x, rate, seed + number)


def held_gradient(parameter: nn.Parameter) -> Tensor:
    """The gradient tensor that a pass adds to."""
    held = parameter.grad
    assert held is not None, "accumulate needs a gradient tensor on every parameter"
    return held


def add_product(total: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    """Adds factor · a b of half-precision operands on a GPU to `total`, float32, without rounding them."""
    addmm_out(total, a, b, torch.float32, alpha=factor, out=total)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product a b in float32; on a GPU without rounding of half-precision operands' products."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()
