"""Figures of an exported model against the live one: how far each label's log-probability moved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from medqlora.evaluation.report.plots import BASE, QUIET, THIS, new_axes
from medqlora.evaluation.verification import Verification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: points of the scatter plot, the largest differences first: more would only make the page large
POINTS_SHOWN = 3_000


def verification_figures(verification: Verification) -> dict[str, Figure]:
    """Name → figure: `differences` (histogram) and `log_probabilities` (scatter); none without finite values."""
    points = [
        (before, after)
        for question in verification.questions
        for before, after in zip(question.live, question.exported, strict=True)
        if math.isfinite(before) and math.isfinite(after)
    ]
    if not points:
        return {}
    points.sort(key=lambda point: -abs(point[1] - point[0]))
    limit = verification.limits.difference
    return {"differences": _histogram(points, limit), "log_probabilities": _scatter(points[:POINTS_SHOWN])}


def _histogram(points: list[tuple[float, float]], limit: float) -> Figure:
    figure, axes = new_axes(5.2, 3.8, "Change of a label's log-probability")
    changes = [after - before for before, after in points]
    reach = max(map(abs, changes)) or 1e-9
    axes.hist(changes, bins=31, range=(-reach, reach), color=THIS)
    axes.axvline(0, color=QUIET, linewidth=1, linestyle="--")
    if limit <= 4 * reach:  # further away it would squeeze the histogram
        for side in (-limit, limit):
            axes.axvline(side, color=BASE, linewidth=1, linestyle=":", label="limit" if side > 0 else None)
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes.set(xlabel="exported minus live, nats", ylabel="labels of all questions")
    return figure


def _scatter(points: list[tuple[float, float]]) -> Figure:
    figure, axes = new_axes(5.2, 3.8, "log p of each label")
    before, after = zip(*points, strict=True)
    low, high = min(*before, *after), max(*before, *after)
    axes.plot([low, high], [low, high], color=QUIET, linewidth=1, linestyle="--", label="equal")
    axes.plot(before, after, color=THIS, marker="o", markersize=3, linestyle="none", alpha=0.6)
    axes.set(xlabel="live, nats", ylabel="exported, nats")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure
