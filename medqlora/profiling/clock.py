"""Time, memory and a ceiling, on a GPU and on a CPU."""

import statistics
import time
from typing import Any

import torch

from medqlora.utils.host_memory import peak_gib

GIB = 2**30


class Clock:
    """Marks between steps, without waiting for the device between them.

    On a GPU a mark is an event in the stream: the time between two of them is the device's, with whatever
    it waited for the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._marks: list[Any] = []

    def mark(self) -> None:
        if not self._gpu:
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def between_s(self) -> list[float]:
        """Seconds between one mark and the next."""
        if self._gpu and self._marks:
            self._marks[-1].synchronize()
            pairs = zip(self._marks, self._marks[1:], strict=False)
            return [before.elapsed_time(after) / 1e3 for before, after in pairs]
        return [after - before for before, after in zip(self._marks, self._marks[1:], strict=False)]


def reset_peak(device: torch.device) -> None:
    """From here on a peak is counted; what the allocator keeps and nothing uses is given back first."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> dict[str, float]:
    """`peak_allocated_gib` and `peak_reserved_gib`; on a CPU the process's `peak_host_gib` since it began."""
    if device.type == "cuda":
        return {
            "peak_allocated_gib": round(torch.cuda.max_memory_allocated(device) / GIB, 3),
            "peak_reserved_gib": round(torch.cuda.max_memory_reserved(device) / GIB, 3),
        }
    return {"peak_host_gib": round(peak_gib(), 3)}


def matrix_product_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product here and now, the median of some: what no step can pass."""
    size, repeats = (8192, 24) if device.type == "cuda" else (512, 8)
    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)
    out = torch.empty_like(left)
    for _ in range(3):
        torch.mm(left, right, out=out)
    clock = Clock(device)
    clock.mark()
    for _ in range(repeats):
        torch.mm(left, right, out=out)
        clock.mark()
    return 2 * size**3 / statistics.median(clock.between_s())


def hardware(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on."""
    if device.type != "cuda":
        return {"device": "cpu", "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / GIB, 1),
        "compute_capability": f"{properties.major}.{properties.minor}",
    }


def summary(step_s: list[float], tokens: list[int]) -> dict[str, Any]:
    """Speed over timed steps: tokens a second are of all of them, the rest says how they differ.

    Args:
        step_s: seconds of each step.
        tokens: that are not padding, of each step.
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
