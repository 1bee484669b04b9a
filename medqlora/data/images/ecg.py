"""Draws a 12-lead electrocardiogram as on paper: 25 mm/s and 10 mm/mV, three rows of four leads and a rhythm strip.

The layout is the usual one (AHA/ACCF/HRS recommendations, 2007, https://doi.org/10.1161/CIRCULATIONAHA.106.180200).
Whole pixels and Pillow's own bitmap letters are drawn, so the same signal gives the same picture.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
#: the rows of the paper, from left to right; each lead is shown for a quarter of the ten seconds
_ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
_RHYTHM = "II"
SECONDS = 10.0
PIXELS_PER_MM = 4
_MM_PER_S, _MM_PER_MV, _ROW_MM, _MARGIN_MM = 25, 10, 30, 5
_FINE, _COARSE, _TRACE = (250, 220, 220), (240, 170, 170), (20, 20, 20)


def draw_ecg(leads: "Mapping[str, NDArray[np.float64]]", sampling_hz: float) -> "Image":
    """The paper, RGB.

    Args:
        leads: each lead's signal in mV, [samples]; NaN is left blank.
        sampling_hz: samples a second.
    """
    from PIL import Image, ImageDraw, ImageFont

    width = int((SECONDS * _MM_PER_S + 2 * _MARGIN_MM) * PIXELS_PER_MM)
    height = ((len(_ROWS) + 1) * _ROW_MM + 2 * _MARGIN_MM) * PIXELS_PER_MM
    paper = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(paper)
    for spacing, colour in ((1, _FINE), (5, _COARSE)):
        step = spacing * PIXELS_PER_MM
        for x in range(0, width, step):
            pen.line((x, 0, x, height), colour)
        for y in range(0, height, step):
            pen.line((0, y, width, y), colour)
    font = ImageFont.load_default_imagefont()
    quarter = SECONDS / 4
    for number, names in enumerate((*_ROWS, (_RHYTHM,))):
        middle = (_MARGIN_MM + number * _ROW_MM + _ROW_MM // 2) * PIXELS_PER_MM
        for place, name in enumerate(names):
            begin = place * quarter
            end = SECONDS if len(names) == 1 else begin + quarter
            left = round((_MARGIN_MM + begin * _MM_PER_S) * PIXELS_PER_MM)
            _trace(pen, leads[name], sampling_hz, (begin, end), (left, middle))
            pen.text((left + 4, middle - 12 * PIXELS_PER_MM), name, _TRACE, font=font)
    return paper


def _trace(
    pen: "ImageDraw",
    signal: "NDArray[np.float64]",
    sampling_hz: float,
    seconds: tuple[float, float],
    origin: tuple[int, int],
) -> None:
    """Draws a part of a signal from `origin`, the pixel of its first sample at 0 mV."""
    import numpy as np

    first, last = (round(second * sampling_hz) for second in seconds)
    part = np.asarray(signal[first:last], dtype=np.float64)
    x = origin[0] + np.arange(len(part)) / sampling_hz * _MM_PER_S * PIXELS_PER_MM
    limit = _ROW_MM  # a row's trace may reach into its neighbours, as on paper, and no further
    y = origin[1] - np.clip(part * _MM_PER_MV, -limit, limit) * PIXELS_PER_MM
    run: list[tuple[int, int]] = []
    for column, row in zip(x, y, strict=True):
        if np.isfinite(row):
            run.append((round(float(column)), round(float(row))))
            continue
        _line(pen, run)
        run = []
    _line(pen, run)


def _line(pen: "ImageDraw", points: list[tuple[int, int]]) -> None:
    if len(points) > 1:
        pen.line(points, _TRACE, width=2)
