"""Figures of `medqlora data`: lengths against the prompt limit, and the packing of the first steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medqlora.evaluation.data_look import SET_NAMES, DataLook, Row
from medqlora.evaluation.report.plots import BASE, QUIET, THIS, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"train": THIS, "dev": BASE, "test": QUIET}


def lengths_figure(look: DataLook) -> Figure:
    """Histogram of the prompts' lengths before they are shortened, a line at the limit."""
    figure, axes = new_axes(7.2, 3.4, "Prompts by length, before any is shortened")
    values = {
        name: [len(example.prompt) + example.dropped for example in encoded]
        for name, encoded in look.encoded.items()
        if encoded
    }
    axes.hist(
        list(values.values()),
        bins=40,
        stacked=True,
        color=[_COLOURS[name] for name in values],
        label=[f"{SET_NAMES[name]} ({len(lengths):,})" for name, lengths in values.items()],
    )
    axes.axvline(look.max_prompt_tokens, color="#b3261e", linewidth=1.2, linestyle="--", label="limit")
    axes.set(xlabel="prompt tokens", ylabel="questions", xlim=(0, None))
    axes.legend(fontsize=8, frameon=False)
    return figure


def packing_figure(steps: Sequence[Sequence[Row]], budget: int) -> Figure:
    """One bar a micro-batch: prompts pale, learned tokens dark, a gap between two examples."""
    bars = [
        (f"step {number + 1}, row {place + 1}", row)
        for number, step in enumerate(steps)
        for place, row in enumerate(step)
    ]
    figure, axes = new_axes(7.2, 1.3 + 0.3 * len(bars), "Micro-batches of the first steps")
    for height, (_, row) in enumerate(bars):
        begin = 0
        for prompt, learned in row.examples:
            axes.barh(
                height, prompt, left=begin, height=0.7, color="#c9d6e6", edgecolor="white", linewidth=0.8
            )
            axes.barh(height, learned, left=begin + prompt, height=0.7, color=THIS, linewidth=0)
            begin += prompt + learned
    axes.axvline(budget, color="#b3261e", linewidth=1.2, linestyle="--")
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.set(xlabel="tokens; the dashed line is micro_batch_tokens")
    return figure
