"""`medqlora plan`: the memory and time of a fit, before a weight is loaded."""

import argparse
import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from medqlora.commands.arguments import Parser
from medqlora.commands.places import check_cache
from medqlora.commands.plan_report import FullFineTuning, Report, report_lines
from medqlora.commands.registry import Command
from medqlora.config.check import check_options
from medqlora.config.words import with_config
from medqlora.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from transformers import PretrainedConfig

    from medqlora.datamodule import PubMedQADataModule
    from medqlora.models import Backend
    from medqlora.module import QLoRAModule
    from medqlora.planner import Setting, Shape
    from medqlora.planner.speed import GPU
    from medqlora.training.fit_plan import FitOptions, FitPlan

COMMAND = Command("plan", "memory and time that a fit will need, before a weight is loaded", rank=70)

#: `--trainer.precision` → Lightning's name
_PRECISIONS = {"None": "32", "16": "16-mixed", "bf16": "bf16-mixed"}
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
    made.add_argument("--gpu", metavar="NAME", help="plan for this GPU, as h200 or rtx4090")
    made.add_argument("--gpu-memory", metavar="SIZE", help="plan for this much memory, as 8GiB or 24GB")
    made.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="GPUs that share each step; with --trainer.strategy fsdp the base model is sharded over them, "
        "otherwise each has a copy (default: --trainer.devices, or 1)",
    )
    made.add_argument("--json", action="store_true", help="print everything as one line of JSON")
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, or if the model's configuration is not available."""
    options, rest = parser().parse_known_args(words)
    memory = None if options.gpu_memory is None else _bytes(options.gpu_memory)
    rest = with_config(rest)
    check_options("fit", rest)
    check_cache(rest)
    from medqlora.planner.speed import gpu_named

    gpu = None if options.gpu is None else gpu_named(options.gpu)
    if options.devices is not None and options.devices < 1:
        raise InputError(f"--devices {options.devices}: give the number of GPUs, at least 1")
    report = _plan(rest, gpu, memory, options.devices)
    print(json.dumps(report) if options.json else "\n".join(report_lines(report)), flush=True)
    return 0


