"""The facts in a report's header: base, adapter, data, training, time and hardware; and the training curves."""

import platform
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import psutil
import torch
from lightning.pytorch import Trainer

from medqlora.artifacts.curve import read_curves
from medqlora.artifacts.evaluated_weights import EvaluatedWeights
from medqlora.artifacts.run_folder import RunFolder
from medqlora.evaluation.report.context import Context
from medqlora.module import QLoRAModule
from medqlora.utils.cache import base_words
from medqlora.utils.files import now
from medqlora.utils.progress import duration

_GIB = 2**30


def report_context(trainer: Trainer, module: QLoRAModule, answering_s: float) -> Context:
    """The context of a finished test.

    Args:
        trainer: ran it.
        module: with the weights that were tested.
        answering_s: seconds for all answers, after loading.
    """
    weights = module.evaluated
    run = None if weights is None else training_run(weights)
    record = {} if weights is None else weights.record
    answering = f"{duration(answering_s)} for all answers, after loading"
    facts = {
        "Base model": base_words(module.backend.base),
        "Adapter": "none" if weights is None or weights.kind == "base" else weights.name,
        "Date": f"{now()[:16].replace('T', ' ')} UTC",
        "Tested on": ", ".join(source.name for source in (module.data.source, *module.data.benchmarks)),
        "Trained on": trained_on(record),
        "Training settings": settings(record),
        "Time": "; ".join(filter(None, (answering, training_time(run)))),
        "Hardware": hardware(module.device, trainer.world_size),
        "Precision": str(trainer.precision),
    }
    return Context(
        {name: value for name, value in facts.items() if value}, {} if run is None else read_curves(run.path)
    )


def training_run(weights: EvaluatedWeights) -> RunFolder | None:
    """The folder of the run that trained the weights; None where they were copied out of it."""
    if weights.kind == "checkpoint" and weights.file is not None:
        return RunFolder.of_checkpoint(weights.file)
    if weights.kind != "adapter" or weights.folder is None:
        return None
    run = RunFolder(weights.folder.parent)
    return run if run.read_record() is not None else None


def hardware(device: torch.device, processes: int) -> str:
    """The devices, or the processor with its cores and memory."""
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / _GIB
        name = f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB"
        return name if processes == 1 else f"{processes} × {name}"
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    memory = psutil.virtual_memory().total / _GIB
    return f"{_processor()}, {cores} core{'s' * (cores != 1)}, {memory:.0f} GiB of memory"


def _processor() -> str:
    """The processor's name, on Linux as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def trained_on(record: Mapping[str, object]) -> str:
    """The training set of an adapter's record; empty without one."""
    data = record.get("data")
    if not isinstance(data, Mapping):
        return ""
    count, dev = data.get("train_questions"), record.get("dev_ids")
    parts = [str(data.get("name", ""))]
    parts += [f"{count:,} questions"] if isinstance(count, int) else []
    parts += [f"{len(dev):,} for validation"] if isinstance(dev, (list, tuple)) else []
    return ", ".join(filter(None, parts))


def settings(record: Mapping[str, object]) -> str:
    """Steps, batch, rate, optimizer and LoRA of an adapter's record; empty without any of them."""
    training, lora = (
        part if isinstance(part, Mapping) else {} for part in (record.get("training"), record.get("lora"))
    )
    step, total, rate = training.get("step"), training.get("of_steps"), training.get("learning_rate")
    parts = [f"step {step} of {total}"] if step is not None and total is not None else []
    words = {"batch_size": "examples a step", "epochs": "epochs"}
    parts += [f"{training[key]} {name}" for key, name in words.items() if training.get(key)]
    parts += [f"learning rate {rate:g}"] if isinstance(rate, (int, float)) else []
    parts += [f"{key} {training[key]}" for key in ("optimizer", "precision", "seed") if key in training]
    rank, alpha = lora.get("r"), lora.get("alpha")
    parts += [f"LoRA rank {rank}"] if rank is not None else []
    parts += [f"alpha {alpha:g}"] if isinstance(alpha, (int, float)) else []
    return ", ".join(parts)


def training_time(run: RunFolder | None) -> str:
    """How long the run took, from its record; empty where that does not say it."""
    record = None if run is None else run.read_record()
    if record is None:
        return ""
    try:
        began, ended = (datetime.fromisoformat(str(record[key])) for key in ("started", "finished"))
        seconds = (ended - began).total_seconds()
    except (KeyError, ValueError, TypeError):  # TypeError: one time with a zone and one without
        return ""
    return f"{duration(seconds)} of training, with validation"
