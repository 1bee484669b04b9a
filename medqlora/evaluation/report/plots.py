"""The figures of a report, as matplotlib objects that no pyplot knows of.

Texts from data (topics, labels) are drawn as they are: never as mathematics, and without characters that
the font lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from medqlora.evaluation.metrics.scores import Scores, decided
from medqlora.records import Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: dark enough on white, and told apart by colour-blind readers
THIS, BASE, QUIET = "#1f5fa8", "#c2571a", "#6b7280"
#: how many topics the chart shows; the table in the report has all
TOPICS_SHOWN = 20
_TEXT_LENGTH = 42


def figures(scores: Scores, predictions: Sequence[Prediction]) -> dict[str, Figure]:
    """Name → figure, for the report and for TensorBoard; only those that the scores have data for.

    `reliability`, `risk_coverage` and `confidence` need label likelihoods; `confusion`, `confusion_base`,
    `by_topic` and `by_context_length` do not.

    Args:
        scores: of these predictions.
        predictions: as the model made them, before any normalisation.
    """
    report = scores.to_json()
    made: dict[str, Figure] = {}
    if report.get("confusion_matrix"):
        made["confusion"] = _confusion(report["confusion_matrix"], "This model" if report["base"] else "")
    if report["base"] and report["base"].get("confusion_matrix"):
        made["confusion_base"] = _confusion(report["base"]["confusion_matrix"], "The bare base")
    if report.get("calibration"):
        made["reliability"] = _reliability(report)
    if report.get("selective"):
        made["risk_coverage"] = _risk_coverage(report)
        made["confidence"] = _confidence(report, predictions)
    if len(report.get("by_context_length") or []) > 1:
        made["by_context_length"] = _groups(
            report["by_context_length"], report, "Accuracy by length of the prompt, in tokens"
        )
    if report["by_topic"]:
        topics = [row for row in report["by_topic"] if not row.get("merged_groups")][:TOPICS_SHOWN]
        # where nearly every question has some rare heading, "other" is all of them and shows nothing
        rest = [row for row in report["by_topic"] if row.get("merged_groups") and row["n"] < 0.9 * scores.n]
        made["by_topic"] = _groups(topics + rest, report, "Accuracy by topic (MeSH)")
    return made


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
        one if one.isprintable() and font.get_char_index(ord(one)) else "?" for one in " ".join(text.split())
    )
    return known if len(known) <= _TEXT_LENGTH else f"{known[: _TEXT_LENGTH - 3]}..."


def new_axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """An empty figure of `width` by `height` inches with the look that all share."""
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9)
    return figure, axes


def _reliability(report: dict[str, Any]) -> Figure:
    figure, axes = new_axes(5.2, 4.4, "Reliability of the confidence")
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", label="perfect")
    bins = [one for one in report["calibration"]["bins"] if one["n"]]
    accuracy = [one["accuracy"] for one in bins]
    below = [max(0.0, one["accuracy"] - one["accuracy_ci95"][0]) for one in bins]
    above = [max(0.0, one["accuracy_ci95"][1] - one["accuracy"]) for one in bins]
    confidence = [one["confidence"] for one in bins]
    axes.errorbar(
        confidence, accuracy, yerr=[below, above], color=THIS, fmt="o", markersize=5, capsize=2, linewidth=1,
        label=f"as scored: ECE {report['ece']:.3f}",
    )  # fmt: skip
    for x, y, one in zip(confidence, accuracy, bins, strict=True):
        axes.annotate(
            str(one["n"]), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7, color=QUIET
        )
    if report.get("temperature"):
        after = [one for one in report["temperature"]["bins_after"] if one["n"]]
        axes.plot(
            [one["confidence"] for one in after],
            [one["accuracy"] for one in after],
            color=BASE, marker="s", markersize=4, linestyle="none",
            label=f"temperature {report['temperature']['value']:.2f}: ECE {report['temperature']['after']['ece']:.3f}",
        )  # fmt: skip
    axes.set(
        xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy (95% interval; n beside it)"
    )
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def _risk_coverage(report: dict[str, Any]) -> Figure:
    figure, axes = new_axes(5.2, 4.4, "Risk if the least sure are declined")
    lines = [("this model", THIS, report["selective"])]
    if report["base"] and report["base"].get("selective"):
        lines.append(("bare base", BASE, report["base"]["selective"]))
    highest = 0.0
    for name, colour, block in lines:
        coverage, risk = zip(*block["curve"], strict=True)
        label = f"{name}: AURC {block['aurc']:.3f}"
        axes.plot(
            coverage, risk, color=colour, linewidth=1.6, marker="." if len(risk) < 3 else "", label=label
        )
        highest = max(highest, *risk)
    at = report["selective"]
    axes.axvline(at["coverage"], color=QUIET, linewidth=0.8, linestyle=":")
    axes.annotate(
        f"{at['accuracy_at_coverage']:.1%} right\nat {at['coverage']:.0%} coverage",
        (at["coverage"], 0), xytext=(-4, 6), textcoords="offset points", ha="right", fontsize=8, color=QUIET,
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, min(1.02, highest * 1.15 + 0.02)))
    axes.set(xlabel="coverage: share of the questions answered", ylabel="risk: share of those that is wrong")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _confidence(report: dict[str, Any], predictions: Sequence[Prediction]) -> Figure:
    figure, axes = new_axes(5.2, 3.2, "How sure it is when right and when wrong")
    compared = decided(predictions, report["normalisation"], report["prior"])
    values: dict[bool, list[float]] = {True: [], False: []}
    for one in compared:
        values[one.decision == one.gold].append(float(one.confidence or 0.0))
    axes.hist(
        [values[True], values[False]], bins=15, range=(0, 1), color=[THIS, BASE], stacked=True,
        label=[f"right ({len(values[True])})", f"wrong ({len(values[False])})"],
    )  # fmt: skip
    axes.set(xlim=(0, 1), xlabel="confidence", ylabel="questions")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _confusion(matrix: dict[str, Any], title: str) -> Figure:
    rows, columns, counts = matrix["rows_gold"], matrix["columns_decision"], matrix["counts"]
    figure, axes = new_axes(2.2 + 0.75 * len(columns), 1.7 + 0.65 * len(rows), title or "Confusion matrix")
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            colour = "white" if shares[y][x] > 0.55 else "#111827"
            axes.text(
                x, y, f"{count}\n{shares[y][x]:.0%}", ha="center", va="center", fontsize=8, color=colour
            )
    axes.set(xlabel="decision", ylabel="right answer")
    axes.set_xticks(range(len(columns)), [drawable(one) for one in columns], parse_math=False)
    axes.set_yticks(range(len(rows)), [drawable(one) for one in rows], parse_math=False)
    for side in ("bottom", "left"):
        axes.spines[side].set_visible(False)
    return figure


def _groups(rows: Sequence[dict[str, Any]], report: dict[str, Any], title: str) -> Figure:
    figure, axes = new_axes(7.2 if len(rows) > 8 else 5.2, 1.3 + 0.26 * len(rows), title)
    places = list(range(len(rows)))[::-1]
    for place, row in zip(places, rows, strict=True):
        low, high = row["accuracy_ci95"]
        axes.plot([low, high], [place, place], color=THIS, linewidth=1.2)
        axes.plot([row["accuracy"]], [place], color=THIS, marker="o", markersize=4.5)
    axes.axvline(report["accuracy"], color=QUIET, linewidth=1, linestyle="--", label="all questions")
    names = [f"{drawable(row['group'])} ({row['n']})" for row in rows]
    axes.set_yticks(places, names, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(-0.7, len(rows) - 0.3), xlabel="accuracy with 95% interval")
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    return figure
