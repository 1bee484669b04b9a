"""Where the time of a training step goes on a GPU: its speed, its kernels by kind, and the gaps between them.

    python tests/gpu/step_kernels.py {llama-3-8b|tiny} [CASE …]

A case is a setting such as `2k_nf4_graphs`, the same with `_kernels`, or a case of `graph_steps.py`.

Weights are random NF4 of the shape, lengths are PubMedQA's. One JSON line a case.
"""

import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from graph_steps import GPU, Bench, all_cases, free, gib, say, synchronize, timed

from medqlora.data.batching.packing import StepBatch
from medqlora.fused.kernels import attention, swiglu_lora

#: (kind, what a kernel's name contains), the first that matches
KINDS = (
    ("attention", r"flash|fmha|_attend|_queries|_keys|cudnn"),
    ("dequantization", r"_dequantize|kDequant|\bdeq\b"),
    ("SwiGLU", r"_swiglu"),
    ("norms", r"_rms_norm"),
    ("rotation", r"_rotate"),
    ("loss", r"_cross_entropy"),
    ("optimizer", r"kOptimizer|_adamw|multi_tensor|LpNorm|lpnorm"),
    ("split sums", r"splitK|splitk|split_k"),
    ("products", r"gemm|nvjet|cutlass|xmma|s16816|ampere|sm90|gemv"),
    ("host copies", r"Memcpy (HtoD|DtoH)"),
    ("copies", r"copy|Memcpy|CatArray"),
    ("fills", r"fill|Memset|FillFunctor"),
)


def kind_of(name: str, taken_us: float, tokens: int) -> str:
    kind = next((kind for kind, pattern in KINDS if re.search(pattern, name)), "others")
    if kind == "products":  # LoRA's take less than the least of the base's
        return "base products" if taken_us > 60 * tokens / 1850 else "LoRA products"
    return kind


def largest(batches: list[StepBatch]) -> int:
    return max(int(micro.input_ids.numel()) for batch in batches for micro in batch.micro_batches)


def kernels(bench: Bench, budget: int, size: int | None, **options: Any) -> dict[str, Any]:
    """The kernels of one step by kind: milliseconds, number, and how long the device was without any."""
    free()
    batch = bench.batches(1, budget, size)[0]
    train = bench.train(tokens=largest([batch]), **options)
    for _ in range(4):
        train.step(batch)
    synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as run:
        train.step(batch)
        train.step(batch)
        synchronize()
    spans: list[tuple[float, float, str]] = [
        (event.time_range.start, event.time_range.end, event.name)
        for event in run.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith("gpu_")
    ]
    spans.sort()
    # the second step: after the first one's last optimizer kernel
    ends = [i for i, span in enumerate(spans) if "kOptimizer" in span[2] or "_adamw" in span[2]]
    spans = spans[ends[0] + 1 : ends[-1] + 1] if len(ends) > 1 else spans
    kinds: dict[str, list[float]] = {}
    others: dict[str, list[float]] = {}
    busy, until = 0.0, spans[0][0]
    for start, end, name in spans:
        kind = kind_of(name, end - start, batch.all_tokens)
        kinds.setdefault(kind, []).append(end - start)
        if kind in ("others", "copies", "optimizer"):
            others.setdefault(name[:70], []).append(end - start)
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    whole = until - spans[0][0]
    table = {k: [round(sum(v) / 1e3, 2), len(v), round(sum(v) / len(v), 1)] for k, v in kinds.items()}
    top = sorted(others.items(), key=lambda item: -sum(item[1]))[:10]
    return {
        "tokens": batch.all_tokens,
        "step_ms": round(whole / 1e3, 2),
        "gaps_ms": round((whole - busy) / 1e3, 2),
        "kernels": len(spans),
        "ms_number_us": dict(sorted(table.items(), key=lambda item: -item[1][0])),
        "copies_and_others": [[round(sum(v) / 1e3, 2), len(v), k] for k, v in top],
    }


