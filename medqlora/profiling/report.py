"""What was measured: a table for the terminal, JSON with everything, CSV, and a plot of speed over memory."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_COLUMNS = (
    "trainer", "setting", "shape", "precision", "tokens_per_s", "tokens_per_s_median", "spread", "step_s",
    "tokens_per_step", "steps", "peak_allocated_gib", "peak_reserved_gib", "peak_host_gib", "planned_gib",
    "plan_error", "flop_utilisation",
    "matrix_product_tflops", "attention", "devices", "tokens_per_s_per_device", "scaling", "quickest_waits",
    "failed",
)  # fmt: skip


def columns(row: dict[str, Any]) -> dict[str, Any]:
    """A row's figures by the CSV's columns, None where there is none.

    `spread` is the distance of the quartiles of a step's tokens a second, as a share of the median.
    """
    quartiles, middle = row.get("tokens_per_s_quartiles"), row.get("tokens_per_s_median")
    case = row["case"]
    values = {
        **row,
        "trainer": case["trainer"],
        "shape": case["shape_name"],
        "precision": case["precision"],
        "devices": case["devices"],
        "spread": None if quartiles is None else round((quartiles[1] - quartiles[0]) / middle, 4),
    }
    return {name: values.get(name) for name in _COLUMNS}


def line(row: dict[str, Any]) -> str:
    """One row of the table; with several devices a second line, about them."""
    values = columns(row)
    begin = f"{values['trainer']:<12}{values['setting']:<44}"
    if values["failed"] is not None:
        return f"{begin}{values['failed']}"
    peak, reserved = values["peak_allocated_gib"], values["peak_reserved_gib"]
    error = values["plan_error"]
    plan = f"{'':>7}" if error is None else f"{error:>+7.1%}"
    memory = f"{values['peak_host_gib']:>9.2f}{'':>10}" if peak is None else f"{peak:>9.2f}{reserved:>10.2f}"
    memory += plan
    used = values["flop_utilisation"]
    share = f"{'':>7}" if used is None else f"{used:>7.1%}"
    speed = f"{values['tokens_per_s']:>9,.0f}{values['spread']:>6.0%}{values['step_s']:>9.3f}"
    return f"{begin}{speed}{memory}{share}" + ("" if values["devices"] == 1 else f"\n{_shared(row)}")


def _shared(row: dict[str, Any]) -> str:
    """How well the devices share the steps."""
    devices, kind = row["case"]["devices"], "GPUs" if row["case"]["device"] == "cuda" else "processes"
    scaling = row.get("scaling")
    return (
        f"{'':<12}{devices} {kind}: {row['tokens_per_s_per_device']:,.0f} tokens/s each, "
        + ("" if scaling is None else f"scaling {scaling:.2f} of {devices}, ")
        + f"the quickest waits {row['quickest_waits']:.1%} of a step"
    )


def heading(device: str) -> str:
    """The names over the table's columns; memory in GiB."""
    peak = f"{'peak GiB':>9}{'reserved':>10}{'plan':>7}"
    if device != "cuda":
        peak = f"{'host GiB':>9}{'':>17}"
    return f"{'trainer':<12}{'setting':<44}{'tokens/s':>9}{'±':>6}{'s/step':>9}{peak}{'FLOPs':>7}"


def write_json(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Everything: each case, its figures, hardware, versions and attention path."""
    path.write_text(
        json.dumps({"rows": list(rows)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        encoding="utf-8",
    )


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A line a row, the cells of what wasn't measured empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(columns(row) for row in rows)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those (memory, speed) that no other passes with as little memory, by rising memory."""
    best: list[tuple[float, float]] = []
    for memory, speed in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or speed > best[-1][1]:
            best.append((memory, speed))
    return best


def write_plot(path: Path, rows: Sequence[dict[str, Any]]) -> bool:
    """A PNG of speed over peak memory, with each trainer's frontier; False, and no file, where none ran."""
    measured: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        values = columns(row)
        memory = values["peak_allocated_gib"] or values["peak_host_gib"]
        if values["failed"] is None and memory is not None:
            point = (memory, values["tokens_per_s"], values["setting"].replace("checkpointing ", ""))
            several = f" × {values['devices']}" if values["devices"] > 1 else ""
            measured.setdefault(values["trainer"] + several, []).append(point)
    if not measured:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (trainer, points), marker in zip(measured.items(), "osD^vP*X", strict=False):
        front = frontier([(memory, speed) for memory, speed, _ in points])
        drawn = axes.plot(*zip(*front, strict=True), linewidth=1)[0]
        axes.scatter(
            [point[0] for point in points],
            [point[1] for point in points],
            marker=marker,
            color=drawn.get_color(),
            label=trainer,
        )
        for memory, speed, setting in points:
            axes.annotate(setting, (memory, speed), (4, 4), textcoords="offset points", fontsize=6)
    axes.set_xlabel("peak memory in GiB")
    axes.set_ylabel("tokens a second that are not padding")
    axes.margins(x=0.15)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=144)
    return True
