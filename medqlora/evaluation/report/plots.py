"""Figures of a report, as matplotlib objects without pyplot.

Texts from data (topics, labels) are drawn literally: never as mathematics, and without characters that the
font lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from medqlora.evaluation.metrics.scores import Scores, decided
from medqlora.evaluation.report_data import CalibrationBin, ConfusionMatrix, Group, Report, Selective
from medqlora.records import Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: dark enough on white, and distinct for colour-blind readers
THIS, BASE, QUIET = "#1f5fa8", "#c2571a", "#6b7280"
#: topics in the chart; the report's table has all
TOPICS_SHOWN = 20
_TEXT_LENGTH = 42


def figures(scores: Scores, predictions: Sequence[Prediction]) -> dict[str, Figure]:
    """Name → figure, for the report and for TensorBoard; only figures with data.

    `reliability`, `risk_coverage` and `confidence` need label likelihoods; `confusion`, `confusion_base`,
    `by_topic` and `by_context_length` do not.

    Args:
        scores: of these predictions.
        predictions: as the model scored them, before any normalisation.
    """
    report, base = scores.to_json(), scores.base
    drawn: dict[str, Figure] = {}
    if scores.confusion_matrix:
        drawn["confusion"] = confusion(scores.confusion_matrix, "This model" if base else "Confusion matrix")
    if base and (matrix := base.get("confusion_matrix")):
        drawn["confusion_base"] = confusion(matrix, "The bare base")
    if bins := report.get("calibration"):
        drawn["reliability"] = _reliability(bins["bins"], report)
    if curve := report.get("selective"):
        drawn["risk_coverage"] = _risk_coverage(curve, base.get("selective") if base else None)
        drawn["confidence"] = _confidence(report, predictions)
    lengths = report.get("by_context_length", [])
    if len(lengths) > 1:
        title = "Accuracy by length of the prompt, in tokens"
        drawn["by_context_length"] = _groups(lengths, scores.accuracy, title)
    if scores.by_topic:
        topics = [row for row in scores.by_topic if not row.get("merged_groups")][:TOPICS_SHOWN]
        # where nearly every question has some rare heading, "other" is all of them and shows nothing
        rest = [row for row in scores.by_topic if row.get("merged_groups") and row["n"] < 0.9 * scores.n]
        title = f"Accuracy by {report.get('topic_kind', 'topic')}"
        drawn["by_topic"] = _groups(topics + rest, scores.accuracy, title)
    return drawn


def svg(figure: Figure) -> bytes:
    """`figure` as SVG with its letters as outlines; the same figure gives the same bytes."""
    import matplotlib

    out = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "medqlora", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def drawable(text: str) -> str:
    """`text` without what the font can't draw, cut to the width of a chart's margin."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    known = "".join(
        letter if letter.isprintable() and font.get_char_index(ord(letter)) else "?"
        for letter in " ".join(text.split())
    )
    return known if len(known) <= _TEXT_LENGTH else f"{known[: _TEXT_LENGTH - 3]}..."


def new_axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """An empty figure of `width` by `height` inches in the style of all figures."""
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9)
    return figure, axes


def _reliability(bins: Sequence[CalibrationBin], report: Report) -> Figure:
    figure, axes = new_axes(5.2, 4.4, "Reliability of the confidence")
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", label="perfect")
    points = _points(bins)
    confidence, accuracy = [point[0] for point in points], [point[1] for point in points]
    below = [max(0.0, point[1] - point[2][0]) for point in points]
    above = [max(0.0, point[2][1] - point[1]) for point in points]
    axes.errorbar(
        confidence, accuracy, yerr=[below, above], color=THIS, fmt="o", markersize=5, capsize=2, linewidth=1,
        label=f"as scored: ECE {report['ece']:.3f}",
    )  # fmt: skip
    for x, y, _, n in points:
        axes.annotate(str(n), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7, color=QUIET)
    if (temperature := report.get("temperature")) and not temperature.get("why_not_fitted"):
        after = _points(temperature["bins_after"])
        axes.plot(
            [point[0] for point in after], [point[1] for point in after],
            color=BASE, marker="s", markersize=4, linestyle="none",
            label=f"temperature {temperature['value']:.2f}: ECE {temperature['after']['ece']:.3f}",
        )  # fmt: skip
    axes.set(
        xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy (95% interval; n beside it)"
    )
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def _points(bins: Sequence[CalibrationBin]) -> list[tuple[float, float, list[float], int]]:
    """Confidence, accuracy, its interval and the count of each bin that holds questions."""
    return [
        (one["confidence"], one["accuracy"], one["accuracy_ci95"], one["n"])
        for one in bins
        if one["confidence"] is not None and one["accuracy"] is not None and one["accuracy_ci95"] is not None
    ]


