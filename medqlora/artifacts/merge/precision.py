"""Which 16-bit data type keeps more of the merged weights."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

#: the largest finite float16
FLOAT16_LIMIT = 65504.0
_PIECE = 1 << 24  # values that are compared at once: 64 MiB in float32


class RoundingError:
    """Sums of squared rounding errors over weights, for float16 and bfloat16.

    Args:
        parts: figures of earlier sums, to be added up.

    Attributes:
        figures: "float16", "bfloat16": sum of squared errors; "weights": sum of squared weights; "largest": the
            largest magnitude.
    """

    def __init__(self, parts: Iterable[Mapping[str, float]] = ()) -> None:
        self.figures = {"float16": 0.0, "bfloat16": 0.0, "weights": 0.0, "largest": 0.0}
        for part in parts:
            for name in ("float16", "bfloat16", "weights"):
                self.figures[name] += part[name]
            self.figures["largest"] = max(self.figures["largest"], part["largest"])

    def add(self, weight: Tensor) -> None:
        """Adds a tensor's errors."""
        flat = weight.reshape(-1)
        for start in range(0, flat.numel(), _PIECE):
            piece = flat[start : start + _PIECE].float()
            self.figures["largest"] = max(self.figures["largest"], float(piece.abs().max()))
            self.figures["weights"] += float(piece.square().sum(dtype=torch.float64))
            for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
                rounded = piece.to(dtype).float()
                self.figures[name] += float((rounded - piece).square().sum(dtype=torch.float64))

    @property
    def fits_float16(self) -> bool:
        """Whether no weight overflows float16."""
        return self.figures["largest"] <= FLOAT16_LIMIT

    def better(self) -> str:
        """The data type with the smaller error; bfloat16 where float16 overflows."""
        keeps = self.fits_float16 and self.figures["float16"] <= self.figures["bfloat16"]
        return "float16" if keeps else "bfloat16"

    def relative(self, name: str) -> float:
        """Root of the squared error over that of the weights."""
        if name == "float32" or not self.figures["weights"]:
            return 0.0
        return float((self.figures[name] / self.figures["weights"]) ** 0.5)
