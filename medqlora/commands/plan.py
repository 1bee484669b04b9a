"""`medqlora plan`: what a fit will need and how long it may take, before a weight is loaded."""

import argparse
import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from medqlora.commands.arguments import Parser
from medqlora.commands.places import check_cache
from medqlora.commands.registry import Command
from medqlora.config.check import check_options
from medqlora.config.words import with_config
from medqlora.errors import InputError

COMMAND = Command("plan", "memory and time that a fit will need, before a weight is loaded", rank=70)

#: `--trainer.precision` → the name that Lightning has for it
_PRECISIONS = {"None": "32", "16": "16-mixed", "bf16": "bf16-mixed"}
_GB, _GIB = 10**9, 2**30
_UNITS = {"gib": _GIB, "gb": _GB, "mib": 2**20, "mb": 10**6}


def parser() -> argparse.ArgumentParser:
    """The options of its own; all of `fit`'s go with them."""
    made = Parser(
        "plan",
        "What `medqlora fit` with the same options will hold in memory, phase by phase, whether that fits a\n"
        "GPU, what fits it at most, and how long it may take. No weight is loaded and no GPU is needed.\n"
        "Every option of `medqlora fit` may follow.",
    )
    made.add_argument("--gpu", metavar="NAME", help="plan for this GPU, as h200 or rtx4090")
    made.add_argument("--gpu-memory", metavar="SIZE", help="plan for so much memory, as 8GiB or 24GB")
    made.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="GPUs that share each step, and with --trainer.strategy fsdp the base, of which each else has its "
        "own (default: --trainer.devices, or 1)",
    )
    made.add_argument("--json", action="store_true", help="print everything as one line of JSON")
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, or a model whose configuration can't be had."""
    options, rest = parser().parse_known_args(words)
    memory = None if options.gpu_memory is None else _bytes(options.gpu_memory)
    rest = with_config(rest)
    check_options("fit", rest)
    check_cache(rest)
    from medqlora.planner.speed import gpu_named

    gpu = None if options.gpu is None else gpu_named(options.gpu)
    if options.devices is not None and options.devices < 1:
        raise InputError(f"--devices {options.devices}: give the number of GPUs, at least 1")
    found = _plan(rest, gpu, memory, options.devices)
    if options.json:
        print(json.dumps(found), flush=True)
    else:
        print("\n".join(_lines(found)), flush=True)
    return 0


