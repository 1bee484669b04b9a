"""What a run left behind, as figures for the acceptance's summary."""

import json
import statistics
from pathlib import Path
from typing import Any


def figures(run: Path) -> dict[str, Any]:
    """What a run's TensorBoard events say: losses, memory, speed, validation scores, seconds of the fit."""
    if not run.is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    result: dict[str, Any] = {"run": str(run)}
    memory: dict[str, dict[str, float]] = {}
    for tag, points in scalars.items():
        if tag.startswith("x-memory/"):
            _, phase, name = tag.split("/")
            memory.setdefault(phase, {})[name] = round(points[-1].value, 3)
    if memory:
        result["memory_gib"] = memory
        peaks = [
            memory[phase].get("peak_allocated_gib")
            for phase in ("load", "fit", "validate")
            if phase in memory
        ]
        known = [peak for peak in peaks if peak is not None]
        if known:
            result["peak_gib"] = max(known)
    for name in ("train/loss", "train/grad_norm"):
        if name in scalars:
            short = {"train/loss": "losses", "train/grad_norm": "grad_norms"}[name]
            result[short] = {point.step: round(point.value, 4) for point in scalars[name]}
    if "train/overflows" in scalars:
        result["overflows"] = scalars["train/overflows"][-1].value
    speeds = [point.value for point in scalars.get("x-speed/tokens_per_s", [])]
    if speeds:
        result["tokens_per_s"] = [round(speed) for speed in speeds]
        result["tokens_per_s_median"] = round(statistics.median(speeds[1:] or speeds))
    used = [point.value for point in scalars.get("x-speed/flop_utilisation", [])]
    if used:
        result["flop_utilisation"] = round(statistics.median(used[1:] or used), 3)
    scores = {
        tag: [round(p.value, 4) for p in points] for tag, points in scalars.items() if tag.startswith("val/")
    }
    if scores:
        result["validation"] = scores
    record = run / "run.json"
    if record.is_file():
        from datetime import datetime

        said = json.loads(record.read_text(encoding="utf-8"))
        result["state"] = said["state"]
        if said.get("finished"):
            times = [datetime.fromisoformat(said[name]) for name in ("started", "finished")]
            result["fit_seconds"] = (times[1] - times[0]).total_seconds()
    return result


def step_of(checkpoint: Path) -> int:
    """The optimizer step that a checkpoint is of."""
    import torch

    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])


def longest_fold(data: Path) -> int:
    """The fold whose validation set holds the longest context."""
    from medqlora.data import PubMedQA

    lengths = []
    for fold in range(10):
        splits = PubMedQA(path=str(data), fold=fold).read()
        lengths.append(max(sum(map(len, record.contexts)) for record in splits.dev))
    return lengths.index(max(lengths))


def versions() -> dict[str, str]:
    """Of the packages, and the hardware."""
    import platform
    from importlib.metadata import version
    from importlib.util import find_spec

    import torch

    said = {"python": platform.python_version()}
    packages = "torch lightning transformers peft bitsandbytes unsloth unsloth_zoo triton trl"
    said |= {name: version(name) for name in packages.split() if find_spec(name)}
    said["device"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    said["cuda"] = str(torch.version.cuda)
    return said
