"""`medqlora bench`: the speed and memory of a training step, of this project and of other trainers."""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from medqlora.commands import bench_generate
from medqlora.commands.arguments import Parser
from medqlora.commands.registry import Command
from medqlora.errors import InputError
from medqlora.profiling.case import PEERS, Case, ModelShape, Trainer
from medqlora.profiling.figures import Figures, Row
from medqlora.profiling.peers import check_peers, peer_cases
from medqlora.profiling.processes import run_case, run_cases
from medqlora.profiling.report import heading, line, write_csv, write_json, write_plot
from medqlora.profiling.shapes import SHAPES, base_of, configuration_values
from medqlora.utils.progress import phase
from medqlora.utils.screen import SCREEN

#: the default engines and checkpointing, and the micro-batches of `--sweep`; without it the largest alone
ENGINES: tuple[Trainer, ...] = ("fused", "native")
CHECKPOINTING = ("full", "none")
BUDGETS = (1024, 2048, 4096, 8192)
COMMAND = Command(
    "bench",
    "speed and memory of a training step, here and beside other trainers",
    also=("benchmark",),
    rank=80,
)


_EXAMPLES = """examples:
  medqlora bench                                       Llama-3-8B's shape, both engines, on a GPU
  medqlora bench --shape tiny                          a try in seconds, also on a CPU
  medqlora bench --config configs/qlora.yaml           the base model of a configuration, named by its folder
  medqlora bench --sweep --out frontier                speed over memory: frontier/bench.png
  medqlora bench --devices 2                           two GPUs of this host, compared with one
  medqlora bench --devices 2 --strategy fsdp --engine fused --shape llama-3-70b --micro_batch_tokens 2048
                                                       a base model larger than one GPU, sharded over two
  medqlora bench --generate --weights cached           decoding, beside transformers' generate and Unsloth's
  medqlora bench --peer all                            TRL with PEFT and with Unsloth on the same records

Weights and tokens are random: the cost of a step is the same, and nothing is downloaded. The lengths are
PubMedQA's. Tokens are counted without padding; ± is the interquartile range over the timed steps; plan is the
error of `medqlora plan` against the peak; FLOPs is the share of a large matrix product's speed, measured in the
same process (recomputation by checkpointing doesn't count). Every case runs in its own process; a case that
runs out of memory is reported in its row.

With --devices each GPU has a process with its own base model, as in `medqlora fit --trainer.devices`: each takes
its share of a step's examples, and one all-reduce sums the gradients. Each GPU has as many tokens as one alone,
which is measured first. With --strategy fsdp the base model is sharded over the GPUs; the case with one GPU has
all of it, and its row tells if it doesn't fit. Tokens are of all GPUs, memory is of the GPU with the most,
scaling is the speed relative to one GPU, and "idle" is the fastest GPU's wait for the others.
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = Parser(
        "bench",
        "Measures training steps: tokens per second, seconds per step, peak memory and FLOP utilisation.\n"
        "Options with several values give every combination.",
        _EXAMPLES,
    )
    _add_engine_options(made)
    _add_step_options(made)
    _add_run_options(made)
    bench_generate.add_options(made)
    return made


def _add_engine_options(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--shape", choices=tuple(SHAPES), help="a model's shape by name (default: llama-3-8b)")
    add(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="take the shape of model.backend.base, a folder; only its config.json is read",
    )
    add("--engine", nargs="+", choices=ENGINES, help="engine of the steps (default: both)")
    add(
        "--checkpointing",
        nargs="+",
        metavar="HOW",
        help="full, none, and for the fused engine offload or a number of layers (default: full none)",
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
    add(
        "--graphs",
        choices=("auto", "off"),
        default="auto",
        help="off: the fused engine's steps without CUDA graphs",
    )
    add("--embedding", choices=("device", "host"), default="device", help="host: kept in host memory")
    add("--head", choices=("device", "host"), default="device", help="host: streamed from host memory")


def _add_step_options(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add(
        "--batch_size",
        type=int,
        metavar="N",
        help="examples per step and GPU (default: as many as fill one micro-batch)",
    )
    add("--compile", choices=("auto", "yes", "no"), default="auto", help="the fused engine's kernels")
    add("--precision", choices=("bf16-mixed", "16-mixed", "32"), help="default: bf16-mixed, on a CPU 32")
    add("--warm_up", type=int, default=4, metavar="N", help="steps before timing (default: %(default)s)")
    add("--steps", type=int, default=12, metavar="N", help="timed steps (default: %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to run")


def _add_run_options(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
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
        help="of several GPUs: a base model on each, or one sharded base model (default: %(default)s)",
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
        help="folder of bench.json, .csv and .png (default: %(default)s)",
    )


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, before any case runs."""
    options = parser().parse_args(words)
    bench_generate.check(options)
    if options.generate:
        name, shape = _shape(options)
        device = _device(options)
        return bench_generate.run_generation(options, name, shape, device, _folder(options.out))
    cases, peers = _cases(options)
    folder = _folder(options.out)
    print(heading((cases + peers)[0].device), flush=True)
    rows: list[Row] = []

    def report(case: Case, figures: Figures) -> None:
        rows.append(_scaled(Row(case, figures), rows))
        with SCREEN.hidden():
            print(line(rows[-1]), flush=True)
        bar.advance()
        write_json(folder / "bench.json", rows)  # after each case: a long sweep may be interrupted
        write_csv(folder / "bench.csv", rows)

    with phase("Measuring", len(cases) + len(peers), "cases") as bar:
        run_cases(cases, report)
        _run_peers(peers, report)
    plotted = write_plot(folder / "bench.png", rows)
    _print_environment(rows)
    print(f"Written: {folder}/bench.json, bench.csv{', bench.png' if plotted else ''}", flush=True)
    for _, figures in rows:
        if figures.get("input_error"):
            raise InputError(figures["failed"])
    # running out of memory is a result; any other failure is an error
    return int(any(figures.get("failed") not in (None, "out of memory") for _, figures in rows))


