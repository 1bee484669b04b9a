"""The two backends of vision-language models on one tiny base: layers, losses, generated tokens, a saved adapter.

    python tests/gpu/vision_backends.py {VisionLanguage|UnslothVision} BASE_FOLDER WORK_FOLDER

BASE_FOLDER is a base of `tests/helpers/tiny_vision_models.py`. One JSON line a stage; the lines of the two backends are
to be compared. UNSLOTH_COMPILE_DISABLE=1 leaves Unsloth's compilation out, which takes most of the time.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

if sys.argv[1] == "UnslothVision":  # it patches transformers, and has to come first
    from medqlora.models.unsloth import import_unsloth

    import_unsloth("UnslothVision")

import numpy as np
import torch

from medqlora import models
from medqlora.config.model import StepOptions
from medqlora.data.batching.packing import step_batch
from medqlora.data.encoding.encode import encode
from medqlora.data.images import image_file
from medqlora.data.prompts import lookup
from medqlora.inference.generation import generate
from medqlora.models import LoRA
from medqlora.models.shares import adapted_names
from medqlora.records import Encoded, Record
from medqlora.training.optim import build_optimizer
from medqlora.training.step import TorchDriver, TrainStep

BEGUN = time.perf_counter()
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32


def tell(stage: str, **figures: Any) -> None:
    passed = round(time.perf_counter() - BEGUN, 1)
    print(json.dumps({"backend": sys.argv[1], "stage": stage, "at_s": passed, **figures}), flush=True)


def examples(backend: Any, folder: Path) -> list[Encoded]:
    from PIL import Image

    made = []
    for number, label in enumerate(("yes", "no", "no", "yes")):
        blocks = np.random.default_rng(number).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(blocks).resize((112, 84 + 28 * number), Image.Resampling.NEAREST).save(path)
        record = Record(
            str(number), "Is there an effusion?", images=(image_file(path, "test"),), answer=label
        )
        made.append(encode(record, lookup("medical"), backend.tokenizer(), 400, backend.images()))
    return made


def main() -> None:
    base, folder = sys.argv[2], Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    options = {"max_seq_length": 512} if sys.argv[1] == "UnslothVision" else {}
    backend = getattr(models, sys.argv[1])(base, **options)
    tell("imported", torch=torch.__version__, device=str(DEVICE))
    backend.check(LoRA(r=8), device=DEVICE, precision="bf16-mixed" if DEVICE.type == "cuda" else "32")
    model = backend.load(lora=LoRA(r=8), adapter=None, device=DEVICE, dtype=DTYPE, seed=0)
    kinds: dict[str, int] = {}
    for weight in model.parameters():
        kind = f"{weight.dtype} {'trained' if weight.requires_grad else 'frozen'}".removeprefix("torch.")
        kinds[kind] = kinds.get(kind, 0) + 1
    tell("loaded", adapted=len(adapted_names(model)), parameters=kinds, training=model.training)

    batch = examples(backend, folder)
    decoder = backend.decoder(model)
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    optimizer = build_optimizer("adamw", trained, learning_rate=1e-3, weight_decay=0.0)
    step = TrainStep(decoder, optimizer, StepOptions(), device=DEVICE, driver=TorchDriver(DEVICE, DTYPE))
    cut = step_batch(batch, 4000, packed=False)
    cut = cut._replace(micro_batches=tuple(micro.to(DEVICE) for micro in cut.micro_batches))

    def steps(count: int) -> list[list[float]]:
        results = [step.step(cut) for _ in range(count)]
        return [[round(float(one.loss), 4), round(float(one.grad_norm), 4)] for one in results]

    tell("first steps: loss, gradient's norm", steps=steps(1))
    tell("more steps", steps=steps(3))
    with backend.generating(model), torch.autocast(DEVICE.type, DTYPE, enabled=torch.float32 != DTYPE):
        texts = generate(
            model,
            [one.prompt for one in batch],
            max_new_tokens=4,
            end_token_ids=[1],
            pad_token_id=2,
            device=DEVICE,
            images=([one.images for one in batch], decoder.image_inputs),
        )
    tell("generated", tokens=texts)
    tell("steps after generating", steps=steps(2))

    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    again = backend.load(lora=None, adapter=str(folder / "adapter"), device=DEVICE, dtype=DTYPE, seed=0)
    reader = backend.decoder(again.eval())
    with torch.no_grad(), torch.autocast(DEVICE.type, DTYPE, enabled=torch.float32 != DTYPE):
        losses = [float(reader.loss_sum(micro)) for micro in cut.micro_batches]
    tell("the saved adapter's loss", loss=round(sum(losses) / sum(len(one.completion) for one in batch), 4))


if __name__ == "__main__":
    main()
