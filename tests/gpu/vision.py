"""Questions with images on a GPU: the real commands on a vision-language shape with random NF4 weights.

    python tests/gpu/vision.py FOLDER TOKENIZER_FOLDER {qwen-7b|qwen-tiny|llava-7b|llava-tiny} [STAGE ...]

Stages, each with its figures as a JSON line on stdout and in FOLDER/vision.jsonl:
    checkpoint   random weights of the shape (`vision_checkpoint.py`), and pictures of 448 to 672 pixels
    steps        what is held in 4 bits; optimizer steps: tokens/s and the peak of allocated memory, beside `plan`'s
    fit          `medqlora plan` and `medqlora fit` with an evaluation that generates for 16 images
    unsloth      `medqlora fit` through Unsloth, on the same data

Without a GPU it runs in float32 on the CPU: that tries this script.
"""

import gc
import json
import math
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
if "unsloth" in sys.argv[4:]:  # it patches transformers, and has to come first
    from medqlora.models.unsloth import import_unsloth

    import_unsloth("UnslothVision")

import numpy as np
import torch
from figures import figures
from vision_checkpoint import write

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
DTYPE = torch.bfloat16 if GPU else torch.float32
TRAIN, HELD_OUT, BATCH = 32, 16, 16
#: activation checkpointing -> tokens of a micro-batch
BUDGETS = {True: (2_000, 8_000), False: (2_000, 4_000)}
STEPS = 3


def pictures(folder: Path) -> None:
    """JSONLines files of training and held-out questions, with pictures of random blocks."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, count in (("train", TRAIN), ("dev", HELD_OUT)):
        rows = []
        for number in range(count):
            path = folder / f"{name}-{number}.png"
            size = [int(side) for side in rng.integers(448, 673, 2)]
            blocks = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path)
            label = ("yes", "no")[number % 2]
            question = f"Is there an effusion in the picture with number {number} of this series?"
            rows.append({"id": f"{name}-{number}", "question": question, "image": path.name, "answer": label})
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def checkpoint(folder: Path, tokenizer: Path, shape: str) -> dict[str, Any]:
    write(folder / "base", tokenizer, shape)
    pictures(folder)
    return {"gib": round(sum(file.stat().st_size for file in (folder / "base").iterdir()) / 2**30, 2)}


def backend(folder: Path) -> Any:
    from medqlora.models import VisionLanguage

    return VisionLanguage(str(folder / "base"))


def examples(folder: Path, made: Any) -> list[Any]:
    from medqlora.data.encoding.encode import encode
    from medqlora.data.prompts import lookup
    from medqlora.data.sources.jsonlines import JSONLines

    source = JSONLines(train=str(folder / "train.jsonl"), dev=str(folder / "dev.jsonl"), labels=("yes", "no"))
    prompt = lookup("medical")
    return [encode(one, prompt, made.tokenizer(), 4000, made.images()) for one in source.read().train]


def bits_of(model: Any) -> dict[str, int]:
    """Counts the base's linear layers by part and type; none of the vision tower may be in 4 bits."""
    import bitsandbytes as bnb

    counts: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".lora_" not in name:
            part = "language" if "language_model" in name else "vision" if "vis" in name else "other"
            bits = "nf4" if isinstance(module, bnb.nn.Linear4bit) else str(module.weight.dtype)
            counts[f"{part} {bits}"] = counts.get(f"{part} {bits}", 0) + 1
    assert counts["language nf4"] > 0, counts
    assert "vision nf4" not in counts, counts
    return counts


def steps(folder: Path) -> dict[str, Any]:
    """Steps with each budget, with and without activation checkpointing."""
    from medqlora.models import LoRA
    from medqlora.models.layers import base_model

    made = backend(folder)
    clean()
    begun = time.perf_counter()
    model = made.load(lora=LoRA(r=16), adapter=None, device=DEVICE, dtype=DTYPE, seed=0)
    loaded = {
        "load_s": round(time.perf_counter() - begun, 1),
        "load_peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if GPU else 0,
        "linear_layers": bits_of(model),
        "vision_parameters": made.vision_parameters(),
    }
    print(json.dumps(loaded), flush=True)
    train = examples(folder, made)
    cases = []
    for checkpointing in (True, False):
        if not checkpointing:
            base = base_model(model)
            getattr(base, "activation_checkpointing_disable", base.gradient_checkpointing_disable)()
        for tokens in BUDGETS[checkpointing]:
            try:
                case = measure(made, model, train[:BATCH], tokens, checkpointing)
            except Exception as error:  # the next case runs
                traceback.print_exc()
                case = {"checkpointing": checkpointing, "budget": tokens, "error": repr(error)[:200]}
            print(json.dumps(case), flush=True)
            cases.append(case)
    return {**loaded, "cases": cases}