def _folder(out: str) -> Path:
    folder = Path(out).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: the folder can't be made ({error.strerror})") from error
    return folder


class _Grid(NamedTuple):
    """The values whose combinations are measured."""

    engines: Sequence[Trainer]
    checkpointing: Sequence[str]
    budgets: Sequence[int]


def _cases(options: argparse.Namespace) -> tuple[list[Case], list[Case]]:
    """This project's cases, and the peers'."""
    grid = _Grid(
        options.engine or ENGINES,
        options.checkpointing or CHECKPOINTING,
        options.micro_batch_tokens or (BUDGETS if options.sweep else BUDGETS[-1:]),
    )
    _check_numbers(options, grid)
    _check_engine(options, grid)
    _check_combination(options)
    name, shape = _shape(options)
    asked = options.peer or []
    names: list[Trainer] = list(PEERS) if "all" in asked else list(dict.fromkeys(asked))
    if names:
        check_peers(names)
    device = _device(options)
    if names and device == "cpu":
        raise InputError("--device cpu and --peer: those trainers are measured on a GPU: leave one out")
    common = Case(
        trainer="fused",
        shape=shape,
        shape_name=name,
        precision=options.precision or ("bf16-mixed" if device == "cuda" else "32"),
        warm_up=options.warm_up,
        steps=options.steps,
        device=device,
    )
    peers = [case for peer in names for case in peer_cases(peer, grid.budgets, common)]
    return [] if options.only_peers else _own_cases(options, grid, common), peers


def _own_cases(options: argparse.Namespace, grid: _Grid, common: Case) -> list[Case]:
    """Every combination of the grid, each on one device and then on several."""
    devices = sorted({1, *options.devices})
    return [
        dataclasses.replace(
            common,
            trainer=engine,
            checkpointing=checkpointing,
            weights=options.weights,
            graphs=options.graphs,
            embedding=options.embedding,
            head=options.head,
            compile=options.compile == "yes" or (options.compile == "auto" and common.device == "cuda"),
            micro_batch_tokens=budget,
            batch_size=options.batch_size,
            devices=count,
            strategy=options.strategy if count > 1 else "ddp",
        )
        for engine, budget, checkpointing, count in product(
            grid.engines, grid.budgets, grid.checkpointing, devices
        )
    ]


