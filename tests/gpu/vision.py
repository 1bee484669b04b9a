"""Training steps with images on a GPU: memory and tokens/s of a 7B vision-language shape with random weights.

    python tests/gpu/vision.py {7b|tiny} [OUT]

LLaVA 1.5's shape: CLIP ViT-L/14 at 336 pixels in 16 bits, a projector, and a 7B Llama in NF4 with LoRA r = 16 on all
seven projections. An example has 576 image tokens, about 60 of text and 12 to learn. One JSON line a case, and a table
last.
"""

import json
import os
import random
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import quantize_4bit
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from medqlora.config.model import StepOptions
from medqlora.data.batching.packing import step_batch
from medqlora.models.architecture import put_adapters_on
from medqlora.models.layers import linear_layers
from medqlora.models.lora import LoRA
from medqlora.models.quantization import settle
from medqlora.models.transformers import checkpoint_activations
from medqlora.models.vision.decoder import VisionDecoder
from medqlora.models.vision.parts import check_quantized, count_visual
from medqlora.records import Encoded, ImageFile, ImageSlot
from medqlora.training.optim import build_optimizer
from medqlora.training.step import TorchDriver, TrainStep

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
SHAPES: dict[str, Any] = {
    "7b": {
        "text": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 32064,
                 "num_attention_heads": 32, "num_key_value_heads": 32},
        "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "image_size": 336,
                   "num_attention_heads": 16, "patch_size": 14},
        "batch": 16,
    },
    "tiny": {
        "text": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 512,
                 "num_attention_heads": 4, "num_key_value_heads": 4},
        "vision": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "image_size": 56,
                   "num_attention_heads": 4, "patch_size": 14},
        "batch": 4,
    },
}  # fmt: skip
IMAGE = 5


