"""The figures of a case: their types, and one row from the measurements of several processes."""

import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict

from medqlora.profiling.case import Case

PeakName = Literal["peak_allocated_gib", "peak_reserved_gib", "peak_host_gib"]
_PEAKS: tuple[PeakName, ...] = ("peak_allocated_gib", "peak_reserved_gib", "peak_host_gib")


class Peaks(TypedDict, total=False):
    """Peak memory: the allocator's on a GPU, the process's on a CPU."""

    peak_allocated_gib: float
    peak_reserved_gib: float
    peak_host_gib: float


def used_gib(peaks: Peaks) -> float:
    """Peak memory that was used: the allocated one on a GPU."""
    return peaks["peak_allocated_gib"] if "peak_allocated_gib" in peaks else peaks["peak_host_gib"]


class Share(TypedDict):
    """The measurements of one process.

    `computing_s` is a step's time up to this process's own gradients. `flops_per_s` is the speed of a large
    matrix product. `tokens` counts all processes, `flops` this one.
    """

    step_s: list[float]
    computing_s: list[float]
    tokens: list[int]
    flops: float
    flops_per_s: float
    peaks: Peaks
    planned_gib: float | None
    loaded_gib: float
    loss: float
    attention: str
    hardware: dict[str, str | int | float]


class Figures(Peaks, total=False):
    """The figures of a case, or why it `failed`; `input_error` if the user can correct it. Keys as in bench.json."""

    failed: str
    input_error: bool
    tokens_per_s: float
    tokens_per_s_median: float
    tokens_per_s_quartiles: list[float]
    step_s: float
    tokens_per_step: float
    steps: int
    tokens_per_s_per_device: float
    quickest_waits: float
    scaling: float
    planned_gib: float | None
    plan_error: float | None
    loaded_gib: float
    flop_utilisation: float | None
    matrix_product_tflops: float
    loss: float
    attention: str
    hardware: dict[str, str | int | float]
    versions: dict[str, str]
    written: str


class Row(NamedTuple):
    """A case with its figures."""

    case: Case
    figures: Figures

    def to_json(self) -> dict[str, object]:
        """The row as bench.json holds it."""
        return {"case": self.case.to_json(), "setting": self.case.described(), **self.figures}


def summary(step_s: Sequence[float], tokens: Sequence[int]) -> Figures:
    """Speed over the timed steps: `tokens_per_s` covers all of them, the other figures show the variation.

    Args:
        step_s: seconds of each step.
        tokens: tokens of each step without padding.
    """
    speeds = [count / seconds for count, seconds in zip(tokens, step_s, strict=True)]
    low, middle, high = statistics.quantiles(speeds, n=4) if len(speeds) > 1 else (speeds[0],) * 3
    return {
        "tokens_per_s": round(sum(tokens) / sum(step_s), 1),
        "tokens_per_s_median": round(middle, 1),
        "tokens_per_s_quartiles": [round(low, 1), round(high, 1)],
        "step_s": round(statistics.median(step_s), 6),
        "tokens_per_step": round(statistics.mean(tokens), 1),
        "steps": len(step_s),
    }


def combined(shares: Sequence[Share]) -> Figures:
    """The figures of a case, from the measurements of each of its processes.

    Tokens are of all processes, over the time of the slowest; memory is the maximum. Several processes also have
    `tokens_per_s_per_device`, and `quickest_waits`: how long the fastest process waits for the slowest, as a share
    of the steps' time.
    """
    first = shares[0]
    step_s = max((share["step_s"] for share in shares), key=sum)
    planned = max(
        (share["planned_gib"] for share in shares if share["planned_gib"] is not None), default=None
    )
    ceiling = sum(share["flops_per_s"] for share in shares)
    figures = summary(step_s, first["tokens"])
    if len(shares) > 1:
        computing_s = zip(*(share["computing_s"] for share in shares), strict=True)
        waiting_s = sum(max(seconds) - min(seconds) for seconds in computing_s)
        figures["tokens_per_s_per_device"] = round(figures["tokens_per_s"] / len(shares), 1)
        figures["quickest_waits"] = round(waiting_s / sum(step_s), 4)
    for name in _PEAKS:
        if name in first["peaks"]:
            figures[name] = max(share["peaks"][name] for share in shares)
    peak = figures.get("peak_allocated_gib")
    figures.update(
        {
            "planned_gib": None if planned is None else round(planned, 3),
            "plan_error": None if planned is None or peak is None else round(planned / peak - 1, 4),
            "loaded_gib": max(share["loaded_gib"] for share in shares),
            "flop_utilisation": round(sum(share["flops"] for share in shares) / sum(step_s) / ceiling, 4),
            "matrix_product_tflops": round(ceiling / len(shares) / 1e12, 3),
            "loss": round(first["loss"], 4),
            "attention": first["attention"],
            "hardware": first["hardware"],
        }
    )
    return figures
