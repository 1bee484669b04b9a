"""A decoding pass by Triton kernels: ten launches a layer, and NF4 dequantized inside its products."""

from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from medqlora.fused.decoder import FusedDecoder
from medqlora.fused.decoding.cache import BLOCK, KeyValueCache
from medqlora.fused.decoding.products import GroupProduct, LowRank, Operand, Sums, obstacle
from medqlora.fused.group import Group
from medqlora.fused.kernels import triton_decode as kernels
from medqlora.fused.layer import Layer


class _Normed(NamedTuple):
    """The operand of the products behind a norm: x · weight, and the sums of squares that 1 / rms needs.

    Attributes:
        operand: [rows, D].
        squares: [rows, parts] float32.
        eps: of the norm.
    """

    operand: Operand
    squares: Tensor
    eps: float


class KernelPass:
    """The layers of a decoding pass; see `DecodePass`.

    Args:
        decoder: the model; `unfit` gives None for it.
        cache: of the rows.
    """

    def __init__(self, decoder: FusedDecoder, cache: KeyValueCache) -> None:
        self._decoder, self._cache = decoder, cache
        self._width = decoder.norm[0].shape[0]
        self._products = {id(group): GroupProduct(group) for group in decoder.groups}

    def run(self, x: Tensor, state: Tensor, longest: int) -> Tensor:
        """[rows, D]: the final norm's output for each row's next token; keys and values go to the cache.

        Args:
            x: [rows, D], the embedded tokens; overwritten.
            state: [3, rows] int64, as of `DecodePass`.
            longest: the largest position plus one, or more.
        """
        decoder = self._decoder
        positions, adapters = state[1], state[2]
        turns = decoder.turns(positions)
        layers = decoder.layers
        normed = self._residual(
            x, None, layers[0].first.norm_weight, layers[0].first.eps, layers[0].first.groups[0]
        )
        for index, layer in enumerate(layers):
            q = self._heads(layer, index, normed, turns, positions, adapters)
            attended = self._attend(layer, index, q, positions, longest)
            second = layer.second
            sums = self._product(second.o, attended)
            normed = self._residual(
                x, sums, second.norm_weight, second.eps, second.gate_up, second.o, adapters
            )
            hidden = self._gated(layer, normed, adapters)
            sums = self._product(second.down, hidden)
            following = layers[index + 1].first if index + 1 < len(layers) else layer.first
            normed = self._residual(
                x, sums, following.norm_weight, following.eps, following.groups[0], second.down, adapters
            )
        weight, eps = decoder.norm
        out = torch.empty_like(x)
        decoder.functions.rms_norm(x, weight, eps, out)
        return out

    def _product(self, group: Group, x: Operand) -> Sums:
        by_row = group.by_row
        routed = None if by_row is None else LowRank(by_row.down, by_row.up, by_row.owners)
        return self._products[id(group)].run(x, routed)

    def _residual(
        self,
        x: Tensor,
        sums: Sums | None,
        weight: Tensor,
        eps: float,
        following: Group,
        group: Group | None = None,
        adapters: Tensor | None = None,
    ) -> _Normed:
        """Adds a product to x, and prepares the operand of the group behind the next norm."""
        rows, columns = x.shape
        operand = self._products[id(following)].operand(rows)
        parts = triton.cdiv(columns, kernels.COLUMNS)
        squares = x.new_empty(rows, triton.next_power_of_2(parts), dtype=torch.float32)
        bias = None if group is None else group.bias
        kernels.residual[(rows, parts)](
            x, *_operands(sums, adapters, x), x if bias is None else bias, weight, *operand[:3], squares, rows,
            *_widths(sums), columns,
            **_constants(sums), BIAS=bias is not None, ORDER=operand.order, PARTS=squares.shape[1],
        )  # fmt: skip
        return _Normed(operand, squares, eps)

    def _heads(
        self,
        layer: Layer,
        index: int,
        normed: _Normed,
        turns: tuple[Tensor, Tensor],
        positions: Tensor,
        adapters: Tensor,
    ) -> Tensor:
        """q [rows, H, d], rotated; k and v go to the cache."""
        heads = layer.first.heads
        rows = len(normed.squares)
        q = self._decoder.norm[0].new_empty(rows, heads.queries, heads.width, dtype=self._decoder.dtype)
        normalizes = heads.q_norm is not None
        first = 0
        for group in layer.first.groups:
            sums = self._product(group, normed.operand)
            count = group.outputs // heads.width
            kernels.heads[(rows, count)](
                *_operands(sums, adapters, q), q if group.bias is None else group.bias, normed.squares, *turns,
                heads.q_norm if normalizes else q, heads.k_norm if normalizes else q, positions, q,
                self._cache.keys(index), self._cache.values(index), self._cache.table, rows, *_widths(sums),
                self._width, normed.eps, heads.eps, first, heads.queries, heads.keys, self._cache.table.stride(0),
                **_constants(sums), SIZE=BLOCK, BIAS=group.bias is not None, NORM=normalizes, HALF=heads.width // 2,
                PARTS=normed.squares.shape[1], num_warps=1,
            )  # fmt: skip
            first += count
        return q

    def _attend(self, layer: Layer, index: int, q: Tensor, positions: Tensor, longest: int) -> Operand:
        """The operand of o_proj."""
        heads = layer.first.heads
        rows, shared = len(q), heads.queries // heads.keys
        chunks = triton.cdiv(longest, kernels.KEYS)
        parts = q.new_empty(rows, heads.queries, chunks, heads.width, dtype=torch.float32)
        tops = q.new_empty(rows, heads.queries, chunks, dtype=torch.float32)
        totals = torch.empty_like(tops)
        kernels.attend[(rows, heads.keys, chunks)](
            q, self._cache.keys(index), self._cache.values(index), self._cache.table, positions, parts, tops, totals,
            heads.width**-0.5, layer.first.window or 0, self._cache.table.stride(0), heads.queries, heads.keys, chunks,
            SIZE=BLOCK, SHARED=shared, GROUP=max(16, triton.next_power_of_2(shared)), WIDTH=heads.width,
            BLOCK=kernels.KEYS,
        )  # fmt: skip
        operand = self._products[id(layer.second.o)].operand(rows)
        kernels.combine[(rows, heads.queries)](
            parts, tops, totals, *operand[:3], heads.queries, chunks,
            CHUNKS=triton.next_power_of_2(chunks), WIDTH=heads.width, ORDER=operand.order, num_warps=1,
        )  # fmt: skip
        return operand

    def _gated(self, layer: Layer, normed: _Normed, adapters: Tensor) -> Operand:
        """The operand of down_proj."""
        second = layer.second
        sums = self._product(second.gate_up, normed.operand)
        rows, columns = len(normed.squares), second.down.inputs
        operand = self._products[id(second.down)].operand(rows)
        bias = second.gate_up.bias
        kernels.gated[(rows, triton.cdiv(columns, kernels.COLUMNS))](
            *_operands(sums, adapters, normed.squares), normed.squares if bias is None else bias, normed.squares,
            *operand[:3], rows,
            *_widths(sums), columns, self._width, normed.eps,
            **_constants(sums), BIAS=bias is not None, ORDER=operand.order, PARTS=normed.squares.shape[1],
        )  # fmt: skip
        return operand


