"""The acceptance on two GPUs of one host: what they gain, and that the run is the same one."""

import json
import sys
from typing import Any

from figures import figures

#: two GPUs' tokens a second over one's, and their seconds over one's for a whole fit: issue 6
SPEED, SECONDS = 1.9, 0.6


def scaling(acceptance: Any) -> dict[str, Any]:
    """`bench --devices 2`, then a whole fit with one and with two."""
    target = acceptance.folder / "scaling" / "bench"
    words = ["bench", "--devices", "2", "--engine", "fused", "--checkpointing", "none", "--out", str(target)]
    if acceptance.gpu:
        words += ["--shape", "llama-3-8b", "--micro_batch_tokens", "8192"]
    else:
        words += ["--device", "cpu", "--shape", "tiny", "--micro_batch_tokens", "512", "--steps", "3"]
    command = [sys.executable, "-m", "medqlora", *words]
    result: dict[str, Any] = {"bench": acceptance.process("scaling", command)}
    rows = json.loads((target / "bench.json").read_text(encoding="utf-8"))["rows"]
    result["bench"]["rows"] = rows
    ratio = rows[-1].get("scaling")
    result["bench"]["within_limit"] = ratio is not None and ratio >= SPEED
    result["exit_code"] = result["bench"]["exit_code"]
    curves = []
    for devices in (1, 2):
        words = acceptance.words("fit", f"scaling-{devices}", "unsloth", "bf16-mixed")
        if acceptance.gpu:
            words += ["--config", str(acceptance.configs / "large_gpu.yaml")]
        else:
            words += ["--data.train_samples=24"]
        words += [f"--trainer.devices={devices}", "--trainer.log_every_n_steps=1"]
        done = acceptance.medqlora(f"scaling-{devices}", words)
        result["exit_code"] = result["exit_code"] or done["exit_code"]
        found = figures(acceptance.run(f"scaling-{devices}"))
        result[f"fit-{devices}"] = {**done, **found}
        curves.append(found.get("losses", {}))
    both = [(curves[0][step], curves[1][step]) for step in curves[0] if step in curves[1]]
    result["steps_compared"] = len(both)
    result["largest_difference"] = max((abs(a / b - 1) for a, b in both), default=None)
    seconds = [result[f"fit-{devices}"].get("fit_seconds") for devices in (1, 2)]
    if all(seconds):
        result["seconds_of_one"] = seconds[1] / seconds[0]
        result["within_limit"] = result["seconds_of_one"] <= SECONDS
    return result
