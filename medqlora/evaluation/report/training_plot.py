"""The training curves of an adapter: the loss, and the validation's scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medqlora.evaluation.report.context import Curve
from medqlora.evaluation.report.plots import BASE, QUIET, THIS, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: score → its words, colour and line, in the order of the legend
_SCORES = {
    "val/accuracy": ("accuracy", THIS, "-"),
    "val/token_f1": ("token F1", THIS, "-"),
    "val/likelihood_accuracy": ("accuracy by likelihood", "#4a90d9", "--"),
    "val/macro_f1": ("macro-F1", BASE, "-"),
    "val/rouge_l": ("ROUGE-L", BASE, "-"),
    "val/unparsed_fraction": ("unreadable texts", QUIET, ":"),
    "val/base_accuracy": ("bare base, by likelihood", QUIET, "--"),
    "val/majority_accuracy": ("always the majority", "#9ca3af", "-."),
}
#: steps in the running mean of the training loss, at most
_MEAN_OF = 25


def training_figures(curves: Mapping[str, Curve]) -> dict[str, Figure]:
    """Name → figure: `training_loss` and `validation_scores`, those with data."""
    drawn: dict[str, Figure] = {}
    train, val = curves.get("train/loss", ()), curves.get("val/loss", ())
    if train or val:
        drawn["training_loss"] = _loss(train, val)
    if any(curves.get(name) for name in _SCORES):
        drawn["validation_scores"] = _scores(curves)
    return drawn


def running_mean(curve: Curve) -> list[tuple[int, float]]:
    """The mean of each point and those before it, `_MEAN_OF` at most and a tenth of the curve."""
    width = max(1, min(_MEAN_OF, len(curve) // 10))
    values = [value for _, value in curve]
    return [
        (step, sum(values[max(0, place + 1 - width) : place + 1]) / min(width, place + 1))
        for place, (step, _) in enumerate(curve)
    ]


def _loss(train: Curve, val: Curve) -> Figure:
    figure, axes = new_axes(5.2, 3.4, "Loss by optimizer step")
    if train:
        axes.plot(*zip(*train, strict=True), color=THIS, linewidth=0.7, alpha=0.35)
        axes.plot(*zip(*running_mean(train), strict=True), color=THIS, linewidth=1.6, label="training")
    if val:
        axes.plot(
            *zip(*val, strict=True), color=BASE, marker="o", markersize=4, linewidth=1, label="validation"
        )
    axes.set(xlabel="step", ylabel="nats a completion token")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _scores(curves: Mapping[str, Curve]) -> Figure:
    figure, axes = new_axes(5.2, 3.4, "Scores of the validation questions")
    for name, (words, colour, style) in _SCORES.items():
        if curve := curves.get(name):
            steps, values = zip(*curve, strict=True)
            axes.plot(steps, values, color=colour, linestyle=style, marker="o", markersize=3.5, label=words)
    axes.set(xlabel="step", ylim=(-0.02, 1.02))
    axes.legend(fontsize=8, frameon=False)
    return figure
