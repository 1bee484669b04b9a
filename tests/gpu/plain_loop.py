"""A batch that is overfitted without Lightning and without this project's step: padded rows, the model's own
loss, torch's clipping, bitsandbytes' AdamW.

    python tests/gpu/plain_loop.py BASE ori_pqal.json TARGET.json STEPS RATE
"""

import json
import math
import random
import sys
from pathlib import Path
from typing import Any


def main(base: str, questions: str, target: Path, steps: int, rate: float) -> None:
    """Trains twice from the same adapters, and writes both curves."""
    import torch

    gpu = torch.cuda.is_available()
    if gpu:
        import unsloth  # noqa: F401  # before transformers and PEFT

    import bitsandbytes

    from medqlora.data import PubMedQA
    from medqlora.datamodule import PubMedQADataModule
    from medqlora.models import LoRA, Transformers, Unsloth

    backend: Any = Unsloth(base) if gpu else Transformers(base)
    data = PubMedQADataModule(PubMedQA(path=questions, fold=0), train_samples=4)
    tokenizer = backend.tokenizer()
    data.read(tokenizer, ("train",))

    device, dtype = (torch.device("cuda", 0), torch.bfloat16) if gpu else (torch.device("cpu"), torch.float32)
    random.seed(0)
    torch.manual_seed(0)
    # Lightning calls `configure_model` in the device's context, and a seed draws other numbers on another device
    with device:
        model: Any = backend.load(lora=LoRA(), adapter=None, device=device, dtype=dtype, seed=0)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    begin = [parameter.detach().clone() for parameter in parameters]
    tokens = sum(len(one.completion) for one in data.train)

    def inputs(examples: Any) -> dict[str, Any]:
        longest = max(len(one.prompt) + len(one.completion) for one in examples)
        ids = torch.full((len(examples), longest), tokenizer.pad_token_id)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, one in enumerate(examples):
            end = len(one.prompt) + len(one.completion)
            ids[row, :end] = torch.tensor([*one.prompt, *one.completion])
            mask[row, :end] = 1
            labels[row, len(one.prompt) : end] = torch.tensor(list(one.completion))
        tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {name: value.to(device) for name, value in tensors.items()} | {"num_items_in_batch": tokens}

    def train(batches: list[Any]) -> list[float]:
        with torch.no_grad():
            for parameter, value in zip(parameters, begin, strict=True):
                parameter.copy_(value)
        optimizer = bitsandbytes.optim.AdamW8bit(parameters, lr=rate, weight_decay=0.0)
        losses = []
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            losses.append(0.0)
            for batch in batches:
                with torch.autocast(device.type, dtype=dtype, enabled=gpu):
                    loss = model(**inputs(batch)).loss
                loss.backward()
                losses[-1] += loss.item()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            print(f"step {step}: {losses[-1]:.5f}", flush=True)
        return losses

    # the same mathematics in another order of summation: how far rounding alone takes a curve
    curves = {"whole": train([data.train]), "rows": train([[one] for one in data.train])}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(curves), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
