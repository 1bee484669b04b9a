"""What a run does not need for what most tests look at: drawn pictures, and a disk that survives a power cut.

A run of a tiny base spends a third of its time on drawing; `tests/unit/evaluation` and `tests/runs/test_tensorboard.py`
look at the pictures themselves.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="60" height="60"/>'


def undrawn(patch: pytest.MonkeyPatch) -> None:
    """From now on every figure is made, and an empty picture stands for it."""
    import numpy as np
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import writer

    def saved(self: Figure, out: io.BytesIO, **options: Any) -> None:
        assert options["format"] == "svg"
        out.write(_SVG)

    def image(figures: object, close: bool = True) -> Any:
        return np.zeros((3, 8, 8), dtype=np.uint8)

    patch.setattr(Figure, "savefig", saved)
    patch.setattr(writer, "figure_to_image", image)


def unsynced(patch: pytest.MonkeyPatch) -> None:
    """From now on no write waits for the disk: what a killed process has written is there without it."""
    patch.setattr(os, "fsync", os.fstat)  # which a closed file fails too


@contextmanager
def without_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        yield
