"""From bitsandbytes' 4-bit weights to the matrix that they stand for, written where it is wanted."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from medqlora.models.quantization import import_bitsandbytes


class FourBit:
    """Weights of the same columns, one under another, in 4 bits.

    Args:
        weights: bitsandbytes' `Params4bit`, on the device that they stay on.
    """

    def __init__(self, weights: Sequence[Any]) -> None:
        self._pairs = [(weight.data.view(torch.uint8).view(-1, 1), weight.quant_state) for weight in weights]
        self._dense = import_bitsandbytes().functional.dequantize_4bit
        self._fill = self._kernel()

    def __len__(self) -> int:
        return len(self._pairs)

    def dequantize_into(self, out: Tensor) -> None:
        """Fills `out` [rows, columns], whose rows may lie apart.

        The values are those of bitsandbytes' own `dequantize_4bit`, rounded once to `out`'s type.
        """
        if self._fill is not None and out.dtype != torch.float32:
            self._fill(out)
            return
        start = 0
        for packed, state in self._pairs:
            rows = state.shape[0]
            out[start : start + rows].copy_(self._dense(packed, state))
            start += rows

    def _kernel(self) -> Callable[[Tensor], None] | None:
        """Triton's, which writes rows that lie apart in one pass; None where it doesn't fit or isn't installed."""
        states = [state for _, state in self._pairs]
        fits = all(
            packed.is_cuda
            and state.quant_type == "nf4"
            and state.blocksize == 64
            and state.shape[1] % 64 == 0
            and state.nested == states[0].nested
            for packed, state in self._pairs
        )
        if not fits or len(states) > 3:
            return None
        try:
            from medqlora.fused.nf4_kernel import prepare
        except ImportError:
            return None
        return prepare(self._pairs)
