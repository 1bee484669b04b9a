"""Dequantization of bitsandbytes' 4-bit weights into a given matrix."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

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
    """bitsandbytes 0.50: `nn.Params4bit`."""

    data: Tensor
    device: torch.device
    quant_state: QuantState


class Linear4bit(Protocol):
    """bitsandbytes 0.50: `nn.Linear4bit`."""

    in_features: int
    out_features: int
    weight: Params4bit
    bias: Tensor | None
    compute_dtype: torch.dtype


class FourBit:
    """4-bit weights with the same number of columns, stacked by rows.

    Args:
        weights: on their final device.
    """

    def __init__(self, weights: Sequence[Params4bit]) -> None:
        #: packed bytes [n, 1] and state of each
        self.pairs = [(weight.data.view(torch.uint8).view(-1, 1), weight.quant_state) for weight in weights]
        self._dense = import_bitsandbytes().functional.dequantize_4bit
        self._fill = self._kernel()

    def __len__(self) -> int:
        return len(self.pairs)

    def dequantize_into(self, out: Tensor) -> None:
        """Fills `out` [rows, columns]; its rows may have a stride.

        The values equal those of bitsandbytes' `dequantize_4bit`, rounded once to `out`'s type.
        """
        if self._fill is not None and out.dtype != torch.float32:
            self._fill(out)
            return
        start = 0
        for packed, state in self.pairs:
            rows = state.shape[0]
            out[start : start + rows].copy_(self._dense(packed, state))
            start += rows

    def _kernel(self) -> Callable[[Tensor], None] | None:
        """The Triton kernel, which writes strided rows in one pass; None if it doesn't fit or isn't installed."""
        states = [state for _, state in self.pairs]
        fits = all(
            packed.is_cuda
            and state.quant_type == "nf4"
            and state.blocksize == 64
            and state.shape[1] % 64 == 0
            and state.nested == states[0].nested
            for packed, state in self.pairs
        )
        if not fits or len(states) > 3:
            return None
        try:
            from medqlora.fused.kernels.triton_nf4 import prepare
        except ImportError:
            return None
        return prepare(self.pairs)