def _operands(sums: Sums | None, adapters: Tensor | None, unused: Tensor) -> tuple[Tensor, ...]:
    """product, low, up, owners and adapters of a kernel; `unused` where it reads none."""
    if sums is None:
        return (unused,) * 5
    lora = sums.lora
    if lora is None:
        return (sums.product, *(unused,) * 4)
    if lora.owners is None or adapters is None:
        return sums.product, sums.low, lora.up, unused, unused
    return sums.product, sums.low, lora.up, lora.owners, adapters


def _widths(sums: Sums | None) -> tuple[int, int, int]:
    """Row strides of product, low and up."""
    if sums is None:
        return 0, 0, 0
    return sums.product.stride(1), sums.low.stride(1), 0 if sums.lora is None else sums.lora.up.stride(0)


def _constants(sums: Sums | None) -> dict[str, int | bool]:
    if sums is None:
        return {"SPLITS": 0, "LOW_SPLITS": 0, "RANKS": 0, "OWN": False, "ROUTED": False}
    lora = sums.lora
    own = 0 if lora is None else lora.own
    return {
        "SPLITS": len(sums.product),
        "LOW_SPLITS": len(sums.low),
        "RANKS": 0 if lora is None else own or len(lora.down),
        "OWN": own > 0,
        "ROUTED": lora is not None and lora.owners is not None,
    }


def unfit(decoder: FusedDecoder) -> str | None:
    """The reason why the kernels can't run a model's passes; None where they can."""
    if decoder.sharded:
        return "its layers are sharded"
    heads = decoder.layers[0].first.heads
    if heads.width < 64 or heads.width & (heads.width - 1):
        return f"heads are {heads.width} wide, no power of 2 from 64 on"
    return next((why for group in decoder.groups if group.kept is None and (why := obstacle(group))), None)
