"""The acceptance of `--trainer.strategy fsdp` on two GPUs of one host.

    python tests/gpu/fsdp.py FOLDER --tokenizer DIR --data ori_pqal.json [--llama DIR] [--parts PART,…] [--tiny] \
        [--one_gpu]

It measures Llama-3-70B's shape (`bench`), and compares fits over two GPUs with fits on one, side by side: an 8B base
with the fused engine (`llama-1`, `llama-2`; the second with written answers, both validated after the last step), and a
Gemma 2 with the native engine (`gemma-1`, `gemma-2`). `written-2` is validated after each epoch; `gemma-resumed` goes
on with one process from a checkpoint of `gemma-2`; `gemma-killed` loses its second process; `gemma-memory` leaves one
too little memory for its micro-batches; `awq-1` and `awq-2` have the same shape in AWQ's format, `half-1` and `half-2`
are in float16. `bases` writes what the fits need, `found` shows what is there, also of fits that were cut short. All of
it is in FOLDER/fsdp.json, a log beside it for each command. With `--tiny` it tries itself on a CPU. With `--one_gpu`
both processes share one GPU
(`one_gpu.py`): the same fits, without speeds.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import one_gpu
import psutil
from figures import figures, versions

import medqlora

HELPERS = Path(__file__).resolve().parent.parent / "helpers"
sys.path.append(str(HELPERS))
CONFIGS = Path(medqlora.__file__).resolve().parent.parent / "configs"
#: issue 18: GiB of a card, tokens/s of two, of one; distance of the plan; distance of the curves
GIB, TOKENS_PER_S, SCALING, APART, CURVES = 24, 2400, 1.9, 0.05, 0.002
PARTS = ["bench", "bases", "llama-1", "llama-2", "gemma-1", "gemma-2"]
GEMMA = {
    "vocab_size": 128256, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128, "max_position_embeddings": 4096,
    "sliding_window": 4096, "bos_token_id": 128000, "eos_token_id": 128001, "pad_token_id": 128001,
}  # fmt: skip


class Commands:
    """Runs commands, each with a log in `folder`, and keeps what was found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, name: str, words: list[str], gpus: str | None = None) -> subprocess.Popen[bytes]:
        """Begins a Python command on some of the GPUs."""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        # for the callbacks that fits are given
        places = [str(Path(__file__).resolve().parent), str(HELPERS), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(places)
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpus
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *words], stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def end(self, name: str, process: subprocess.Popen[bytes], since: float) -> int:
        """Waits for a command, and shows the end of its log where it failed."""
        code = process.wait()
        print(f"{name}: exit code {code}, {time.monotonic() - since:.0f} s", flush=True)
        if code:
            print(self.log(name)[-2500:], flush=True)
        return code

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").replace("\r", "\n")

    def keep(self, name: str, value: Any) -> None:
        """Beside what another call of this program has kept meanwhile."""
        file = self.folder / "fsdp.json"
        if file.is_file():
            self.found |= json.loads(file.read_text(encoding="utf-8"))
        self.found[name] = value
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        part.replace(file)


SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip


def write_gemma(folder: Path, tokenizer: Path, *, small: bool) -> None:
    """A random Gemma 2 in 16 bits, so that loading it quantizes."""
    import torch
    from transformers import AutoModelForCausalLM, Gemma2Config

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        Gemma2Config(**GEMMA | (SMALL if small else {})), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    for file in tokenizer.glob("tokenizer*"):
        shutil.copy(file, folder)


def bench(commands: Commands, name: str, *words: str) -> list[dict[str, Any]]:
    since, target = time.monotonic(), commands.folder / name
    words = ("-m", "medqlora", "bench", "--devices=2", "--strategy=fsdp", f"--out={target}", *words)
    commands.end(name, commands.begin(name, [*words]), since)
    file = target / "bench.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []
    commands.keep(name, rows)
    return rows


def fit_words(options: argparse.Namespace, folder: Path, base: Path, *more: str) -> list[str]:
    program = [one_gpu.__file__] if options.one_gpu else ["-m", "medqlora"]
    words = [*program, "fit", "--config", str(CONFIGS / "qlora.yaml")]
    words += ["--config", str(CONFIGS / "no_unsloth.yaml"), "--config", str(CONFIGS / "large_gpu.yaml")]
    words += [f"--model.backend.base={base}", f"--data.source.path={options.data}"]
    words += [f"--trainer.default_root_dir={folder}", "--trainer.log_every_n_steps=1"]
    words += ["--progress.refresh_rate=0"]
    if options.tiny:
        words += ["--trainer.accelerator=cpu", "--trainer.precision=32", "--data.micro_batch_tokens=1024"]
        words += ["--data.train_samples=16", "--data.validation_samples=2", "--trainer.max_epochs=1"]
        words += ["--data.batch_size=4"]
    return [*words, *more]