def peak(bench: Bench, budget: int, **options: Any) -> dict[str, Any]:
    """What lies on the device at the peak of a step, beside what was there before it."""
    free()
    train = bench.train(graphs=None, tokens=budget, **options)
    batch = bench.batches(1, budget)[0]
    train.step(batch)
    synchronize()
    free()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.memory._record_memory_history(max_entries=1_000_000, stacks="python")
    train.step(batch)
    synchronize()
    trace = torch.cuda.memory._snapshot()["device_traces"][0]
    torch.cuda.memory._record_memory_history(enabled=None)
    live: dict[int, tuple[int, str]] = {}
    held = most = 0
    at_most: list[tuple[int, str]] = []
    for event in trace:
        if event["action"] == "alloc":
            frames = [f for f in event["frames"] if "medqlora" in f["filename"]][:3]
            where = " < ".join(f"{Path(f['filename']).name}:{f['line']} {f['name']}" for f in frames)
            live[event["addr"]] = (event["size"], where)
            held += event["size"]
        elif event["action"] == "free_completed" and event["addr"] in live:
            held -= live.pop(event["addr"])[0]
        if held > most:
            most, at_most = held, sorted(live.values(), reverse=True)[:24]
    return {
        "before": gib(before),
        "most": gib(most),
        "peak": gib(torch.cuda.max_memory_allocated()),
        "live_mib": [[round(size / 2**20, 1), where] for size, where in at_most],
    }


def gradients(bench: Bench, budget: int) -> dict[str, Any]:
    """LoRA's gradients by the kernels of SwiGLU beside those by products of their own, relative to their norm.

    Those of the last layer's MLP show the kernels; below it, one bit more or less makes as much as all rounding.
    """
    batch = bench.batches(1, budget)[0]
    ranks, found = swiglu_lora.RANKS, []
    for setting in ((), ranks):
        swiglu_lora.RANKS = setting  # type: ignore[assignment]
        train = bench.train(graphs=None, checkpointing="none")
        with torch.no_grad():
            torch.manual_seed(1)
            for name, parameter in bench.named:
                if "lora_B" in name:  # 0 until now: A would have no gradient
                    parameter.normal_(0, 0.02)
        train.optimizer.zero_grad()
        train._accumulate(batch)
        found.append({name: value_of(parameter.grad).clone() for name, parameter in bench.named})
        del train
        free()
    swiglu_lora.RANKS = ranks
    old, new = found
    apart = {name: float((new[name] - old[name]).norm() / old[name].norm()) for name in old}
    last = f"layers.{int(str(bench.shape['num_hidden_layers'])) - 1}.mlp"
    return {
        "last_mlp": max(value for name, value in apart.items() if last in name),
        "most": max(apart.items(), key=lambda item: item[1]),
    }


def value_of(gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    return gradient


def main(shape: str, *chosen: str) -> None:
    device = torch.cuda.get_device_name() if GPU else "cpu"
    say("machine", {"device": device, "torch": torch.__version__})
    bench = Bench(shape)
    layers = int(str(bench.shape["num_hidden_layers"]))
    small, large = (2048, 8192) if GPU else (900, 1500)
    count = int(os.environ.get("STEPS", 24 if GPU else 2))
    settings: dict[str, tuple[int, int | None, int, dict[str, Any]]] = {}
    for name, budget, size, steps in (
        ("2k", small, None, count),
        ("8x", large, 8, count * 2 // 3),
        ("8k", large, None, count // 3),
    ):
        for weights, cached in (("nf4", 0), ("cached", layers)):
            for graphs in (None, True):
                options = {"checkpointing": "none", "cached": cached, "graphs": graphs if GPU else None}
                settings[f"{name}_{weights}{'_graphs' if graphs else ''}"] = (budget, size, steps, options)
    settings["8k_offload"] = (large, None, count // 3, {"checkpointing": "offload", "graphs": None})
    cases: dict[str, Callable[[], dict[str, Any]]] = all_cases(bench) if chosen else {}
    for name, (budget, size, steps, options) in settings.items():

        def speed(
            budget: int = budget, size: int | None = size, steps: int = steps, options: Any = options
        ) -> dict[str, Any]:
            batches = bench.batches(steps, budget, size)
            return timed(bench, batches, tokens=largest(batches), **options)

        def inside(budget: int = budget, size: int | None = size, options: Any = options) -> dict[str, Any]:
            return kernels(bench, budget, size, **options)

        cases[name], cases[name + "_kernels"] = speed, inside
    cases["gradients"] = lambda: gradients(bench, small)
    cases["8k_offload_peak"] = lambda: peak(bench, large, checkpointing="offload")
    short = attention.SHORT
    for name in chosen or cases:
        name, _, setting = name.partition("@")
        attention.SHORT = int(setting) if setting else short
        started = time.perf_counter()
        try:
            say(
                f"{name}@{setting}" if setting else name,
                {**cases[name](), "case_s": round(time.perf_counter() - started, 1)},
            )
        except Exception as error:
            lines = traceback.format_exc().splitlines()[-8:]
            say(name, {"error": f"{type(error).__name__}: {error}"[:600], "trace": lines})
        free()


if __name__ == "__main__":
    main(*sys.argv[1:])
