"""The decode engine on a GPU, with CUDA graphs, beside transformers' `generate`: equal texts, and where they part.

    python tests/gpu/generation.py {llama-3-8b|tiny|…} [ROWS] [NEW_TOKENS]

Weights are random NF4 of the shape, prompts have PubMedQA's lengths. One JSON line a type: in float32 all texts are
equal; in bfloat16, where a text parts, its two best logits are closer than bfloat16 rounds. Random weights have more
such tokens than trained ones.
"""

import json
import sys
from typing import Any

import torch

from medqlora.fused import FusedDecoder
from medqlora.inference.decoding import DecodeEngine, Request
from medqlora.inference.generation import generate
from medqlora.profiling.lengths import random_examples
from medqlora.profiling.random_model import add_adapters, build_base
from medqlora.profiling.shapes import SHAPES

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
#: of a logit, relative: 8 bits of mantissa, and as much again for the sums before it
ROUNDING = 2.0**-7


def build(shape: str, dtype: torch.dtype) -> Any:
    base: Any = build_base(SHAPES[shape][1], device=DEVICE, dtype=dtype)
    base.config.use_cache = True
    model: Any = add_adapters(base).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    # a head that makes tokens differ
    model.get_output_embeddings().weight.data.mul_(20)
    return model


def engine_texts(model: Any, prompts: list[list[int]], new: int, **limits: Any) -> list[list[int]]:
    engine = DecodeEngine(FusedDecoder(model, checkpointing="none", compile=DEVICE.type == "cuda"), **limits)
    numbers = [engine.add(Request(prompt, new)) for prompt in prompts]
    texts: dict[int, list[int]] = {number: [] for number in numbers}
    for event in engine.run():
        texts[event.id] += event.tokens
    return [texts[number] for number in numbers]


@torch.no_grad()
def margin(model: Any, row: list[int]) -> float:
    """Difference of the two best logits behind a row, relative to the best, by the model's own forward."""
    logits = model(input_ids=torch.tensor([row], device=DEVICE), use_cache=False).logits[0, -1].float()
    best, second = logits.topk(2).values.tolist()
    return (best - second) / abs(best)


def compare(shape: str, dtype: torch.dtype, rows: int, new: int) -> dict[str, Any]:
    model = build(shape, dtype)
    vocabulary = model.config.vocab_size
    prompts = [list(each.prompt) for each in random_examples(rows, vocab_size=vocabulary, longest=1000)]
    with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
        # fewer rows than prompts: rows leave and enter
        found = engine_texts(model, prompts, new, rows=max(1, rows // 3), gather=0.25)
        expected = generate(
            model, prompts, max_new_tokens=new, end_token_ids=[], pad_token_id=0, device=DEVICE
        )
        parted = []
        for prompt, mine, other in zip(prompts, found, expected, strict=True):
            if mine != other:
                first = next(index for index in range(new) if mine[index] != other[index])
                parted.append(margin(model, prompt + other[:first]))
    right = max(parted, default=0.0) <= ROUNDING if dtype != torch.float32 else not parted
    return {"rows": rows, "equal": rows - len(parted), "margins": parted, "right": right}


def main(shape: str, rows: str = "48", new: str = "32") -> int:
    right = True
    for dtype in (torch.float32, torch.bfloat16):
        result = compare(shape, dtype, int(rows), int(new))
        right &= result["right"]
        print(json.dumps({"type": str(dtype), "device": str(DEVICE), **result}), flush=True)
    return int(not right)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