def _check_numbers(options: argparse.Namespace, grid: _Grid) -> None:
    for name in ("batch_size", "steps", "warm_up"):
        value: int | None = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}: it has to be at least 1")
    if min(options.devices) < 1:
        raise InputError(f"--devices {min(options.devices)}: it has to be at least 1")
    for budget in grid.budgets:
        if budget < 256:
            raise InputError(
                f"--micro_batch_tokens {budget}: it has to be at least 256, a short example's length"
            )


def _check_engine(options: argparse.Namespace, grid: _Grid) -> None:
    """Raises InputError for settings that the chosen engines don't have."""
    native = "native" in grid.engines
    for value in grid.checkpointing:
        if value not in ("full", "none", "offload") and not value.isdigit():
            raise InputError(f"--checkpointing {value}: it is full, none, offload or a number of layers")
        if value not in ("full", "none") and native:
            raise InputError(
                f"--checkpointing {value}: the native engine has full and none: add --engine fused"
            )
    if options.weights == "cached" and native:
        raise InputError("--weights cached: the native engine keeps nf4: add --engine fused")
    if options.strategy != "fsdp":
        return
    if max(options.devices) == 1:
        raise InputError("--strategy fsdp: one device has nothing to share: add --devices 2")
    if options.weights == "cached":
        raise InputError("--strategy fsdp: --weights cached would keep every layer on each device: use nf4")


def _check_combination(options: argparse.Namespace) -> None:
    if options.shape is not None and options.config:
        raise InputError(f"--shape {options.shape} and --config: both set the shape: keep one")
    if options.only_peers and not options.peer:
        raise InputError("--only_peers: no trainer is named: add --peer all")
    most = max(options.devices)
    if options.peer and most > 1:
        raise InputError(
            f"--devices {most} and --peer: those trainers are measured on one GPU: leave one out"
        )


def _shape(options: argparse.Namespace) -> tuple[str, ModelShape]:
    """The shape's name and values."""
    if options.config:
        base = base_of(options.config)
        return base, configuration_values(base, "--config: model.backend.base")
    name = options.shape or "llama-3-8b"
    return name, SHAPES[name][1]


def _device(options: argparse.Namespace) -> str:
    """The device type, "cpu" or "cuda"; torch is imported only if the options don't decide."""
    if options.device == "cpu":
        return "cpu"
    import torch

    cuda = torch.cuda.is_available()
    most, count = max(options.devices), torch.cuda.device_count()
    if most > max(1, count):
        fix = f"use {count} at most" if count > 1 else "leave it out"
        raise InputError(
            f"--devices {most}: torch finds {count or 'no'} GPU{'s' if count > 1 else ''} here: {fix}, or try it with "
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


def _run_peers(peers: list[Case], report: Callable[[Case, Figures], None]) -> None:
    """Runs the peers' cases; those that load a checkpoint share one, written in a process of its own."""
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


def _scaled(row: Row, others: Sequence[Row]) -> Row:
    """The row with its speed relative to one device with the same load, if that was measured."""
    alone = dataclasses.replace(row.case, devices=1, strategy="ddp")
    for case, figures in others:
        if case == alone and "tokens_per_s" in figures and "tokens_per_s" in row.figures:
            scaling = round(row.figures["tokens_per_s"] / figures["tokens_per_s"], 3)
            return Row(row.case, {**row.figures, "scaling": scaling})
    return row


def _print_environment(rows: Sequence[Row]) -> None:
    """Prints hardware, versions, the speed of a matrix product, and the attention of each trainer."""
    measured = [row for row in rows if "hardware" in row.figures]
    if not measured:
        return
    figures = measured[0].figures
    ceiling = max(row.figures["matrix_product_tflops"] for row in measured)
    hardware = ", ".join(f"{key} {value}" for key, value in figures["hardware"].items())
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    print(f"On {hardware}; a matrix product reaches {ceiling:,.2f} TFLOP/s; {versions}")
    for trainer, path in dict.fromkeys((row.case.trainer, row.figures["attention"]) for row in measured):
        print(f"Attention of {trainer}: {path}")
