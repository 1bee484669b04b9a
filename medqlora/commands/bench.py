"""`medqlora bench`: how fast a training step is and what it holds in memory, here and beside other trainers."""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.profiling.case import PEERS, Case
from medqlora.profiling.peers import check_peers, peer_cases
from medqlora.profiling.processes import run_case, run_cases
from medqlora.profiling.report import (
    heading,
    line,
    write_csv,
    write_json,
    write_plot,
)
from medqlora.profiling.shapes import SHAPES, base_of, configuration_values

COMMAND = Command(
    "bench",
    "speed and memory of a training step, here and beside other trainers",
    also=("benchmark",),
    rank=80,
)

#: what `--sweep` goes over
SWEEP: dict[str, list[Any]] = {
    "engine": ["fused", "native"],
    "checkpointing": ["full", "none"],
    "micro_batch_tokens": [1024, 2048, 4096, 8192],
}

_EXAMPLES = """examples:
  medqlora bench                                       Llama-3-8B's shape, both engines, on a GPU
  medqlora bench --shape tiny                          a try in seconds, also on a CPU
  medqlora bench --config configs/qlora.yaml           the base that a configuration names by its folder
  medqlora bench --sweep --out frontier                speed over memory: frontier/bench.png
  medqlora bench --devices 2                           two GPUs of this host, and what they gain over one
  medqlora bench --devices 2 --strategy fsdp --engine fused --shape llama-3-70b --micro_batch_tokens 2048
                                                       one base over both, for those that outgrow one GPU
  medqlora bench --peer all                            TRL with PEFT and with Unsloth on the same records

Weights are random and so are the tokens: neither changes what a step costs, and nothing is downloaded. The
lengths are PubMedQA's. Tokens are counted without padding; ± is the distance of the quartiles over the
timed steps; plan is how far `medqlora plan` is from the peak; FLOPs is the share of a large matrix
product's speed, measured in the same process (what checkpointing computes again doesn't count). Every case
runs in its own process; one that runs out of memory is a row that says so.

With --devices each GPU has a process with a base of its own, and they take the steps of `medqlora fit
--trainer.devices`: each its share of a step's examples, and one message for all gradients. Each GPU has as
many tokens as one alone, which is measured first. With --strategy fsdp they share one base, and one alone has
the whole of it; where that doesn't fit, its row says so. Tokens are then of all GPUs, memory is of the fullest,
scaling is how many times as fast as one they are, and the quickest waits for the others that share of a step.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser(
        "bench",
        "Measures training steps: tokens a second, seconds a step, peak memory and FLOP utilisation.\n"
        "Several values of an option give every combination.",
        _EXAMPLES,
    )
    add = made.add_argument
    add("--shape", choices=tuple(SHAPES), help="a model's shape by name (default: llama-3-8b)")
    add(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="take the shape of model.backend.base, a folder whose config.json alone is read",
    )
    add("--engine", nargs="+", choices=("fused", "native"), help="what runs the steps (default: both)")
    add(
        "--checkpointing",
        nargs="+",
        metavar="HOW",
        help="full, none, and of the fused engine offload or a number of layers (default: full none)",
    )
    add(
        "--micro_batch_tokens",
        nargs="+",
        type=int,
        metavar="N",
        help="tokens of a packed micro-batch (default: 8192)",
    )
    add(
        "--weights",
        choices=("nf4", "cached"),
        default="nf4",
        help="cached: the fused engine dequantizes once",
    )
    add("--embedding", choices=("device", "host"), default="device", help="host: kept in host memory")
    add("--head", choices=("device", "host"), default="device", help="host: streamed from host memory")
    add(
        "--batch_size",
        type=int,
        metavar="N",
        help="examples a step, for each GPU (default: as many as fill one micro-batch)",
    )
    add("--compile", choices=("auto", "yes", "no"), default="auto", help="the fused engine's kernels")
    add("--precision", choices=("bf16-mixed", "16-mixed", "32"), help="default: bf16-mixed, on a CPU 32")
    add("--warm_up", type=int, default=4, metavar="N", help="steps before timing (default: %(default)s)")
    add("--steps", type=int, default=12, metavar="N", help="timed steps (default: %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to run")
    add(
        "--devices",
        nargs="+",
        type=int,
        default=[1],
        metavar="N",
        help="GPUs of this host that share each step, or with --device cpu processes; one alone is measured too "
        "(default: 1)",
    )
    add(
        "--strategy",
        choices=("ddp", "fsdp"),
        default="ddp",
        help="of several: each has the whole base, or they share one (default: %(default)s)",
    )
    add("--sweep", action="store_true", help="a frontier: 1k to 8k tokens, checkpointing full and none")
    add(
        "--peer",
        nargs="+",
        choices=("trl-unsloth", "trl-peft", "all"),
        help="also measure these trainers: 2×4 examples cut at 256 tokens, and packed; checkpointing on and off",
    )
    add(
        "--only_peers",
        action="store_true",
        help="measure the trainers of --peer without this project's engines",
    )
    add(
        "--out",
        metavar="DIR",
        default="lightning_logs/bench",
        help="where bench.json, .csv and .png go (default: %(default)s)",
    )
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, before anything is run."""
    options = parser().parse_args(words)
    cases, peers = _cases(options)
    folder = Path(options.out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {options.out}: the folder can't be made ({error.strerror})") from error
    print(heading((cases + peers)[0].device), flush=True)
    rows: list[dict[str, Any]] = []

    def report(case: Case, result: dict[str, Any]) -> None:
        rows.append({"case": case.to_json(), "setting": case.described(), **result})
        _scale(rows)
        print(line(rows[-1]), flush=True)
        write_json(folder / "bench.json", rows)  # each time: a long sweep may be interrupted
        write_csv(folder / "bench.csv", rows)

    run_cases(cases, report)
    _run_peers(peers, report)
    plotted = write_plot(folder / "bench.png", rows)
    _print_where(rows)
    print(f"Written: {folder}/bench.json, bench.csv{', bench.png' if plotted else ''}", flush=True)
    for row in rows:
        if row.get("input_error"):
            raise InputError(row["failed"])
    # that a case doesn't fit is a finding; anything else is a failure
    return int(any(row.get("failed") not in (None, "out of memory") for row in rows))


def _cases(options: argparse.Namespace) -> tuple[list[Case], list[Case]]:
    """This project's cases, and the peers'."""
    for name, least in (("batch_size", 1), ("steps", 1), ("warm_up", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}: it has to be at least {least}")
    # without --sweep the largest micro-batch alone
    chosen: dict[str, list[Any]] = {
        name: getattr(options, name)
        or (swept if options.sweep else swept[-1:] if "tokens" in name else swept)
        for name, swept in SWEEP.items()
    }
    if min(options.devices) < 1:
        raise InputError(f"--devices {min(options.devices)}: it has to be at least 1")
    for budget in chosen["micro_batch_tokens"]:
        if budget < 256:
            raise InputError(
                f"--micro_batch_tokens {budget}: it has to be at least 256, a short example's length"
            )
    for kept in chosen["checkpointing"]:
        if kept not in ("full", "none", "offload") and not str(kept).isdigit():
            raise InputError(f"--checkpointing {kept}: it is full, none, offload or a number of layers")
        if kept not in ("full", "none") and "native" in chosen["engine"]:
            raise InputError(
                f"--checkpointing {kept}: the native engine has full and none: add --engine fused"
            )
    if options.weights == "cached" and "native" in chosen["engine"]:
        raise InputError("--weights cached: the native engine keeps nf4: add --engine fused")
    if options.strategy == "fsdp":
        if max(options.devices) == 1:
            raise InputError(
                "--strategy fsdp: there is one device, and nothing to share out: add --devices 2"
            )
        if "native" in chosen["engine"]:
            raise InputError(
                "--strategy fsdp: the fused engine alone trains a shared base: add --engine fused"
            )
        if options.weights == "cached":
            raise InputError("--strategy fsdp: --weights cached would keep every layer whole: use nf4")
    if options.shape is not None and options.config:
        raise InputError(f"--shape {options.shape} and --config: both say the shape: keep one")
    if options.only_peers and not options.peer:
        raise InputError("--only_peers: no trainer is named: add --peer all")
    most = max(options.devices)
    if options.peer and most > 1:
        raise InputError(
            f"--devices {most} and --peer: those trainers are measured on one GPU: leave one out"
        )
    name, shape = _shape(options)
    names = list(PEERS) if "all" in (options.peer or []) else list(dict.fromkeys(options.peer or []))
    if names:
        check_peers(names)
    device = _device(options)
    if names and device == "cpu":
        raise InputError("--device cpu and --peer: those trainers are measured on a GPU: leave one out")
    common: dict[str, Any] = {
        "shape": shape,
        "shape_name": name,
        "precision": options.precision or ("bf16-mixed" if device == "cuda" else "32"),
        "warm_up": options.warm_up,
        "steps": options.steps,
        "device": device,
    }
    ours = [
        Case(
            trainer=engine,
            checkpointing=str(kept),
            weights=options.weights,
            embedding=options.embedding,
            head=options.head,
            compile=options.compile == "yes" or (options.compile == "auto" and device == "cuda"),
            micro_batch_tokens=budget,
            batch_size=options.batch_size,
            devices=devices,
            strategy=options.strategy if devices > 1 else "ddp",
            **common,
        )
        for engine, budget, kept, devices in product(
            chosen["engine"],
            chosen["micro_batch_tokens"],
            chosen["checkpointing"],
            sorted({1, *options.devices}),  # one alone is what several are compared with
        )
    ]
    peers = [case for peer in names for case in peer_cases(peer, chosen["micro_batch_tokens"], **common)]
    return [] if options.only_peers else ours, peers


def _shape(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    if options.config:
        base = base_of(options.config)
        return base, configuration_values(base, "--config: model.backend.base")
    name = options.shape or "llama-3-8b"
    return name, SHAPES[name][1]


def _device(options: argparse.Namespace) -> str:
    if options.device == "cpu":
        return "cpu"
    import torch

    cuda = torch.cuda.is_available()
    most, found = max(options.devices), torch.cuda.device_count()
    if most > max(1, found):
        fix = f"use {found} at most" if found > 1 else "leave it out"
        raise InputError(
            f"--devices {most}: torch finds {found or 'no'} GPU{'s' if found > 1 else ''} here: {fix}, or try it with "
            "--device cpu --shape tiny"
        )
    if options.device == "cuda" and not cuda:
        raise InputError("--device cuda: torch finds no CUDA GPU here: use cpu, with --shape tiny")
    if not cuda and options.shape is None and not options.config:
        raise InputError(
            "torch finds no CUDA GPU here, and a step of llama-3-8b takes minutes on a CPU: pass --shape tiny, or "
            "--device cpu to wait"
        )
    return "cuda" if cuda else "cpu"


def _run_peers(peers: list[Case], report: Callable[[Case, dict[str, Any]], None]) -> None:
    """The peers' cases; those that load a checkpoint share one, written in a process of its own."""
    loading = [case for case in peers if case.trainer == "trl-unsloth"]
    run_cases([case for case in peers if case not in loading], report)
    if not loading:
        return
    with tempfile.TemporaryDirectory(prefix="medqlora-bench-") as folder:
        loading = [dataclasses.replace(case, folder=folder) for case in loading]
        written = run_case(loading[0], job="checkpoint")
        if "failed" not in written:
            run_cases(loading, report)
            return
    for case in loading:
        report(case, {"failed": f"its checkpoint was not written: {written['failed']}"})


def _scale(rows: list[dict[str, Any]]) -> None:
    """Gives the last row, if it is of several devices, its speed over that of one with the same load."""
    row = rows[-1]
    one = {**row["case"], "devices": 1, "strategy": "ddp"}
    alone = next((other for other in rows[:-1] if other["case"] == one), None)
    if alone is not None and "tokens_per_s" in alone and "tokens_per_s" in row:
        row["scaling"] = round(row["tokens_per_s"] / alone["tokens_per_s"], 3)


def _print_where(rows: list[dict[str, Any]]) -> None:
    """The hardware, the ceiling and the attention path of each trainer."""
    measured = [row for row in rows if "hardware" in row]
    if not measured:
        return
    ceiling = max(row["matrix_product_tflops"] for row in measured)
    hardware = ", ".join(f"{key} {value}" for key, value in measured[0]["hardware"].items())
    versions = ", ".join(f"{name} {version}" for name, version in measured[0]["versions"].items())
    print(f"On {hardware}; a matrix product reaches {ceiling:,.2f} TFLOP/s; {versions}")
    for trainer, path in dict.fromkeys((row["case"]["trainer"], row["attention"]) for row in measured):
        print(f"Attention of {trainer}: {path}")
