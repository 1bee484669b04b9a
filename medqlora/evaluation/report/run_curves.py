"""Figures that draw the training curves of several runs into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from medqlora.evaluation.report.context import Curve
from medqlora.evaluation.report.plots import QUIET, drawable, new_axes
from medqlora.evaluation.report.training_plot import running_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: distinct for colour-blind readers (Wong 2011, https://doi.org/10.1038/nmeth.1618), then the same dashed
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
#: score → its words
_SCORES = {
    "val/accuracy": "validation accuracy",
    "val/macro_f1": "validation macro-F1",
    "val/loss": "validation loss, nats a token",
}


def curve_figures(curves: Mapping[str, Mapping[str, Curve]]) -> dict[str, Figure]:
    """Name → figure: the training loss, and each validation score that a run has; a line a run.

    Args:
        curves: name of the run → tag → curve.
    """
    drawn: dict[str, Figure] = {}
    train = {
        name: running_mean(tags["train/loss"]) for name, tags in curves.items() if tags.get("train/loss")
    }
    if train:
        drawn["training_loss"] = _lines(
            train, "Training loss, running mean", "nats a completion token", markers=False
        )
    for tag, words in _SCORES.items():
        found = {name: tags[tag] for name, tags in curves.items() if tags.get(tag)}
        if found:
            drawn[tag.partition("/")[2]] = _lines(found, f"{words[0].upper()}{words[1:]}", words)
    return drawn


def _lines(
    curves: Mapping[str, Sequence[tuple[int, float]]], title: str, label: str, *, markers: bool = True
) -> Figure:
    figure, axes = new_axes(6.4, 4.0, title)
    for place, (name, curve) in enumerate(curves.items()):
        steps, values = zip(*curve, strict=True)
        axes.plot(
            steps,
            values,
            color=_COLOURS[place % len(_COLOURS)],
            linestyle="-" if place < len(_COLOURS) else "--",
            marker="o" if markers else "",
            markersize=3,
            linewidth=1.2,
            label=drawable(name),
        )
    axes.set(xlabel="optimizer step", ylabel=label)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    if len(curves) > 1:
        figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    else:
        axes.legend(fontsize=8, frameon=False, labelcolor=QUIET)
    return figure
