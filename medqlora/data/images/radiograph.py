"""Draws chest "radiographs" for the demo: two lungs, ribs, a heart, and an opacity or none.

They show no real person.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: pixels of a side
SIDE = 64
#: centre (row, column) of each lung as shares of the side; as in a radiograph the patient's left is on the right
LUNGS = {"right": (0.50, 0.28), "left": (0.50, 0.72)}


def draw_radiograph(opacity: str | None, generator: "np.random.Generator") -> "NDArray[np.uint8]":
    """A chest radiograph, [SIDE, SIDE] grey.

    Args:
        opacity: the lung that has an opacity, "left" or "right"; None for a clear one.
        generator: draws anatomy, exposure and noise.
    """
    import numpy as np

    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    image = np.full((SIDE, SIDE), 150.0) + generator.uniform(-12, 12)
    shift_row, shift_column = generator.uniform(-0.03, 0.03, 2)
    widths = generator.uniform(0.13, 0.17, 2)
    for (row, column), width in zip(LUNGS.values(), widths, strict=True):
        lung = _ellipse(rows - row - shift_row, columns - column - shift_column, 0.34, width)
        image -= 95 * lung
    spacing, phase = generator.uniform(0.10, 0.13), generator.uniform(0, 1)
    ribs = np.sin(2 * np.pi * ((rows + 0.25 * np.abs(columns - 0.5)) / spacing + phase))
    image += 14 * np.clip(ribs, 0, 1)
    heart = _ellipse(
        rows - 0.66 - shift_row, columns - 0.55 - shift_column, 0.16, generator.uniform(0.10, 0.14)
    )
    image += 45 * heart
    if opacity is not None:
        row, column = LUNGS[opacity]
        row, column = row + generator.uniform(-0.18, 0.10), column + generator.uniform(-0.06, 0.06)
        size = generator.uniform(0.09, 0.13)
        image += generator.uniform(85, 115) * _ellipse(rows - row, columns - column, size, size)
    image += generator.normal(0, 5, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def _ellipse(
    rows: "NDArray[np.float64]", columns: "NDArray[np.float64]", height: float, width: float
) -> "NDArray[np.float64]":
    """1 inside an ellipse around 0 with these half axes, 0 outside, with a soft edge."""
    import numpy as np

    distance = np.minimum((rows / height) ** 2 + (columns / width) ** 2, 4.0)
    return np.asarray(1 / (1 + np.exp(8 * (distance - 1))))