def fits(commands: Commands, options: argparse.Namespace) -> None:
    """The chosen fits side by side."""
    since = time.monotonic()
    begun = {}
    for name, (base, words, gpus) in fit_plans(options).items():
        if name in options.parts:
            if name == "gemma-resumed":
                checkpoint = first_checkpoint(commands.folder)
                if checkpoint is None:
                    print("gemma-2 has left no checkpoint of its first epoch", flush=True)
                    continue
                words = [*words, f"--ckpt_path={checkpoint}"]
            all_words = fit_words(options, commands.folder / f"run-{name}", base, *words)
            begun[name] = commands.begin(name, all_words, gpus)
    ends = time.monotonic() + 1e6

    def end_soon(*_: object) -> None:
        """The fits have the signal too (`timeout` sends it to all) and end by themselves, or are killed."""
        nonlocal ends
        ends = time.monotonic() + 10

    signal.signal(signal.SIGTERM, end_soon)
    while begun:  # each is kept as it ends: a call may be cut short
        time.sleep(0.5)
        for name, process in [*begun.items()]:
            if time.monotonic() > ends:
                for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                    child.kill()
            if process.poll() is not None:
                del begun[name]
                keep_fit(commands, name, commands.end(name, process, since))


def fit_plans(options: argparse.Namespace) -> dict[str, tuple[Path, list[str], str | None]]:
    """Name → (base, words, GPUs) of each fit; the native engine's are shorter."""
    llama, gemma = options.llama or options.folder / "llama", options.folder / "gemma"
    awq = options.folder / "awq" / "awq-small"
    mixed = [] if options.tiny else ["--trainer.precision=bf16-mixed"]
    # 8-bit AdamW makes rounding large, and a sharded base is never kept dequantized
    fused = ["--model.engine=fused", "--trainer.precision=bf16-mixed"]
    fused += ["--model.optimizer=adamw", "--model.weights=nf4"]
    fused += ["--data.micro_batch_tokens=4096", "--model.checkpointing=none"]
    scored = [*fused, "--model.generate=false"]
    native = [*mixed, "--model.optimizer=adamw", "--model.generate=false", "--data.micro_batch_tokens=1536"]
    native += ["--checkpoint.save_top_k=-1", "--trainer.max_epochs=2"]
    if not options.tiny:
        native += ["--data.train_samples=80", "--data.validation_samples=8"]
    short = [] if options.tiny else ["--data.train_samples=48", "--data.validation_samples=16"]
    over_two = ["--trainer.devices=2", "--trainer.strategy=fsdp"]
    at_the_end = [] if options.tiny else ["--trainer.check_val_every_n_epoch=3"]
    if options.steps:
        at_the_end += [f"--trainer.max_steps={options.steps}"]
    killed = ["--trainer.callbacks=signal_at.SignalAt", "--trainer.callbacks.name=SIGKILL"]
    killed += [f"--trainer.callbacks.step={2 if options.tiny else 12}", "--trainer.callbacks.rank=1"]
    half = [] if options.tiny else ["--trainer.precision=16-mixed"]
    little = ["--model.preflight=false", "--trainer.callbacks=faults.LittleMemory"]
    little += ["--trainer.callbacks.gib=0.7", "--trainer.callbacks.rank=0"]
    return {
        "llama-1": (llama, [*scored, *at_the_end], options.gpu),
        "gemma-1": (gemma, native, options.gpu),
        "llama-2": (llama, [*fused, *over_two, *at_the_end], None),
        "gemma-2": (gemma, [*native, *over_two], None),
        "written-2": (llama, [*fused, *over_two, *short, "--trainer.max_epochs=2"], None),
        "gemma-resumed": (gemma, native, options.gpu),
        "gemma-killed": (gemma, [*native, *over_two, *killed], None),
        "half-1": (gemma, [*native, *half], options.gpu),
        "half-2": (gemma, [*native, *half, *over_two], None),
        "awq-1": (awq, [*native, "--model.backend.quantization=awq"], options.gpu),
        "awq-2": (awq, [*native, *over_two, "--model.backend.quantization=awq"], None),
        "gemma-memory": (gemma, [*native, *over_two, *little], None),
    }


def first_checkpoint(folder: Path) -> Path | None:
    """A copy, for a run of its own, of a run's checkpoint after its first epoch."""
    source, target = (folder / f"run-{name}" / "lightning_logs" for name in ("gemma-2", "gemma-resumed"))
    if source.is_dir() and not target.is_dir():
        left_out = shutil.ignore_patterns("adapter", "events.*", "epoch1*", "last*")
        shutil.copytree(source, target, ignore=left_out)
    return next((target / "version_0" / "checkpoints").glob("epoch0*.ckpt"), None)


