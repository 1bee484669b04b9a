"""Dequantization of 4-bit weights, bitsandbytes' and those of GPTQ and AWQ, into a given matrix."""

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from medqlora.models.int4 import Int4State
from medqlora.models.quantization import import_bitsandbytes


class QuantState(Protocol):
    """bitsandbytes 0.50: the scales, codes and format of a 4-bit weight.

    Attributes:
        absmax: the scale of each block; uint8 if `nested`, otherwise float32.
        nested: double quantization; `state2` and `offset` are of the scales.
    """

    absmax: Tensor
    shape: torch.Size
    code: Tensor
    blocksize: int
    quant_type: str
    nested: bool
    offset: Tensor

    @property
    def state2(self) -> "QuantState": ...


class Params4bit(Protocol):
    """bitsandbytes 0.50: `nn.Params4bit`; or the weight of an `Int4Linear`."""

    data: Tensor
    device: torch.device
    quant_state: "QuantState | Int4State"


class Linear4bit(Protocol):
    """bitsandbytes 0.50: `nn.Linear4bit`; or `Int4Linear`."""

    in_features: int
    out_features: int
    weight: Params4bit
    bias: Tensor | None
    compute_dtype: torch.dtype


#: fills `out`, and copies the second of two matrices to the first
Fill = Callable[[Tensor, tuple[Tensor, Tensor] | None], None]


class FourBit:
    """4-bit weights with the same number of columns, stacked by rows.

    Args:
        weights: on their final device.
    """

    def __init__(self, weights: Sequence[Params4bit]) -> None:
        #: packed bytes [n, 1] and state of each
        self.pairs = [(weight.data.view(torch.uint8).view(-1, 1), weight.quant_state) for weight in weights]
        self._fill = self._kernel()

    def __len__(self) -> int:
        return len(self.pairs)

    def nf4_pairs(self) -> "list[tuple[Tensor, QuantState]]":
        """`pairs` where all weights are NF4 with blocks of 64, quantized alike; else none."""
        pairs = [(packed, state) for packed, state in self.pairs if not isinstance(state, Int4State)]
        alike = len(pairs) == len(self.pairs) and all(
            state.quant_type == "nf4" and state.blocksize == 64 and state.nested == pairs[0][1].nested
            for _, state in pairs
        )
        return pairs if alike else []

    def dequantize_into(self, out: Tensor, beside: tuple[Tensor, Tensor] | None = None) -> None:
        """Fills `out` [rows, columns]; its rows may have a stride.

        `beside` (target, source) is copied along, in the same launch where the kernel can: two matrices of equal shape
        and type, such as LoRA's weights beside or below the others.

        The values equal those of bitsandbytes' `dequantize_4bit`, or of `Int4State.dequantize`, rounded once to `out`'s
        type.
        """
        if self._fill is not None and out.dtype != torch.float32:
            self._fill(out, beside)
            return
        if beside is not None:
            beside[0].copy_(beside[1])
        start = 0
        for packed, state in self.pairs:
            rows = state.shape[0]
            out[start : start + rows].copy_(_dense(packed, state, out.dtype))
            start += rows

    def _kernel(self) -> Fill | None:
        """The Triton kernel, which writes strided rows in one pass; None if it doesn't fit or isn't installed."""
        if len(self.pairs) > 3 or not all(packed.is_cuda for packed, _ in self.pairs):
            return None
        kinds = {type(state) is Int4State for _, state in self.pairs}
        if len(kinds) > 1:  # a base may have layers of both
            return None
        try:
            if kinds == {True}:
                return _int4_kernel(cast("list[tuple[Tensor, Int4State]]", self.pairs))
            return _nf4_kernel(self.nf4_pairs())
        except ImportError:
            return None


def _dense(packed: Tensor, state: "QuantState | Int4State", dtype: torch.dtype) -> Tensor:
    """The matrix [out, in] of one weight."""
    if isinstance(state, Int4State):
        return state.dequantize(packed, dtype)
    values: Tensor = import_bitsandbytes().functional.dequantize_4bit(packed, state)
    return values


def _int4_kernel(pairs: "list[tuple[Tensor, Int4State]]") -> Fill | None:
    if any(state.shape[1] % 64 for _, state in pairs):
        return None
    from medqlora.fused.kernels.triton_int4 import prepare

    fill = prepare(pairs)

    def fill_and_copy(out: Tensor, beside: tuple[Tensor, Tensor] | None) -> None:
        fill(out)
        if beside is not None:
            beside[0].copy_(beside[1])

    return fill_and_copy


def _nf4_kernel(pairs: "list[tuple[Tensor, QuantState]]") -> Fill | None:
    if not pairs or any(state.shape[1] % 64 for _, state in pairs):
        return None
    from medqlora.fused.kernels.triton_nf4 import prepare

    return prepare(pairs)
