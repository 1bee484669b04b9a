"""The acceptance on two GPUs of one host: what they gain, and that the run is the same one. `fsdp.py` shards a base."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from figures import figures

#: two GPUs' tokens a second over one's, and their seconds over one's for a whole fit: issue 6
SPEED, SECONDS = 1.9, 0.6
#: the seconds from the first step on, of a whole fit with eight examples a step: issue 16
WHOLE = 0.65


def scaling(acceptance: Any) -> dict[str, Any]:
    """`bench --devices 2`, then a whole fit with one and with two."""
    rows, bench = _bench(acceptance, "scaling", "--checkpointing=none", "--shape=llama-3-8b", tokens=8192)
    ratio = rows[-1].get("scaling")
    bench["within_limit"] = ratio is not None and ratio >= SPEED
    result: dict[str, Any] = {"bench": bench, "exit_code": bench["exit_code"]}
    fits = _fits(acceptance, "scaling", "unsloth")
    result["exit_code"] = result["exit_code"] or fits.pop("exit_code")
    seconds = [fits[f"fit-{devices}"].get("fit_seconds") for devices in (1, 2)]
    if all(seconds):
        result["seconds_of_one"] = seconds[1] / seconds[0]
        result["within_limit"] = result["seconds_of_one"] <= SECONDS
    return result | fits


def whole(acceptance: Any, devices: Sequence[int] = (1, 2)) -> dict[str, Any]:
    """A whole fit as shipped with the settings of a large GPU, on one GPU, and on two."""
    options = ("--progress.refresh_rate=0", "--trainer.log_every_n_steps=10")
    result = _fits(acceptance, "whole", "transformers", *options, devices=devices)
    for count in devices:
        log = (acceptance.folder / f"whole-{count}.log").read_text(encoding="utf-8", errors="replace")
        beginnings = ("Plan", "Preflight", "Engine", "Training steps", "Trained", "Fit:", "Took")
        found = result[f"fit-{count}"]
        found["said"] = [line for line in log.splitlines() if line.startswith(beginnings)]
        seconds = re.findall(r"^Fit: ([\d.]+) s", log, re.MULTILINE)
        found["from_first_step_s"] = float(seconds[-1]) if seconds else None
        for name in ("losses", "grad_norms", "tokens_per_s", "validation"):
            found.pop(name, None)
    if len(devices) > 1:
        one, two = (result[f"fit-{count}"]["from_first_step_s"] for count in devices)
        if one and two:
            result["seconds_of_one"] = round(two / one, 3)
            result["within_limit"] = two / one <= WHOLE
    return result


def _bench(
    acceptance: Any, stage: str, *options: str, tokens: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a bench with one and with two devices, and how it ended; without GPUs of a tiny shape."""
    target = acceptance.folder / stage / "bench"
    words = ["bench", "--devices", "2", "--engine", "fused", "--out", str(target), *options]
    if acceptance.gpu:
        words += ["--micro_batch_tokens", str(tokens)]
    else:
        words = [word for word in words if not word.startswith("--shape")]
        words += ["--device", "cpu", "--shape", "tiny", "--micro_batch_tokens", "512", "--steps", "3"]
    ended = acceptance.process(stage, [sys.executable, "-m", "medqlora", *words])
    rows = json.loads((target / "bench.json").read_text(encoding="utf-8"))["rows"]
    return rows, {**ended, "rows": rows}


def _fits(
    acceptance: Any, stage: str, backend: str, *options: str, devices: Sequence[int] = (1, 2)
) -> dict[str, Any]:
    """The same whole fit with one and with two devices, and how far their curves are apart."""
    result: dict[str, Any] = {"exit_code": 0}
    curves: list[dict[int, float]] = []
    for count in devices:
        words = acceptance.words("fit", f"{stage}-{count}", backend, "bf16-mixed")
        if acceptance.gpu:
            words += ["--config", str(acceptance.configs / "large_gpu.yaml")]
        else:
            words += ["--data.train_samples=24"]
        words += [f"--trainer.devices={count}", "--trainer.log_every_n_steps=1", *options]
        done = acceptance.medqlora(f"{stage}-{count}", words)
        result["exit_code"] = result["exit_code"] or done["exit_code"]
        found = figures(acceptance.run(f"{stage}-{count}"))
        result[f"fit-{count}"] = {**done, "planned": _planned(acceptance, f"{stage}-{count}"), **found}
        curves.append(found.get("losses", {}))
    return result | (_apart(curves) if len(curves) > 1 else {})


def _apart(curves: Sequence[dict[int, float]]) -> dict[str, Any]:
    first, second = curves
    both = [(first[step], second[step]) for step in first if step in second]
    return {
        "steps_compared": len(both),
        "largest_difference": max((abs(a / b - 1) for a, b in both), default=None),
    }


def _planned(acceptance: Any, stage: str) -> list[str]:
    """The lines in which a fit says what it plans, and what it found."""
    text = (acceptance.folder / f"{stage}.log").read_text(encoding="utf-8", errors="replace")
    return [line for line in text.replace("\r", "\n").splitlines() if line.startswith(("Plan", "Preflight"))]
