"""`medqlora bench --generate`: the speed of decoding, beside transformers' `generate` and Unsloth's."""

import argparse
import dataclasses
import json
import tempfile
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from medqlora.errors import InputError
from medqlora.profiling.case import Case, ModelShape
from medqlora.profiling.generation import GenerationCase, Writer, heading, line
from medqlora.profiling.processes import run_case


def add_options(made: argparse.ArgumentParser) -> None:
    """The options of a generation."""
    add = made.add_argument
    add(
        "--generate",
        action="store_true",
        help="measure decoding in place of training steps: this project's engine, transformers' generate, and "
        "Unsloth's where it is installed",
    )
    add("--rows", nargs="+", type=int, metavar="N", help="with --generate: prompts at once (default: 1 50)")
    add("--new_tokens", type=int, metavar="N", help="with --generate: new tokens of each (default: 64)")


def check(options: argparse.Namespace) -> None:
    """Raises InputError for options that don't go together, or numbers out of range."""
    if not options.generate:
        for name in ("rows", "new_tokens"):
            if getattr(options, name) is not None:
                raise InputError(f"--{name}: it is of a generation: add --generate")
        return
    for name in (
        "sweep",
        "peer",
        "only_peers",
        "engine",
        "checkpointing",
        "batch_size",
        "micro_batch_tokens",
    ):
        if getattr(options, name):
            raise InputError(f"--{name} and --generate: it is of a training step: leave one out")
    if max(options.devices) > 1:
        raise InputError(
            f"--devices {max(options.devices)} and --generate: it runs on one device: leave it out"
        )
    for name in ("embedding", "head"):
        if getattr(options, name) == "host":
            raise InputError(f"--{name} host and --generate: not measured yet: leave it out")
    for value in options.rows or ():
        if value < 1:
            raise InputError(f"--rows {value}: it has to be at least 1")
    if options.new_tokens is not None and options.new_tokens < 2:
        raise InputError(
            f"--new_tokens is {options.new_tokens}: it has to be at least 2, one after the prefill's"
        )


def run_generation(
    options: argparse.Namespace, name: str, shape: ModelShape, device: str, folder: Path
) -> int:
    """Measures every writer with every number of rows; returns the exit code."""
    common = GenerationCase(
        writer="medqlora",
        shape=shape,
        shape_name=name,
        weights=options.weights,
        new_tokens=options.new_tokens or 64,
        precision=options.precision or ("bf16-mixed" if device == "cuda" else "32"),
        device=device,
    )
    writers: list[Writer] = ["medqlora", "transformers"]
    if device == "cuda" and find_spec("unsloth") is not None:
        writers.append("unsloth")
    print(heading(device), flush=True)
    rows: list[dict[str, object]] = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="medqlora-bench-") as checkpoint:
        if "unsloth" in writers:
            written = run_case(
                Case("fused", shape, precision=common.precision, device=device, folder=checkpoint),
                job="checkpoint",
            )
            if "failed" in written:
                print(f"unsloth: its checkpoint was not written: {written['failed']}", flush=True)
                writers.remove("unsloth")
        for count, writer in product(options.rows or (1, 50), writers):
            case = dataclasses.replace(
                common, writer=writer, rows=count, folder=checkpoint if writer == "unsloth" else ""
            )
            figures = run_case(case, job="generate")
            print(line(case, figures), flush=True)
            rows.append({"case": case.to_json(), "setting": case.described(), **figures})
            failed |= figures.get("failed") not in (None, "out of memory")
            # after each case: a long series may be interrupted
            text = json.dumps({"rows": rows}, indent=1, ensure_ascii=False, allow_nan=False)
            (folder / "generate.json").write_text(text + "\n", encoding="utf-8")
    if "unsloth" not in writers:
        print("Unsloth: not measured; it needs a GPU and its package", flush=True)
    print(f"Written: {folder}/generate.json", flush=True)
    return int(failed)