def _risk_coverage(this: Selective, base: Selective | None) -> Figure:
    figure, axes = new_axes(5.2, 4.4, "Risk if the least sure are declined")
    lines = [("this model", THIS, this), *([("bare base", BASE, base)] if base else [])]
    highest = 0.0
    for name, colour, curve in lines:
        coverage, risk = zip(*curve["curve"], strict=True)
        label = f"{name}: AURC {curve['aurc']:.3f}"
        axes.plot(
            coverage, risk, color=colour, linewidth=1.6, marker="." if len(risk) < 3 else "", label=label
        )
        highest = max(highest, *risk)
    axes.axvline(this["coverage"], color=QUIET, linewidth=0.8, linestyle=":")
    axes.annotate(
        f"{this['accuracy_at_coverage']:.1%} right\nat {this['coverage']:.0%} coverage",
        (this["coverage"], 0), xytext=(-4, 6), textcoords="offset points", ha="right", fontsize=8, color=QUIET,
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, min(1.02, highest * 1.15 + 0.02)))
    axes.set(xlabel="coverage: share of the questions answered", ylabel="risk: share of those that is wrong")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _confidence(report: Report, predictions: Sequence[Prediction]) -> Figure:
    figure, axes = new_axes(5.2, 3.2, "How sure it is when right and when wrong")
    values: dict[bool, list[float]] = {True: [], False: []}
    for prediction in decided(predictions, report["normalisation"], report["prior"]):
        values[prediction.decision == prediction.gold].append(float(prediction.confidence or 0.0))
    axes.hist(
        [values[True], values[False]], bins=15, range=(0, 1), color=[THIS, BASE], stacked=True,
        label=[f"right ({len(values[True])})", f"wrong ({len(values[False])})"],
    )  # fmt: skip
    axes.set(xlim=(0, 1), xlabel="confidence", ylabel="questions")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def confusion(matrix: ConfusionMatrix, title: str) -> Figure:
    """Counts and shares of the rows; rows are right answers, columns decisions."""
    rows, columns, counts = matrix["rows_gold"], matrix["columns_decision"], matrix["counts"]
    figure, axes = new_axes(2.2 + 0.75 * len(columns), 1.7 + 0.65 * len(rows), title)
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            colour = "white" if shares[y][x] > 0.55 else "#111827"
            axes.text(
                x, y, f"{count}\n{shares[y][x]:.0%}", ha="center", va="center", fontsize=8, color=colour
            )
    axes.set(xlabel="decision", ylabel="right answer")
    axes.set_xticks(range(len(columns)), [drawable(label) for label in columns], parse_math=False)
    axes.set_yticks(range(len(rows)), [drawable(label) for label in rows], parse_math=False)
    for side in ("bottom", "left"):
        axes.spines[side].set_visible(False)
    return figure


def _groups(rows: Sequence[Group], overall: float, title: str) -> Figure:
    figure, axes = new_axes(7.2 if len(rows) > 8 else 5.2, 1.3 + 0.26 * len(rows), title)
    heights = list(range(len(rows)))[::-1]
    for y, row in zip(heights, rows, strict=True):
        axes.plot(row["accuracy_ci95"], [y, y], color=THIS, linewidth=1.2)
        axes.plot([row["accuracy"]], [y], color=THIS, marker="o", markersize=4.5)
    axes.axvline(overall, color=QUIET, linewidth=1, linestyle="--", label="all questions")
    names = [f"{drawable(row['group'])} ({row['n']})" for row in rows]
    axes.set_yticks(heights, names, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(-0.7, len(rows) - 0.3), xlabel="accuracy with 95% interval")
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    return figure
