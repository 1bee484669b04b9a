"""`medqlora plan`: the memory and time of a fit, before a weight is loaded."""

import argparse
import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from medqlora.commands.arguments import Parser
from medqlora.commands.places import check_cache
from medqlora.commands.plan_inputs import read_fit
from medqlora.commands.plan_report import FullFineTuning, Report, report_lines
from medqlora.commands.plan_times import gpu_times, minutes, speeds
from medqlora.commands.registry import Command
from medqlora.config.check import check_options
from medqlora.config.words import with_config
from medqlora.errors import InputError

if TYPE_CHECKING:
    from medqlora.planner import Setting, Shape
    from medqlora.planner.speed import GPU

COMMAND = Command("plan", "memory and time that a fit will need, before a weight is loaded", rank=70)

_GB, _GIB = 10**9, 2**30
_UNITS = {"gib": _GIB, "gb": _GB, "mib": 2**20, "mb": 10**6}


def parser() -> argparse.ArgumentParser:
    """The command's own options; those of `fit` may follow."""
    made = Parser(
        "plan",
        "The memory of `medqlora fit` with the same options, phase by phase, whether it fits a GPU, the largest\n"
        "micro-batches that fit, and an estimate of the time. No weight is loaded and no GPU is needed.\n"
        "Every option of `medqlora fit` may follow.",
    )
    made.add_argument(
        "--gpu",
        metavar="NAME",
        help="plan for this GPU, as h200 or rtx4090 (default: this machine's; the times are given for all)",
    )
    made.add_argument("--gpu-memory", metavar="SIZE", help="plan for this much memory, as 8GiB or 24GB")
    made.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="GPUs of a machine that share each step; with --trainer.strategy fsdp the base model is sharded over "
        "them, otherwise each has a copy (default: --trainer.devices, or 1)",
    )
    made.add_argument(
        "--num_nodes",
        type=int,
        metavar="N",
        help="machines with as many GPUs each (default: --trainer.num_nodes)",
    )
    made.add_argument("--json", action="store_true", help="print everything as one line of JSON")
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, or if the model's configuration is not available."""
    options, rest = parser().parse_known_args(words)
    memory = None if options.gpu_memory is None else size_in_bytes(options.gpu_memory)
    rest = with_config(rest)
    check_options("fit", rest)
    check_cache(rest)
    from medqlora.planner.speed import gpu_named

    gpu = None if options.gpu is None else gpu_named(options.gpu)
    for name, value, what in (
        ("devices", options.devices, "GPUs"),
        ("num_nodes", options.num_nodes, "machines"),
    ):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: give the number of {what}, at least 1")
    report = planned_report(rest, gpu, memory, (options.devices, options.num_nodes))
    print(json.dumps(report) if options.json else "\n".join(report_lines(report)), flush=True)
    return 0


def size_in_bytes(text: str) -> int:
    """The value of `--gpu-memory` in bytes.

    Raises:
        InputError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    if match is None or match[2].lower() not in _UNITS or not 0 < float(match[1]) < math.inf:
        raise InputError(f"--gpu-memory {text}: give a number and GiB, GB, MiB or MB, as 8GiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


class Target(NamedTuple):
    """The memory to plan for, in bytes; None for no limit.

    Attributes:
        memory: of the GPU.
        room: without the reserve.
        device: the name of this machine's GPU, if the plan is for it.
        gpu: the GPU of `--gpu`.
    """

    memory: int | None
    room: int | None
    device: str | None
    gpu: "GPU | None"


def planned_report(
    words: list[str], gpu: "GPU | None", memory: int | None, processes: tuple[int | None, int | None]
) -> Report:
    """The plan of `fit` with these options, which are checked already.

    Args:
        words: options of `fit`, configurations first.
        gpu: the GPU to plan for; None for this machine's.
        memory: its memory in bytes, where that is given.
        processes: GPUs of a machine that share each step, and machines; None for those of the options.

    Raises:
        InputError: an option is wrong, or the base model can't be planned.
    """
    from medqlora.commands.run import build
    from medqlora.planner.fitting import RESERVE, largest_budgets

    cli = build(["fit", *words], with_trainer=False)
    for_gpu = gpu is not None or memory is not None
    fit = read_fit(cli.model, cli.datamodule, cli.config["fit"]["trainer"], *processes, for_gpu=for_gpu)
    target = _target(gpu, memory, fit.on_cpu)
    fitted = fit.planned(gpu, target.room)
    setting, peak = fitted.setting, fitted.plan.peak
    trainable, total = fit.parameters
    report: Report = {
        "base": fit.options.backend.base,
        "notes": fit.notes,
        "parameters": {"trainable": trainable, "total": total},
        "engine": setting.engine,
        "checkpointing": setting.checkpointing,
        "weights": "cached" if setting.cached else "nf4",
        "graphs": setting.graphs,
        "micro_batch_tokens": fitted.micro_batch_tokens,
        "largest_micro_batch": setting.tokens,
        "phases": {name: dict(parts) for name, parts in fitted.plan.phases.items()},
        "peak": peak,
        "memory": target.memory,
        "reserve": RESERVE,
        "device": target.device,
        "fits": None if target.memory is None else peak <= (1 - RESERVE) * target.memory,
        "devices": fit.devices,
        "steps": fit.run_steps,
        "flops_per_step": fit.epoch_flops() / fit.steps,
        "tokens": fit.tokens * fit.run_steps // fit.steps,
        "full_fine_tuning": _full_fine_tuning(fit.shape, setting, peak),
    }
    if gpu is not None:
        report["tokens_per_s"] = list(speeds(fit, fitted, gpu, fit.devices))
        report["minutes"] = minutes(fit, fitted, gpu, fit.devices)
    if target.room is not None:
        report["largest"] = largest_budgets(fit.shape, setting, target.room, fitted.work.longest)
    if memory is None and not fit.on_cpu:
        report["gpus"] = gpu_times(fit, gpu)
    return report


def _target(gpu: "GPU | None", memory: int | None, on_cpu: bool) -> Target:
    """The memory of `--gpu-memory`, of `--gpu`, or of this machine's GPU."""
    import torch

    from medqlora.planner.fitting import RESERVE

    device = None
    if gpu is None and memory is None and not on_cpu and torch.cuda.is_available():
        device, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    elif gpu is not None:
        memory = memory or int(gpu.memory_gb * _GB)
    return Target(memory, None if memory is None else int((1 - RESERVE) * memory), device, gpu)


def _full_fine_tuning(shape: "Shape", setting: "Setting", peak: int) -> FullFineTuning:
    """bfloat16 weights and gradients, float32 master weights and Adam's two moments: 16 bytes per parameter."""
    from medqlora.planner import plan

    dense = replace(setting, engine="native", quantization="none", checkpointing="full")
    full = 16 * shape.base_parameters + plan(shape, dense).phases["fit"]["activations"]
    return {"peak": full, "saved": 1 - peak / full}
