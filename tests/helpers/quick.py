"""What a run does not need for what most tests look at: drawn pictures, and a disk that survives a power cut.

A test of a tiny base spends more than half of its time on drawing. The modules that look at the pictures themselves
have `DRAWN = True`; so do all of `tests/unit/evaluation`.
"""

import os
from typing import Any

import pytest

_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="60" height="60"/>'


def undrawn(patch: pytest.MonkeyPatch) -> None:
    """From now on every figure is made, and an empty picture stands for it."""
    import numpy as np
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import writer

    really = Figure.savefig

    def saved(self: Figure, out: Any, **options: Any) -> None:
        if options.get("format") == "svg":
            out.write(_SVG)
        else:  # a picture in a file of its own
            really(self, out, **options)

    def image(figures: object, close: bool = True) -> Any:
        return np.zeros((3, 8, 8), dtype=np.uint8)

    patch.setattr(Figure, "savefig", saved)
    patch.setattr(writer, "figure_to_image", image)


def unsynced(patch: pytest.MonkeyPatch) -> None:
    """From now on no write waits for the disk: what a killed process has written is there without it."""
    patch.setattr(os, "fsync", os.fstat)  # which a closed file fails too
