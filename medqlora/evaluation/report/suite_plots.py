"""Figures over several question sets and over several adapters: a row has a dot and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medqlora.evaluation.aggregate_data import (
    Aggregate,
)
from medqlora.evaluation.metrics.suite_scores import Tested, suite_scores
from medqlora.evaluation.report.plots import BASE, QUIET, THIS, drawable, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: distance of model and base model from the row's middle
_APART = 0.14


def suite_figure(tested: Sequence[Tested]) -> Figure:
    """Accuracy and interval of model and base model on each set; the last row has the macro averages."""
    average = suite_scores(tested)["macro_average"]
    figure, axes = new_axes(7.2, 1.6 + 0.42 * (len(tested) + 1), "Accuracy by question set")
    heights = list(range(len(tested) + 1))[::-1]
    for y, one in zip(heights, tested, strict=False):
        base = one.scores.base
        up = _APART if base else 0.0
        _dot(axes, y + up, one.scores.accuracy, one.scores.accuracy_ci95, THIS)
        if base:
            _dot(axes, y - up, base["accuracy"], base["accuracy_ci95"], BASE)
    up = _APART if average["base_accuracy"] is not None else 0.0
    _dot(axes, up, average["accuracy"], average["accuracy_ci95"], THIS, marker="D", label="this model")
    if average["base_accuracy"] is not None:
        _dot(axes, -up, average["base_accuracy"], None, BASE, marker="D", label="bare base")
    elif any(one.scores.base for one in tested):
        axes.plot([], [], color=BASE, marker="o", linestyle="none", label="bare base")
    axes.axhline(0.5, color=QUIET, linewidth=0.8)
    _rows(
        figure,
        axes,
        heights,
        [*(f"{drawable(one.name)} ({one.scores.n})" for one in tested), "macro average"],
    )
    return figure


def aggregate_figure(several: Aggregate) -> Figure:
    """Each adapter's accuracy with its interval, their mean, and the base model.

    Args:
        several: as `aggregate` returns it.
    """
    rows, spread, base = several["each"], several["accuracy"], several["base"]
    figure, axes = new_axes(7.2, 1.6 + 0.34 * (len(rows) + 1), "Accuracy by adapter")
    heights = list(range(len(rows) + 1))[::-1]
    for y, row in zip(heights, rows, strict=False):
        label = "an adapter, interval over questions" if row is rows[0] else None
        _dot(axes, y, row["accuracy"], row["accuracy_ci95"], THIS, label=label)
    name = "mean, interval over adapters" if spread["mean_ci95"] else "mean"
    _dot(axes, 0, spread["mean"], spread["mean_ci95"], QUIET, marker="D", label=name)
    if base:
        axes.axvline(base["accuracy"], color=BASE, linewidth=1, linestyle="--", label="bare base")
    axes.axhline(0.5, color=QUIET, linewidth=0.8)
    names = [f"{number} {_end(row['adapter'])}" for number, row in enumerate(rows, 1)]
    _rows(figure, axes, heights, [*names, "mean"])
    return figure


def _end(adapter: object) -> str:
    """The end of a path, where adapters differ."""
    name = str(adapter or "none")
    return drawable(name if len(name) <= 34 else f"...{name[-31:]}")


def _dot(
    axes: Axes,
    y: float,
    value: float,
    interval: Sequence[float] | None,
    colour: str,
    *,
    marker: str = "o",
    label: str | None = None,
) -> None:
    if interval is not None:
        axes.plot(list(interval), [y, y], color=colour, linewidth=1.4)
    axes.plot([value], [y], color=colour, marker=marker, markersize=5, linestyle="none", label=label)


def _rows(figure: Figure, axes: Axes, heights: Sequence[int], names: Sequence[str]) -> None:
    axes.set_yticks(heights, names, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(heights) - 0.4), xlabel="accuracy with 95% interval")
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    # beside the axes a long legend would be cut off; "outside" gives it room of its own
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=3)