def build(shape: str) -> LlavaForConditionalGeneration:
    """The model on the device; a language layer's weights go to NF4 one by one."""
    sizes = SHAPES[shape]
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes["vision"]),
        text_config=LlamaConfig(max_position_embeddings=4096, tie_word_embeddings=False, **sizes["text"]),
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        dtype=DTYPE,
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    generator = torch.Generator(DEVICE).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.empty(size, device=DEVICE, dtype=DTYPE).normal_(std=0.02, generator=generator)

    for name, module in linear_layers(model).items():
        packed, state = quantize_4bit(
            normal(module.out_features, module.in_features),
            blocksize=64,
            quant_type="nf4",
            compress_statistics=True,
        )
        linear = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=False,
            compute_dtype=DTYPE,
            quant_type="nf4",
            device="meta",
        )
        linear.weight = bnb.nn.Params4bit(
            packed, requires_grad=False, quant_state=state, quant_type="nf4", bnb_quantized=True
        )
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, linear)
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.is_meta:
                value = (
                    torch.ones_like(weight, device=DEVICE, dtype=DTYPE)
                    if "norm" in name
                    else normal(*weight.shape)
                )
                setattr(module, name, nn.Parameter(value, requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                _fill_buffer(module, name, config)
    settle(model, DEVICE, DTYPE)
    model.requires_grad_(False)
    check_quantized(model, "nf4")
    return model


def _fill_buffer(module: nn.Module, name: str, config: LlavaConfig) -> None:
    if name == "position_ids":
        places = (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1
        module.register_buffer(name, torch.arange(places, device=DEVICE)[None], persistent=False)
        return
    text = config.text_config  # the rotary frequencies
    width = text.hidden_size // text.num_attention_heads
    values = 1.0 / (10000.0 ** (torch.arange(0, width, 2, device=DEVICE, dtype=torch.float32) / width))
    module.register_buffer(name, values, persistent=False)


class RandomPixels:
    """Stands for the image processor: pixels of the right shape, without files."""

    def __init__(self, side: int) -> None:
        self._side = side

    def inputs(self, slots: Sequence[ImageSlot], input_ids: Tensor) -> dict[str, Tensor]:
        pixels = torch.rand(len(slots), 3, self._side, self._side, device=DEVICE, dtype=DTYPE)
        return {"pixel_values": pixels}


def examples(shape: str, count: int) -> list[Encoded]:
    sizes, rng = SHAPES[shape], random.Random(0)
    places = (sizes["vision"]["image_size"] // sizes["vision"]["patch_size"]) ** 2
    vocabulary = sizes["text"]["vocab_size"]
    made = []
    for number in range(count):
        text = [rng.randrange(10, vocabulary) for _ in range(rng.randrange(40, 80))]
        answer = [rng.randrange(10, vocabulary) for _ in range(12)]
        slot = ImageSlot(ImageFile(f"{number}.png", f"{number:064x}"), 1, 1 + places)
        made.append(Encoded(str(number), [1, *[IMAGE] * places, *text], answer, (), 0, (slot,)))
    return made


def measure(shape: str, *, checkpointing: bool, tokens: int, steps: int) -> dict[str, Any]:
    """Tokens a second, image tokens included, and the peak of allocated memory."""
    torch.manual_seed(0)
    model = put_adapters_on(build(shape), LoRA(r=16))
    if checkpointing:
        checkpoint_activations(model, text_alone=True)
    model.train()
    decoder = VisionDecoder(model, RandomPixels(SHAPES[shape]["vision"]["image_size"]))  # type: ignore[arg-type]
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    optimizer = build_optimizer("adamw_8bit", trained, learning_rate=1e-4, weight_decay=0.0)
    step = TrainStep(decoder, optimizer, StepOptions(), device=DEVICE, driver=TorchDriver(DEVICE, DTYPE))
    batch = step_batch(examples(shape, SHAPES[shape]["batch"]), tokens, packed=False)
    batch = batch._replace(micro_batches=tuple(micro.to(DEVICE) for micro in batch.micro_batches))
    losses, norms = [], []
    for number in range(steps + 2):  # two steps warm the kernels and the allocator up
        if number == 2:
            _wait()
            begun = time.perf_counter()
        result = step.step(batch)
        losses.append(result.loss)
        norms.append(result.grad_norm)
    _wait()
    seconds = (time.perf_counter() - begun) / steps
    peak = torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else 0
    return {
        "shape": shape,
        "checkpointing": checkpointing,
        "micro_batch_tokens": tokens,
        "micro_batches": len(batch.micro_batches),
        "tokens": batch.tokens,
        "step_s": round(seconds, 4),
        "tokens_s": round(batch.tokens / seconds),
        "images_s": round(SHAPES[shape]["batch"] / seconds, 2),
        "peak_gib": round(peak / 2**30, 2),
        "vision_parameters": count_visual(model),
        "first_loss": round(float(losses[0]), 4),
        "last_loss": round(float(losses[-1]), 4),
        "grad_norm": round(float(norms[-1]), 6),
    }


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    shape = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    budgets = (1500, 6000, 12000) if shape == "7b" else (120, 400)
    lines = []
    for checkpointing in (True, False):
        for tokens in budgets:
            if DEVICE.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                found = measure(
                    shape, checkpointing=checkpointing, tokens=tokens, steps=5 if shape == "7b" else 2
                )
            except Exception as error:  # the next case runs
                traceback.print_exc()
                found = {
                    "checkpointing": checkpointing,
                    "micro_batch_tokens": tokens,
                    "error": repr(error)[:200],
                }
            lines.append(found)
            print(json.dumps(found), flush=True)
            if out is not None:
                out.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    print(f"{'checkpointing':>14}{'micro-batch':>12}{'tokens/s':>10}{'images/s':>10}{'peak GiB':>10}")
    for one in lines:
        if "error" not in one:
            print(
                f"{one['checkpointing']!s:>14}{one['micro_batch_tokens']:>12}{one['tokens_s']:>10}"
                f"{one['images_s']:>10}{one['peak_gib']:>10}"
            )


if __name__ == "__main__":
    main()
