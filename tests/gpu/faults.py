"""The acceptance's faults on a GPU: what is killed, lost or too large, and both engines beside each other."""

import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from figures import figures
from lightning.pytorch import Callback

#: optimizer steps of both engines, and how far their losses may be apart: issue 4
ENGINE_STEPS, APART = 30, 0.005
#: of a run that is killed
KILLS, KILLED_STEPS = 3, 24


class LostGPU(Callback):
    """Asks a tensor for what it hasn't, in step 7: the GPU's own error, after which it answers nothing more."""

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        import torch

        if trainer.global_step == 7:
            values = torch.arange(4, device=module.device)
            values[values + 1_000_000] = 0


class LittleMemory(Callback):
    """Leaves torch a part of the GPU's memory from the first step on.

    Args:
        gib: how much.
        rank: the process that has no more; None for all.
    """

    def __init__(self, gib: float, rank: int | None = None) -> None:
        self.gib = gib
        self.rank = rank

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        import torch

        if torch.cuda.is_available() and self.rank in (None, trainer.global_rank):
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(self.gib * 2**30 / total)


def engines(acceptance: Any) -> dict[str, Any]:
    """The fused and the native engine from one seed."""
    more = [f"--trainer.max_steps={ENGINE_STEPS}", "--trainer.limit_val_batches=0"]
    more += ["--trainer.log_every_n_steps=1", "--data.micro_batch_tokens=4096"]
    words = [*acceptance.words("fit", "engines", "unsloth", "bf16-mixed"), "--trainer.precision=bf16-mixed"]
    curves: dict[str, list[float]] = {}
    result: dict[str, Any] = {"exit_code": 0}
    for engine in ("fused", "native"):
        done = acceptance.medqlora("engines", [*words, *more, f"--model.engine={engine}"])
        result["exit_code"] = result["exit_code"] or done["exit_code"]
        found = figures(acceptance.run("engines"))
        result[engine] = {**done, **found}
        curves[engine] = list(found.get("losses", {}).values())
    pairs = list(zip(*curves.values(), strict=False))
    result["steps_compared"] = len(pairs)
    result["largest_difference"] = max((abs(a / b - 1) for a, b in pairs), default=None)
    if len(pairs) == ENGINE_STEPS:
        result["within_limit"] = result["largest_difference"] <= APART
    return result


def memory(acceptance: Any) -> dict[str, Any]:
    """A run with room, and the same with four fifths of what that took: without preflight, and with."""
    words = acceptance.words("fit", "memory", "unsloth", "bf16-mixed")
    words += ["--trainer.max_steps=6", "--trainer.limit_val_batches=0", "--trainer.log_every_n_steps=1"]
    words += ["--data.micro_batch_tokens=4096"]
    words += ["--model.engine=fused", "--model.checkpointing=none"] if acceptance.gpu else []
    result: dict[str, Any] = {"exit_code": 0}
    room: float | None = None
    for name, preflight in (("with room", False), ("in the step", False), ("in preflight", True)):
        more = [f"--model.preflight={str(preflight).lower()}"]
        if room is not None:
            more += ["--trainer.callbacks=faults.LittleMemory", f"--trainer.callbacks.gib={room}"]
        done = acceptance.medqlora("memory", [*words, *more])
        result["exit_code"] = result["exit_code"] or done["exit_code"]
        found = figures(acceptance.run("memory"))
        said = _lines(acceptance, "memory", ("Out of memory", "Preflight: "))
        result[name] = {**done, **found, "said": said}
        room = room or 0.8 * found.get("peak_gib", 10.0)
    whole = result["with room"].get("losses", {})
    for name in ("in the step", "in preflight"):
        losses = result[name].get("losses", {})
        result[name]["largest_difference"] = max(
            (abs(losses[step] / whole[step] - 1) for step in losses if step in whole), default=None
        )
    return result


