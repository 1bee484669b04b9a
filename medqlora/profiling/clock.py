"""Time, peak memory and the speed of a matrix product, on a GPU and on a CPU."""

import statistics
import time

import torch

from medqlora.planner.memory import GIB
from medqlora.profiling.figures import Peaks
from medqlora.utils.host_memory import peak_gib


class Clock:
    """Time marks between steps, without a device sync.

    On a GPU a mark is an event in the stream, so the time between two marks is the device's, with its waits for
    the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def restart(self) -> None:
        """Forgets all marks."""
        self._events.clear()
        self._times.clear()

    def mark(self) -> None:
        if not self._gpu:
            self._times.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def between_s(self) -> list[float]:
        """Seconds between each mark and the next."""
        if self._events:
            self._events[-1].synchronize()
            pairs = zip(self._events, self._events[1:], strict=False)
            return [before.elapsed_time(after) / 1e3 for before, after in pairs]
        return [after - before for before, after in zip(self._times, self._times[1:], strict=False)]


def reset_peak(device: torch.device) -> None:
    """Starts a new peak, after unused memory of the allocator is released."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> Peaks:
    """Peak memory since `reset_peak`; on a CPU since the process started."""
    if device.type == "cuda":
        return {
            "peak_allocated_gib": round(torch.cuda.max_memory_allocated(device) / GIB, 3),
            "peak_reserved_gib": round(torch.cuda.max_memory_reserved(device) / GIB, 3),
        }
    return {"peak_host_gib": round(peak_gib(), 3)}


def matrix_product_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product, the median of several: an upper bound for a step."""
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


def hardware(device: torch.device) -> dict[str, str | int | float]:
    """The machine that was measured."""
    if device.type != "cuda":
        return {"device": "cpu", "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / GIB, 1),
        "compute_capability": f"{properties.major}.{properties.minor}",
    }
