"""Training steps as CUDA graphs under DDP, on two GPUs or with both processes on one (`one_gpu.py`): the run of one.

    python tests/gpu/ddp_graphs.py FOLDER --base DIR --data ori_pqal.json [--one_gpu] [--tiny]

`ddp-1` is a fit of one process, `ddp-2` the same of two, `ddp-killed` loses its second process in its second epoch, and
`ddp-resumed` goes on with its last checkpoint. Right is: both say that their steps are CUDA graphs, the curves of
`ddp-1` and `ddp-2` are apart by rounding, and `ddp-resumed` has the adapter of `ddp-2`, byte for byte. With `--tiny` it
tries itself on a CPU, without graphs. All figures are in FOLDER/fsdp.json; its last line says what held.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import one_gpu
from figures import figures, versions
from fsdp import CURVES, Commands, fit_words

KILLED_AT = 12


def words(options: argparse.Namespace, name: str, *more: str) -> list[str]:
    """A fit of 80 questions for two epochs: 20 steps, each of two micro-batches or more."""
    # 8-bit AdamW makes rounding large
    fit = [
        "--model.engine=fused",
        "--model.generate=false",
        "--trainer.max_epochs=2",
        "--model.optimizer=adamw",
    ]
    if not options.tiny:
        fit += ["--trainer.precision=bf16-mixed", "--model.graphs=auto", "--model.checkpointing=none"]
        fit += ["--data.train_samples=80", "--data.validation_samples=8", "--data.micro_batch_tokens=2048"]
    return fit_words(options, options.folder / f"run-{name}", options.base, *fit, *more)


def adapter(folder: Path) -> str | None:
    """SHA-256 of a run's adapter."""
    files = sorted(folder.glob("lightning_logs/version_*/adapter/adapter_model.safetensors"))
    return hashlib.sha256(files[-1].read_bytes()).hexdigest() if files else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--one_gpu", action="store_true", help="both processes on one GPU")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.one_gpu:
        one_gpu.settle(fit=True)
    commands = Commands(options.folder)
    commands.keep("versions", versions())
    over_two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    killed = ["--trainer.callbacks=signal_at.SignalAt", "--trainer.callbacks.name=SIGKILL"]
    killed += [f"--trainer.callbacks.step={KILLED_AT - 7 if options.tiny else KILLED_AT}"]
    killed += ["--trainer.callbacks.rank=1"]
    since = time.monotonic()
    plans = {"ddp-1": ["--trainer.devices=1"], "ddp-2": over_two, "ddp-killed": [*over_two, *killed]}
    begun = {name: commands.begin(name, words(options, name, *more)) for name, more in plans.items()}
    codes = {name: commands.end(name, begun[name], since) for name in ("ddp-killed", "ddp-2", "ddp-1")}
    source, target = (options.folder / f"run-{name}" for name in ("ddp-killed", "ddp-resumed"))
    shutil.copytree(source, target)
    shutil.rmtree(target / "lightning_logs" / "version_0" / "adapter", ignore_errors=True)
    resumed = commands.begin("ddp-resumed", words(options, "ddp-resumed", *over_two, "--ckpt_path=last"))
    codes["ddp-resumed"] = commands.end("ddp-resumed", resumed, since)

    found: dict[str, Any] = {}
    for name in (*plans, "ddp-resumed"):
        runs = sorted((options.folder / f"run-{name}" / "lightning_logs").glob("version_*"))
        found[name] = figures(runs[-1]) if runs else {}
        said = [line for line in commands.log(name).splitlines() if line.startswith(("Engine", "Training"))]
        commands.keep(name, {"exit_code": codes[name], "said": said, **found[name]})
        print(name, *dict.fromkeys(said), sep="\n    ", flush=True)
    one, two = (found[name].get("losses", {}) for name in ("ddp-1", "ddp-2"))
    apart = [abs(two[step] / one[step] - 1) for step in one if step in two]
    adapters = {name: adapter(options.folder / f"run-{name}") for name in codes}
    held = {
        "steps compared": len(apart),
        "largest difference of the curves": max(apart, default=None),
        "curves within the limit": bool(apart) and max(apart) <= CURVES,
        "the killed one's exit code": codes["ddp-killed"],
        "graphs": {name: "as CUDA graphs" in commands.log(name) for name in codes},
        "resumed adapter is the other's": adapters["ddp-resumed"] == adapters["ddp-2"] is not None,
    }
    commands.keep("held", held)
    print(json.dumps(held), flush=True)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    sys.exit(main())