def _bytes(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    if match is None or match[2].lower() not in _UNITS or not 0 < float(match[1]) < math.inf:
        raise InputError(f"--gpu-memory {text}: give a number and GiB, GB, MiB or MB, as 8GiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _plan(words: list[str], gpu: Any, memory: int | None, devices: int | None) -> dict[str, Any]:
    import torch

    from medqlora.commands.run import build
    from medqlora.models.lora import lora_targets
    from medqlora.models.targets import projections
    from medqlora.models.transformers import skeleton
    from medqlora.planner import Shape, plan
    from medqlora.planner.fitting import RESERVE, imbalance, largest_budgets
    from medqlora.planner.speed import tokens_per_s
    from medqlora.training.checks.options import (
        DTYPES,
        check_checkpointing,
        check_precision,
        check_shared,
        check_strategy,
        check_weights,
    )
    from medqlora.training.fit_plan import FitOptions, plan_fit
    from medqlora.utils.run_length import total_steps

    cli = build(["fit", *words], with_trainer=False)
    module, data, trainer = cli.model, cli.datamodule, cli.config["fit"]["trainer"]
    data.check()
    module.lora.check()
    check_checkpointing(module.checkpointing)
    check_weights(module.engine, module.weights)
    precision = _PRECISIONS.get(str(trainer["precision"]), str(trainer["precision"]))
    check_precision(precision)
    device = None
    if gpu is None and memory is None and torch.cuda.is_available():
        device, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    elif gpu is not None:
        memory = memory or int(gpu.memory_gb * _GB)
    config, base_note = _configuration(module.backend)
    try:
        shape = Shape.of(config)
    except AttributeError as error:
        raise InputError(
            f"--model.backend.base: '{module.backend.base}' is {config.model_type}, whose memory can't be told: "
            "a plan is of decoders with one MLP a layer, as Llama's, Mistral's and Qwen's"
        ) from error
    if module.lora.target_modules is not None:
        lora_targets(module.lora, skeleton(config, module.backend.base))
    lengths, length_note = _lengths(data, module)
    width = DTYPES[precision].itemsize
    fused = _fused(module, data, config, width, gpu, longest=max(map(sum, lengths)))
    if devices is None:
        given = str(trainer["devices"])
        devices = int(given) if given.isdigit() else 1
    room = None if memory is None else int((1 - RESERVE) * memory)
    check_strategy(trainer["strategy"])
    spread = trainer["strategy"] == "fsdp" and devices > 1
    if spread:
        check_shared(module.backend, module.lora, module.options, data.packing, config)
    fitted = plan_fit(
        shape,
        FitOptions(
            module.backend,
            module.lora,
            module.options,
            data.options,
            module.optimizer,
            data.micro_batch_tokens,
        ),
        lengths,
        fused=fused or spread,
        width=width,
        memory=room,
        devices=devices,
        sharded=spread,
    )
    setting, found = fitted.setting, fitted.plan
    steps = -(-len(lengths) // data.batch_size)
    run = total_steps(_bounds(trainer), steps)
    tokens = sum(prompt + completion for prompt, completion in lengths)
    flops = shape.flops(module.lora.r, projections(module.lora.target_modules))
    total = flops.step([sum(one) for one in lengths], sum(completion for _, completion in lengths))
    result: dict[str, Any] = {
        "base": module.backend.base,
        "notes": [note for note in (base_note, length_note) if note],
        "engine": setting.engine,
        "checkpointing": setting.checkpointing,
        "weights": "cached" if setting.cached else "nf4",
        "micro_batch_tokens": fitted.micro_batch_tokens,
        "largest_micro_batch": setting.tokens,
        "phases": {name: dict(parts) for name, parts in found.phases.items()},
        "peak": found.peak,
        "memory": memory,
        "reserve": RESERVE,
        "device": device,
        "fits": None if memory is None else found.peak <= (1 - RESERVE) * memory,
        "devices": devices,
        "steps": run,
        "flops_per_step": total / steps,
        "tokens": tokens * run // steps,
    }
    if gpu is not None:
        # the processes wait for the one with the most tokens
        low, high = (
            speed * devices / imbalance(fitted.work)
            for speed in tokens_per_s(setting, total / tokens, gpu.tflops)
        )
        result["tokens_per_s"] = [low, high]
        result["minutes"] = [tokens * run / steps / speed / 60 for speed in (high, low)]
    if room is not None:
        result["largest"] = largest_budgets(shape, setting, room, fitted.work.longest)
    parameters = (
        shape.linear_parameters + shape.embedding_parameters + shape.head_parameters + shape.small_parameters
    )
    # bfloat16 weights and gradients, float32 master weights and Adam's two moments
    dense = replace(setting, engine="native", quantization="none", checkpointing="full")
    full = 16 * parameters + plan(shape, dense).phases["fit"]["activations"]
    result["full_fine_tuning"] = {"peak": full, "saved": 1 - found.peak / full}
    return result


def _bounds(trainer: Any) -> Any:
    """The options that end a run, with what Lightning puts in the place of those left out."""
    epochs, most = trainer["max_epochs"], trainer["max_steps"]
    if epochs is None:
        epochs = 1000 if most == -1 else -1
    limit = 1.0 if trainer["limit_train_batches"] is None else trainer["limit_train_batches"]
    limit = int(limit) if limit > 1 else float(limit)  # a number of steps is read as a float too
    return SimpleNamespace(max_epochs=epochs, max_steps=most, limit_train_batches=limit)


def _configuration(backend: Any) -> tuple[Any, str | None]:
    """The base's configuration; where it can't be had, that of the published shape its name tells."""
    from transformers import AutoConfig

    from medqlora.profiling.shapes import SHAPES

    try:
        return backend.config(), None
    except InputError:
        plain = re.sub(r"[^a-z0-9]+", "-", backend.base.lower())
        for name, (_, values) in SHAPES.items():
            if name != "tiny" and name in plain:
                known = {key: value for key, value in values.items() if key != "model_type"}
                note = f"{backend.base} can't be read here: planned with the published shape of {name}"
                return AutoConfig.for_model(str(values["model_type"]), **known), note
        raise


def _lengths(data: Any, module: Any) -> tuple[list[tuple[int, int]], str | None]:
    """(prompt, completion) of each training example in tokens; PubMedQA's where they can't be read here."""
    from medqlora.profiling.lengths import random_examples

    try:
        data.read(module.backend.tokenizer(), ("train", "dev"), report=lambda line: None)
        return [(len(one.prompt), len(one.completion)) for one in data.train], None
    except InputError:
        examples = random_examples(vocab_size=2, longest=10_000)
        note = "the questions, or the base's tokenizer, can't be read here: planned with PubMedQA's lengths"
        return [(len(one.prompt), len(one.completion)) for one in examples], note


def _fused(module: Any, data: Any, config: Any, width: int, gpu: Any, longest: int) -> bool:
    from medqlora.fused.support import unsupported_shape

    quantization = getattr(module.backend, "quantization", "nf4")
    possible = (
        module.engine != "native"
        and unsupported_shape(config.get_text_config(), longest) is None
        and quantization in ("nf4", "fp4")
        and not module.lora.use_dora
        and data.packing != "padded"
    )
    return possible and (module.engine == "fused" or (width == 2 and (gpu is None or gpu.fused)))


def _kept(found: dict[str, Any]) -> str:
    kept = found["checkpointing"]
    words = f"of {kept} layers" if isinstance(kept, int) else str(kept)
    return words + (", weights kept dequantized" if found["weights"] == "cached" else "")


def _lines(found: dict[str, Any]) -> list[str]:
    phases = found["phases"]
    unit, name_of_unit = (_GIB, "GiB") if found["peak"] >= _GIB else (2**20, "MiB")

    def gib(value: float) -> str:
        return f"{value / unit:.2f}"

    each = f" on each of {found['devices']} GPUs" if found["devices"] > 1 else ""
    parts = list(dict.fromkeys(part for one in phases.values() for part in one))
    lines = [f"Plan for {found['base']}: {found['engine']} engine, checkpointing {_kept(found)}"]
    lines += [f"Note: {note}" for note in found["notes"]]
    lines += ["", f"{f'{name_of_unit}, at the peak of':<24}" + "".join(f"{name:>10}" for name in phases)]
    for part in parts:
        cells = (gib(one[part]) if part in one else "" for one in phases.values())
        lines.append(f"  {part:<22}" + "".join(f"{cell:>10}" for cell in cells))
    lines.append(f"  {'in all':<22}" + "".join(f"{gib(sum(one.values())):>10}" for one in phases.values()))
    lines += [
        "",
        f"Peak:      {gib(found['peak'])} {name_of_unit}{each}, with {found['largest_micro_batch']} tokens in the "
        "largest micro-batch",
    ]
    if found["memory"] is not None:
        where = found["device"] or "the given memory"
        verdict, free = "fits" if found["fits"] else "does not fit", f"{found['reserve']:.0%} of it left free"
        lines.append(f"           {verdict} {where} of {gib(found['memory'])} {name_of_unit}, {free}")
        for kind, tokens in found["largest"].items():
            most = "no example fits" if tokens is None else f"--data.micro_batch_tokens {tokens} at most"
            lines.append(f"           checkpointing {kind}: {most}")
    full = found["full_fine_tuning"]
    if full["saved"] > 0:
        lines.append(
            f"           full fine-tuning would take {gib(full['peak'])} {name_of_unit}: {full['saved']:.0%} saved"
        )
    lines.append(
        f"Work:      {found['steps']} steps of {found['flops_per_step'] / 1e12:.1f} TFLOP, {found['tokens']:,} tokens"
    )
    if "minutes" in found:
        low, high = found["tokens_per_s"]
        fast, slow = found["minutes"]
        lines.append(
            f"Time:      {fast:.1f} to {slow:.1f} minutes of training at {low:,.0f} to {high:,.0f} tokens/s, "
            "without validation;"
        )
        lines.append("           an estimate, from what an H200 got done of its peak")
    lines.append("Memory is what torch allocates; the GPU's own context takes about half a GiB more.")
    return lines