def keep_fit(commands: Commands, name: str, code: int | None) -> None:
    """Keeps what a fit left behind; and beside the other fit of its base, how far the curves are apart."""
    run = commands.folder / f"run-{name}" / "lightning_logs" / "version_0"
    said = [line for line in commands.log(name).splitlines() if line.startswith(SHOWN)]
    found = json.loads(json.dumps(figures(run)))  # keys as the file has them
    commands.keep(name, {"exit_code": code, "said": said, **found})
    print(name, *said, commands.log(name).strip().splitlines()[-1:], sep="\n    ", flush=True)
    for one, other in PAIRS:
        curves = [commands.found.get(each, {}).get("losses", {}) for each in (one, other)]
        both = [(curves[0][step], curves[1][step]) for step in curves[0] if step in curves[1]]
        if both and name in (one, other):
            apart = [abs(b / a - 1) for a, b in both]
            shown = {
                "steps": len(both),
                "largest": max(apart),
                "mean": sum(apart) / len(apart),
                "first": apart[0],
            }
            commands.keep(f"{one} {other} apart", shown)
            print(f"{one} and {other}: {shown}, limit {CURVES:.1%}", flush=True)


#: fits whose losses are compared
PAIRS = [
    ("llama-1", "llama-2"),
    ("gemma-1", "gemma-2"),
    ("gemma-1", "gemma-resumed"),
    ("gemma-1", "gemma-killed"),
    ("gemma-1", "gemma-memory"),
    ("awq-1", "awq-2"),
    ("half-1", "half-2"),
]
#: the lines of a fit's log that the table shows
SHOWN = ("Engine", "Base", "Plan", "Preflight", "Generation", "Weights", "Rows", "Out of memory")


def table(found: dict[str, Any]) -> None:
    for name in ("smoke", "70b"):
        for row in found.get(name, []):
            keys = ("tokens_per_s", "scaling", "peak_reserved_gib", "peak_allocated_gib", "planned_gib",
                    "plan_error", "loss", "failed", "step_s", "quickest_waits")  # fmt: skip
            print(name, {key: row[key] for key in keys if key in row})
    for name, values in found.items():
        if "said" in values:
            keys = ("exit_code", "memory_gib", "tokens_per_s_median", "fit_seconds", "validation")
            print(name, {key: values[key] for key in keys if key in values})
            print("   ", *values["said"], sep="\n    ")
    rows = found.get("70b", [])
    if len(rows) > 1 and "tokens_per_s" in rows[1]:
        row = rows[1]
        reached = {
            "GiB": row["peak_reserved_gib"] <= GIB,
            "tokens/s": row["tokens_per_s"] >= TOKENS_PER_S,
            "scaling": row.get("scaling", 0) >= SCALING,
            "plan": abs(row["plan_error"]) <= APART,
        }
        print("reached:", reached)


def bases(commands: Commands, options: argparse.Namespace) -> None:
    """Writes those that the fits need and that aren't there."""
    since = time.monotonic()
    writing = None
    if options.llama is None and not (options.folder / "llama").is_dir():
        words = [str(Path(__file__).parent / "random_checkpoint.py"), str(options.folder / "llama")]
        words += [str(options.tokenizer), "tiny" if options.tiny else "8b"]
        writing = commands.begin("write", words, "1")
    if not (options.folder / "gemma").is_dir():
        write_gemma(options.folder / "gemma", options.tokenizer, small=options.tiny)
    if {"awq-1", "awq-2"} & {*options.parts} and not (options.folder / "awq").is_dir():
        from int4_bases import make_int4

        make_int4(options.folder / "gemma", options.folder / "awq", "awq-small")
    if writing is not None:
        commands.end("write", writing, since)


def benches(commands: Commands, options: argparse.Namespace) -> bool:
    """Whether the bench of a small shape ran; the 70B's comes after it."""
    words = [
        "--shape=tiny",
        "--engine=fused",
        "--checkpointing=full",
        "--micro_batch_tokens=512",
        "--steps=2",
    ]
    smoke = bench(commands, "smoke", *words, *(["--device=cpu"] if options.tiny else []))
    if len(smoke) < 2 or "tokens_per_s" not in smoke[1]:
        print(smoke)
        return False  # nothing else would run
    if not options.tiny:
        hosted = ["--embedding=host", "--head=host", "--checkpointing=offload", "--micro_batch_tokens=2048"]
        bench(commands, "70b", "--engine=fused", "--shape=llama-3-70b", "--steps=8", *hosted)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--llama", type=Path, help="a checkpoint of the 8B, otherwise a random one is written"
    )
    parser.add_argument("--parts", type=lambda text: text.split(","), default=PARTS)
    parser.add_argument("--gpu", help="of the fits on one")
    parser.add_argument("--steps", type=int, help="of the 8B's fits (default: all 171)")
    parser.add_argument("--one_gpu", action="store_true", help="both processes on one GPU")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.one_gpu:
        one_gpu.settle(fit=True)
    commands = Commands(options.folder)
    file = options.folder / "fsdp.json"
    if file.is_file():
        commands.found = json.loads(file.read_text(encoding="utf-8"))
    commands.keep("versions", versions())
    if "bench" in options.parts and not benches(commands, options):
        return 1
    if "bases" in options.parts:
        bases(commands, options)
    fits(commands, options)
    if "found" in options.parts:
        for name in fit_plans(options):
            if (options.folder / f"run-{name}").is_dir() and name not in commands.found:
                keep_fit(commands, name, None)
    table(commands.found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