def kills(acceptance: Any) -> dict[str, Any]:
    """A run with deterministic kernels that is killed again and again, beside one that isn't."""
    stages = ("kills-straight", "kills")
    result: dict[str, Any] = {"exit_code": 0, "killed_at": []}
    ends = []
    for stage in stages:
        words = acceptance.words("fit", stage, "unsloth", "bf16-mixed")
        words += [f"--trainer.max_steps={KILLED_STEPS}", "--trainer.log_every_n_steps=1"]
        words += ["--trainer.val_check_interval=10", "--model.generate=false"]
        words += ["--checkpoint.every_n_train_steps=2", "--trainer.deterministic=true"]
        words += ["--model.lora.dropout=0.05", "--model.preflight=false"]
        more: list[str] = []
        rng = random.Random(0)
        for number in range(KILLS if stage == "kills" else 0):
            until = _Killer(acceptance, stage, (number + 1) * KILLED_STEPS // (KILLS + 1), rng.random())
            command = [sys.executable, "-m", "medqlora", *words, *more, *acceptance.more]
            done = acceptance.process(stage, command, until=until)
            result["killed_at"].append(until.step if done.get("killed") else None)
            more = ["--ckpt_path=last"]
        done = acceptance.medqlora(stage, [*words, *more])
        result["exit_code"] = result["exit_code"] or done["exit_code"]
        result[stage] = {**done, **figures(acceptance.run(stage))}
        ends.append(acceptance.run(stage) / "checkpoints" / "last.ckpt")
    result["same_weights"] = _same(*ends)
    straight, killed = (result[stage].get("losses", {}) for stage in stages)
    result["same_curve"] = len(straight) == KILLED_STEPS and straight == killed
    return result


def graphs(acceptance: Any) -> dict[str, Any]:
    """A run whose steps are CUDA graphs, killed once and resumed, beside one that isn't: the same adapter."""
    stages = ("graphs-straight", "graphs")
    found: dict[str, Any] = {}

    def run(stage: str) -> dict[str, Any]:
        words = acceptance.words("fit", stage, "transformers", "bf16-mixed")
        words += [f"--trainer.max_steps={KILLED_STEPS}", "--trainer.log_every_n_steps=1"]
        words += ["--trainer.limit_val_batches=0", "--model.generate=false", "--trainer.deterministic=true"]
        words += [
            "--checkpoint.every_n_train_steps=2",
            "--model.lora.dropout=0.05",
            "--model.checkpointing=none",
        ]
        words += ["--data.micro_batch_tokens=2048", "--progress.refresh_rate=0"]
        more: list[str] = []
        if stage == "graphs":
            until = _Killer(acceptance, stage, KILLED_STEPS // 2, 0.3)
            command = [sys.executable, "-m", "medqlora", *words, *acceptance.more]
            done = acceptance.process(stage, command, until=until)
            found["killed_at"] = until.step if done.get("killed") else None
            more = ["--ckpt_path=last"]
        return acceptance.medqlora(stage, [*words, *more])

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(run, stages))
    adapters = [acceptance.run(stage) / "adapter" / "adapter_model.safetensors" for stage in stages]
    contents = [path.read_bytes() if path.is_file() else b"" for path in adapters]
    curves = [figures(acceptance.run(stage)).get("losses", {}) for stage in stages]
    said = {
        stage: _lines(acceptance, stage, ("Engine", "Training steps", "Resum", "Fit:")) for stage in stages
    }
    return {
        "exit_code": max(done["exit_code"] for done in ends),
        **found,
        "same_adapter": bool(contents[0]) and contents[0] == contents[1],
        "same_curve": len(curves[0]) == KILLED_STEPS and curves[0] == curves[1],
        "steps_in_curves": [len(curve) for curve in curves],
        "said": said,
        "ends": [done.get("end_of_log", [])[-5:] for done in ends],
    }


def lost(acceptance: Any) -> dict[str, Any]:
    """A CUDA error within a step: the last line, and what goes on from there."""
    words = acceptance.words("fit", "lost", "unsloth", "bf16-mixed")
    words += ["--trainer.max_steps=9", "--trainer.limit_val_batches=0", "--checkpoint.every_n_train_steps=3"]
    words += ["--model.preflight=false"]
    first = acceptance.medqlora("lost", [*words, "--trainer.callbacks=faults.LostGPU"])
    last = (first.get("end_of_log") or [""])[-1]
    second = acceptance.medqlora("lost", [*words, "--ckpt_path=last"])
    right = first["exit_code"] == 1 and "the checkpoint of step 6 is whole" in last
    return {
        "exit_code": second["exit_code"] if right else 1,
        "last_line": last,
        "first": first,
        "second": second | figures(acceptance.run("lost")),
    }


def doctor(acceptance: Any) -> dict[str, Any]:
    """What it says of this machine and the experiment."""
    words = acceptance.words("fit", "doctor", "unsloth", "bf16-mixed")[1:]
    words = [word for word in words if not word.startswith("--trainer.default_root_dir")]
    result = acceptance.medqlora("doctor", ["doctor", *words])
    log = (acceptance.folder / "doctor.log").read_text(encoding="utf-8")
    return {**result, "said": log.splitlines()}


class _Killer:
    """Says when to kill: a part of a step's time after the checkpoint of `step` stands.

    Args:
        acceptance, stage: whose run.
        step: whose checkpoint is waited for.
        part: how long after it, in half seconds.
    """

    def __init__(self, acceptance: Any, stage: str, step: int, part: float) -> None:
        self.acceptance, self.stage, self.least, self.part = acceptance, stage, step, part
        self.step: int | None = None

    def __call__(self) -> bool:
        manifest = self.acceptance.run(self.stage) / "checkpoints" / "last.ckpt.json"
        try:
            step = int(json.loads(manifest.read_text(encoding="utf-8"))["step"])
        except (OSError, ValueError):
            return False
        if step < self.least:
            return False
        time.sleep(self.part / 2)
        self.step = step
        return True


def _lines(acceptance: Any, stage: str, beginnings: tuple[str, ...]) -> list[str]:
    """Of the stage's last command, the lines that begin so."""
    log = (acceptance.folder / f"{stage}.log").read_text(encoding="utf-8", errors="replace")
    newest = log.rsplit("\n$ ", 1)[-1].replace("\r", "\n")
    return [line for line in newest.splitlines() if line.startswith(beginnings)]


def _same(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same weights, bit for bit."""
    import torch

    if not (one.is_file() and other.is_file()):
        return False
    a, b = (torch.load(path, map_location="cpu", weights_only=True)["state_dict"] for path in (one, other))
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


#: name → what runs it
FAULTS = {
    "engines": engines,
    "memory": memory,
    "kills": kills,
    "graphs": graphs,
    "lost": lost,
    "doctor": doctor,
}
