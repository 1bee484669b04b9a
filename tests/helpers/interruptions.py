"""Runs that something ends before their time, and what has to be equal once they have gone on."""

import functools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import options
from lightning.pytorch import Callback, LightningModule, Trainer
from warm_process import WarmCommand

EXTRA = [
    "--model.lora.dropout=0.1",
    "--trainer.max_epochs=4",
    "--trainer.log_every_n_steps=4",
    "--checkpoint.every_n_train_steps=2",
    "--checkpoint.monitor=val/loss",
    "--checkpoint.mode=min",
]


def started(words: list[str], folder: Path) -> WarmCommand:
    return WarmCommand(["fit", *words], cwd=folder, log=folder / "log.txt")


def run_folder(folder: Path) -> Path:
    (run,) = (folder / "lightning_logs").glob("version_*")  # a resumed run goes on in its own
    return run


def manifest_step(run: Path) -> int:
    try:
        return int(json.loads((run / "checkpoints" / "last.ckpt.json").read_text())["step"])
    except (OSError, ValueError):
        return -1


def wait(process: WarmCommand, reached: Callable[[], bool]) -> bool:
    """Until `reached`; False where the process ended first."""
    while not reached():
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    return process.poll() is None


def outcome(folder: Path) -> dict[str, Any]:
    """What the finished run left: weights, optimizer, rates, random numbers, curve, adapter."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_folder(folder)
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(("x-memory/", "x-speed/"))]
    return {
        **{
            key: checkpoint[key] for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers")
        },
        "random": checkpoint["medqlora"]["random_state"],
        "curve": {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in sorted(tags)},
        "adapter": (run / "adapter" / "adapter_model.safetensors").read_bytes(),
        "left over": [str(path) for path in run.rglob(".*")],  # of writing, or of an export
        "state": json.loads((run / "run.json").read_text())["state"],
    }


@functools.cache
def straight_outcome(base: Path) -> dict[str, Any]:
    """The outcome of the run of `options(base, ...)` and `EXTRA` that nothing interrupts; once a process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert started([*options(base, folder), *EXTRA], folder).wait() == 0, (folder / "log.txt").read_text()
        expected = outcome(folder)
    assert expected["state"] == "finished"
    assert [step for step, _ in expected["curve"]["train/loss"]] == list(range(24))
    assert len(expected["curve"]["val/loss"]) == 4
    return expected


def same(a: object, b: object) -> bool:
    """Whether nested values are equal, tensors to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, type(a)) and len(a) == len(b) and all(map(same, a, b))
    return a == b


class InterruptionError(Exception):
    """Stands for whatever ends a process."""


class StopAt(Callback):
    """Ends the run before the step after `step`."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if trainer.global_step >= self.step:
            raise InterruptionError


class LostGPU(Callback):
    """Fails inside of step 7's optimizer step with the error that torch raises for a CUDA error."""

    def on_before_optimizer_step(self, trainer: Trainer, *args: object) -> None:
        if trainer.global_step == 7:
            message = (
                "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"
            )
            raise torch.AcceleratorError(message)