def _bytes(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    if match is None or match[2].lower() not in _UNITS or not 0 < float(match[1]) < math.inf:
        raise InputError(f"--gpu-memory {text}: give a number and GiB, GB, MiB or MB, as 8GiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


class RunBounds(NamedTuple):
    """The options that end a run, with Lightning's defaults."""

    max_epochs: int
    max_steps: int
    limit_train_batches: int | float


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


class Fit(NamedTuple):
    """The fit to plan.

    Attributes:
        lengths: (prompt, completion) of each training example, in tokens.
        notes: on inputs that are not available here.
        width: bytes per value in the matrix products.
        steps: of an epoch.
        run_steps: of the run.
    """

    options: "FitOptions"
    shape: "Shape"
    lengths: list[tuple[int, int]]
    notes: list[str]
    fused: bool
    width: int
    devices: int
    sharded: bool
    steps: int
    run_steps: int

    @property
    def tokens(self) -> int:
        """Tokens of an epoch."""
        return sum(map(sum, self.lengths))

    def epoch_flops(self) -> float:
        """Floating-point operations of an epoch."""
        from medqlora.models.targets import projections

        lora = self.options.lora
        flops = self.shape.flops(lora.r, projections(lora.target_modules))
        return flops.step([sum(pair) for pair in self.lengths], sum(length for _, length in self.lengths))


def _plan(words: list[str], gpu: "GPU | None", memory: int | None, devices: int | None) -> Report:
    from medqlora.commands.run import build
    from medqlora.planner.fitting import RESERVE, largest_budgets
    from medqlora.training.fit_plan import plan_fit

    cli = build(["fit", *words], with_trainer=False)
    fit = _fit(cli.model, cli.datamodule, cli.config["fit"]["trainer"], gpu, devices)
    target = _target(gpu, memory)
    fitted = plan_fit(
        fit.shape,
        fit.options,
        fit.lengths,
        fused=fit.fused,
        width=fit.width,
        memory=target.room,
        devices=fit.devices,
        sharded=fit.sharded,
    )
    setting, peak = fitted.setting, fitted.plan.peak
    report: Report = {
        "base": fit.options.backend.base,
        "notes": fit.notes,
        "engine": setting.engine,
        "checkpointing": setting.checkpointing,
        "weights": "cached" if setting.cached else "nf4",
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
        _add_time(report, fit, fitted, gpu)
    if target.room is not None:
        report["largest"] = largest_budgets(fit.shape, setting, target.room, fitted.work.longest)
    return report


def _fit(
    module: "QLoRAModule",
    data: "PubMedQADataModule",
    trainer: "Namespace",
    gpu: "GPU | None",
    devices: int | None,
) -> Fit:
    """Checks the options and reads what the plan needs.

    Raises:
        InputError: an option is wrong, or the base model can't be planned.
    """
    from medqlora.models.lora import lora_targets
    from medqlora.models.transformers import skeleton
    from medqlora.training.checks.options import DTYPES, check_shared, check_strategy
    from medqlora.training.fit_plan import FitOptions
    from medqlora.utils.run_length import total_steps

    backend, lora, options = module.backend, module.lora, module.options
    precision = _checked_precision(module, data, trainer)
    config, base_note = _configuration(backend)
    shape = _shape(backend, config)
    if lora.target_modules is not None:
        lora_targets(lora, skeleton(config, backend.base))
    lengths, length_note = _lengths(data, backend)
    width = DTYPES[precision].itemsize
    fused = _fused(module, data, config, width, gpu, longest=max(map(sum, lengths)))
    if devices is None:
        given = str(trainer["devices"])
        devices = int(given) if given.isdigit() else 1
    check_strategy(trainer["strategy"])
    sharded = trainer["strategy"] == "fsdp" and devices > 1
    if sharded:
        check_shared(backend, lora, options, data.options.packing, config)
    steps = -(-len(lengths) // data.options.batch_size)
    return Fit(
        FitOptions(backend, lora, options, data.options, module.optimizer, data.micro_batch_tokens),
        shape,
        lengths,
        [note for note in (base_note, length_note) if note],
        fused or sharded,
        width,
        devices,
        sharded,
        steps,
        total_steps(_bounds(trainer), steps),
    )


def _checked_precision(module: "QLoRAModule", data: "PubMedQADataModule", trainer: "Namespace") -> str:
    """Checks the options that `fit` checks before it reads the base model, and returns the precision."""
    from medqlora.training.checks.options import check_checkpointing, check_precision, check_weights

    data.check()
    module.lora.check()
    check_checkpointing(module.options.checkpointing)
    check_weights(module.options.engine, module.options.weights)
    precision = _PRECISIONS.get(str(trainer["precision"]), str(trainer["precision"]))
    check_precision(precision)
    return precision


def _target(gpu: "GPU | None", memory: int | None) -> Target:
    """The memory of `--gpu-memory`, of `--gpu`, or of this machine's GPU."""
    import torch

    from medqlora.planner.fitting import RESERVE

    device = None
    if gpu is None and memory is None and torch.cuda.is_available():
        device, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    elif gpu is not None:
        memory = memory or int(gpu.memory_gb * _GB)
    return Target(memory, None if memory is None else int((1 - RESERVE) * memory), device, gpu)


def _add_time(report: Report, fit: Fit, fitted: "FitPlan", gpu: "GPU") -> None:
    """Adds speed and time; all processes wait for the one with the most tokens."""
    from medqlora.planner.fitting import imbalance
    from medqlora.planner.speed import tokens_per_s

    low, high = (
        speed * fit.devices / imbalance(fitted.work)
        for speed in tokens_per_s(fitted.setting, fit.epoch_flops() / fit.tokens, gpu.tflops)
    )
    report["tokens_per_s"] = [low, high]
    report["minutes"] = [fit.tokens * fit.run_steps / fit.steps / speed / 60 for speed in (high, low)]


def _full_fine_tuning(shape: "Shape", setting: "Setting", peak: int) -> FullFineTuning:
    """bfloat16 weights and gradients, float32 master weights and Adam's two moments: 16 bytes per parameter."""
    from medqlora.planner import plan

    parameters = (
        shape.linear_parameters + shape.embedding_parameters + shape.head_parameters + shape.small_parameters
    )
    dense = replace(setting, engine="native", quantization="none", checkpointing="full")
    full = 16 * parameters + plan(shape, dense).phases["fit"]["activations"]
    return {"peak": full, "saved": 1 - peak / full}


def _bounds(trainer: "Namespace") -> RunBounds:
    epochs, steps = trainer["max_epochs"], trainer["max_steps"]
    if epochs is None:
        epochs = 1000 if steps == -1 else -1
    limit = 1.0 if trainer["limit_train_batches"] is None else trainer["limit_train_batches"]
    # a number of steps arrives as a float too
    return RunBounds(epochs, steps, int(limit) if limit > 1 else float(limit))


def _shape(backend: "Backend", config: "PretrainedConfig") -> "Shape":
    from medqlora.planner import Shape

    try:
        return Shape.of(config)
    except AttributeError as error:
        raise InputError(
            f"--model.backend.base: '{backend.base}' is {config.model_type}, whose memory is not known: plan is "
            "for decoders with one MLP per layer, such as Llama, Mistral and Qwen"
        ) from error


def _configuration(backend: "Backend") -> tuple["PretrainedConfig", str | None]:
    """The base model's configuration, or the published one of the shape in its name with a note."""
    from transformers import AutoConfig

    from medqlora.profiling.shapes import SHAPES

    try:
        return backend.config(), None
    except InputError:
        base = re.sub(r"[^a-z0-9]+", "-", backend.base.lower())
        for name, (_, values) in SHAPES.items():
            if name != "tiny" and name in base:
                known = {key: value for key, value in values.items() if key != "model_type"}
                note = f"{backend.base} can't be read here: planned with the published shape of {name}"
                return AutoConfig.for_model(str(values["model_type"]), **known), note
        raise


def _lengths(data: "PubMedQADataModule", backend: "Backend") -> tuple[list[tuple[int, int]], str | None]:
    """(prompt, completion) of each training example in tokens, or PubMedQA's with a note."""
    from medqlora.profiling.lengths import random_examples

    note = None
    try:
        data.read(backend.tokenizer(), ("train", "dev"), report=lambda line: None)
        examples = data.train
    except InputError:
        examples = random_examples(vocab_size=2, longest=10_000)
        note = "the questions, or the base's tokenizer, can't be read here: planned with PubMedQA's lengths"
    return [(len(example.prompt), len(example.completion)) for example in examples], note


def _fused(
    module: "QLoRAModule",
    data: "PubMedQADataModule",
    config: "PretrainedConfig",
    width: int,
    gpu: "GPU | None",
    longest: int,
) -> bool:
    """Whether the fused engine would run the fit."""
    from medqlora.fused.support import unsupported_shape

    engine = module.options.engine
    possible = (
        engine != "native"
        and unsupported_shape(config.get_text_config(), longest) is None
        and getattr(module.backend, "quantization", "nf4") in ("nf4", "fp4")
        and not module.lora.use_dora
        and data.options.packing != "padded"
    )
    return possible and (engine == "fused" or (width == 2 and (gpu is None or gpu.fused)))
