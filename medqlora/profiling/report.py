"""The benchmark's results: a table for the terminal, JSON with everything, CSV, and a plot of speed over memory."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.profiling.figures import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = (
    "trainer", "setting", "shape", "precision", "tokens_per_s", "tokens_per_s_median", "spread", "step_s",
    "tokens_per_step", "steps", "peak_allocated_gib", "peak_reserved_gib", "peak_host_gib", "planned_gib",
    "plan_error", "flop_utilisation",
    "matrix_product_tflops", "attention", "devices", "tokens_per_s_per_device", "scaling", "quickest_waits",
    "failed",
)  # fmt: skip


def _spread(row: Row) -> float | None:
    """The interquartile range of a step's tokens per second, relative to the median."""
    if "tokens_per_s_quartiles" not in row.figures:
        return None
    low, high = row.figures["tokens_per_s_quartiles"]
    return round((high - low) / row.figures["tokens_per_s_median"], 4)


def columns(row: Row) -> dict[str, object]:
    """The values of the CSV's columns, None for a missing one."""
    case = row.case
    values: dict[str, object] = {
        **row.figures,
        "trainer": case.trainer,
        "setting": case.described(),
        "shape": case.shape_name,
        "precision": case.precision,
        "devices": case.devices,
        "spread": _spread(row),
    }
    return {name: values.get(name) for name in _COLUMNS}


def line(row: Row) -> str:
    """One row of the table; several devices have a second line."""
    case, figures = row
    begin = f"{case.trainer:<12}{case.described():<44}"
    if figures.get("failed") is not None:
        return f"{begin}{figures['failed']}"
    error = figures.get("plan_error")
    if "peak_allocated_gib" in figures:
        memory = f"{figures['peak_allocated_gib']:>9.2f}{figures['peak_reserved_gib']:>10.2f}"
    else:
        memory = f"{figures['peak_host_gib']:>9.2f}{'':>10}"
    memory += f"{'':>7}" if error is None else f"{error:>+7.1%}"
    used = figures.get("flop_utilisation")
    share = f"{'':>7}" if used is None else f"{used:>7.1%}"
    speed = f"{figures['tokens_per_s']:>9,.0f}{_spread(row) or 0:>6.0%}{figures['step_s']:>9.3f}"
    return f"{begin}{speed}{memory}{share}" + ("" if case.devices == 1 else f"\n{_several(row)}")


def _several(row: Row) -> str:
    """The figures of several devices."""
    case, figures = row
    kind, scaling = "GPUs" if case.device == "cuda" else "processes", figures.get("scaling")
    return (
        f"{'':<12}{case.devices} {kind}: {figures['tokens_per_s_per_device']:,.0f} tokens/s each, "
        + ("" if scaling is None else f"scaling {scaling:.2f} of {case.devices}, ")
        + f"fastest device idle {figures['quickest_waits']:.1%} of the step"
    )


def heading(device: str) -> str:
    """The table's column names; memory is in GiB."""
    peak = f"{'peak GiB':>9}{'reserved':>10}{'plan':>7}"
    if device != "cuda":
        peak = f"{'host GiB':>9}{'':>17}"
    return f"{'trainer':<12}{'setting':<44}{'tokens/s':>9}{'±':>6}{'s/step':>9}{peak}{'FLOPs':>7}"


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Writes each case, its figures, hardware, versions and attention path."""
    values = {"rows": [row.to_json() for row in rows]}
    path.write_text(
        json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes a line per row; cells without a measurement are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(columns(row) for row in rows)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto-optimal points (memory, speed), by rising memory."""
    best: list[tuple[float, float]] = []
    for memory, speed in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or speed > best[-1][1]:
            best.append((memory, speed))
    return best


def write_plot(path: Path, rows: Sequence[Row]) -> bool:
    """Writes a PNG of speed over peak memory with each trainer's frontier; False, and no file, without results."""
    measured: dict[str, list[tuple[float, float, str]]] = {}
    for case, figures in rows:
        memory = figures.get("peak_allocated_gib") or figures.get("peak_host_gib")
        if figures.get("failed") is None and memory is not None:
            point = (memory, figures["tokens_per_s"], case.described().replace("checkpointing ", ""))
            several = f" × {case.devices}" if case.devices > 1 else ""
            measured.setdefault(case.trainer + several, []).append(point)
    if not measured:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (trainer, points), marker in zip(measured.items(), "osD^vP*X", strict=False):
        _draw(axes, trainer, points, marker)
    axes.set_xlabel("peak memory in GiB")
    axes.set_ylabel("tokens per second without padding")
    axes.margins(x=0.15)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=144)
    return True


def _draw(axes: "Axes", trainer: str, points: Sequence[tuple[float, float, str]], marker: str) -> None:
    """One trainer's points (memory, speed, setting) and its frontier."""
    front = frontier([(memory, speed) for memory, speed, _ in points])
    memories, speeds, settings = zip(*points, strict=True)
    drawn = axes.plot(*zip(*front, strict=True), linewidth=1)[0]
    axes.scatter(memories, speeds, marker=marker, color=drawn.get_color(), label=trainer)
    for memory, speed, setting in zip(memories, speeds, settings, strict=True):
        axes.annotate(setting, (memory, speed), (4, 4), textcoords="offset points", fontsize=6)
