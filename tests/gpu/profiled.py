"""What a GPU did in a pass, by kind of kernel."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

#: kind → parts of its kernels' names, the first that fits
KINDS = {
    "nccl": ("nccl",),
    "products": ("nvjet", "gemm", "cutlass", "xmma", "cublas"),
    "flash": ("flash", "fmha"),
    "dequantize": ("nf4", "dequant"),
    "FSDP's copies": ("split_with_sizes", "multi_tensor_apply_kernel<at::native::(anonymous namespace)::Copy",
                      "foreach_copy"),
    "to the host": ("Memcpy DtoH",),
    "from the host": ("Memcpy HtoD",),
    "copies on the device": ("Memcpy DtoD", "Memcpy PtoP"),
}  # fmt: skip


def kernel_summary(run: Callable[[], object], device: torch.device) -> str:
    """Milliseconds by kind of one `run` after another, busy and idle time of the busiest stream; "" on a CPU."""
    if device.type != "cuda":
        run()
        return ""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return summary(events)


def summary(events: list[dict]) -> str:  # type: ignore[type-arg]
    kernels = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    if not kernels:
        return "no kernels"
    spent: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    streams: dict[int, list[tuple[float, float]]] = defaultdict(list)
    names: dict[str, float] = defaultdict(float)
    for event in kernels:
        found = (kind for kind, parts in KINDS.items() if any(part in event["name"] for part in parts))
        kind = next(found, "rest")
        spent[kind] += event["dur"] / 1e3
        counts[kind] += 1
        streams[event["args"]["stream"]].append((event["ts"], event["ts"] + event["dur"]))
        if kind in ("rest", "FSDP's copies", "nccl"):
            names[event["name"][:70]] += event["dur"] / 1e3
    begin, end = min(event["ts"] for event in kernels), max(event["ts"] + event["dur"] for event in kernels)
    busy = {stream: covered(spans) / 1e3 for stream, spans in streams.items()}
    kinds = ", ".join(
        f"{kind} {spent[kind]:.2f} ms in {counts[kind]}" for kind in [*KINDS, "rest"] if kind in spent
    )
    longest = sorted(names.items(), key=lambda item: -item[1])[:5]
    return (
        f"{(end - begin) / 1e3:.2f} ms in all; {kinds}; busy by stream: "
        + ", ".join(f"{stream} {ms:.2f}" for stream, ms in sorted(busy.items(), key=lambda item: -item[1]))
        + "; of the rest: "
        + ", ".join(f"{name} {ms:.2f}" for name, ms in longest)
    )


def covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of spans."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