def measure(made: Any, model: Any, batch: list[Any], budget: int, checkpointing: bool) -> dict[str, Any]:
    """Tokens a second, image tokens included, and the peak of allocated memory beside the planned one."""
    from medqlora.config.model import StepOptions
    from medqlora.data.batching.packing import step_batch
    from medqlora.training.optim import build_optimizer
    from medqlora.training.step import TorchDriver, TrainStep

    clean()
    decoder = made.decoder(model)
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    optimizer = build_optimizer("adamw_8bit", trained, learning_rate=1e-4, weight_decay=0.0)
    step = TrainStep(decoder, optimizer, StepOptions(), device=DEVICE, driver=TorchDriver(DEVICE, DTYPE))
    cut = step_batch(batch, budget, packed=False)
    cut = cut._replace(micro_batches=tuple(micro.to(DEVICE) for micro in cut.micro_batches))
    losses = []
    for number in range(STEPS + 1):  # the first warms the kernels, the allocator and the prepared images up
        if number == 1:
            wait()
            begun = time.perf_counter()
        losses.append(float(step.step(cut).loss))
    wait()
    seconds = (time.perf_counter() - begun) / STEPS
    peak = torch.cuda.max_memory_allocated() if GPU else 0
    assert all(map(math.isfinite, losses)), losses
    images = [one.images[0] for one in batch]
    return {
        "checkpointing": checkpointing,
        "budget": budget,
        "micro_batches": len(cut.micro_batches),
        "tokens": cut.tokens,
        "image_tokens": sum(slot.end - slot.begin for slot in images),
        "step_s": round(seconds, 3),
        "tokens_s": round(cut.tokens / seconds),
        "images_s": round(len(batch) / seconds, 2),
        "peak_gib": round(peak / 2**30, 2),
        "planned_gib": planned(made, batch, budget, checkpointing),
        "losses": [round(value, 4) for value in losses],
    }


def planned(made: Any, batch: list[Any], budget: int, checkpointing: bool) -> float:
    """The planner's peak of the fit's phase."""
    from dataclasses import replace

    from medqlora.planner import Setting, Shape, plan

    shape = replace(Shape.of(made.config()), vision=made.vision_parameters())
    longest = max(budget, max(len(one.prompt) + len(one.completion) for one in batch))
    setting = Setting(engine="native", checkpointing="full" if checkpointing else "none", tokens=longest,
                      loss_rows=sum(len(one.completion) for one in batch), attention="sdpa")  # fmt: skip
    return round(plan(shape, setting).total("fit") / 2**30, 2)


def fit(folder: Path, *more: str, backend_name: str = "VisionLanguage") -> dict[str, Any]:
    """`medqlora fit` of two epochs, evaluated by generated texts."""
    from medqlora.cli import main

    clean()
    out = folder / f"run-{backend_name}"
    words = [
        "--model.backend", f"medqlora.models.{backend_name}", f"--model.backend.base={folder / 'base'}",
        "--model.lora.r=16", "--model.learning_rate=1e-4", "--model.max_new_tokens=16", "--model.generate=true",
        "--data.source=medqlora.data.JSONLines", f"--data.source.train={folder / 'train.jsonl'}",
        f"--data.source.dev={folder / 'dev.jsonl'}", "--data.source.labels=[yes, no]",
        "--data.max_prompt_tokens=1500", f"--data.batch_size={BATCH}", "--data.micro_batch_tokens=8000",
        "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", f"--trainer.default_root_dir={out}",
        "--trainer.accelerator=gpu" if GPU else "--trainer.accelerator=cpu", "--trainer.devices=1",
        f"--trainer.precision={'bf16-mixed' if GPU else '32'}", *more,
    ]  # fmt: skip
    main(["plan", *words])
    begun = time.perf_counter()
    code = main(["fit", *words, "--progress.refresh_rate=0"])
    seconds = time.perf_counter() - begun
    run = max((out / "lightning_logs").glob("version_*"))
    return {"exit": code, "seconds": round(seconds, 1), **figures(run)}


def clean() -> None:
    gc.collect()
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def wait() -> None:
    if GPU:
        torch.cuda.synchronize()


def main() -> None:
    folder, tokenizer, shape = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    wanted = sys.argv[4:] or ["checkpoint", "steps", "fit"]
    folder.mkdir(parents=True, exist_ok=True)
    random.seed(0)
    stages: dict[str, Callable[[], dict[str, Any]]] = {
        "checkpoint": lambda: checkpoint(folder, tokenizer, shape),
        "steps": lambda: steps(folder),
        "fit": lambda: fit(folder),
        "unsloth": lambda: fit(folder, backend_name="UnslothVision"),
    }
    for name in wanted:
        begun = time.perf_counter()
        try:
            found = stages[name]()
        except Exception as error:  # the next stage runs
            traceback.print_exc()
            found = {"error": repr(error)[:300]}
        clean()
        line = json.dumps(
            {"stage": name, "shape": shape, "stage_s": round(time.perf_counter() - begun, 1), **found}
        )
        print(line, flush=True)
        with (folder / "vision.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
