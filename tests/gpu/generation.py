"""The decode engine on a GPU, with kernels and CUDA graphs, beside transformers' `generate`: texts and where they part.

    python tests/gpu/generation.py {llama-3-8b|tiny|…} [ROWS] [NEW_TOKENS]

Weights are random NF4 of the shape, prompts have PubMedQA's lengths. One JSON line a type and kind of weights: in
float32 all texts are equal; in bfloat16, where a text parts, its two best logits are closer than bfloat16 rounds.
Random weights have more such tokens than trained ones, so the head's weights are scaled.
"""

import json
import sys
import time
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


def engine_texts(
    model: Any, prompts: list[list[int]], new: int, cached: int, **limits: Any
) -> list[list[int]]:
    decoder = FusedDecoder(model, checkpointing="none", compile=DEVICE.type == "cuda", cached=cached)
    engine = DecodeEngine(decoder, **limits)
    numbers = [engine.add(Request(prompt, new)) for prompt in prompts]
    texts: dict[int, list[int]] = {number: [] for number in numbers}
    for event in engine.run():
        texts[event.id] += event.tokens
    engine.release()
    return [texts[number] for number in numbers]


@torch.no_grad()
def margin(model: Any, row: list[int], mine: int, other: int) -> float:
    """Difference of the logits of two tokens behind a row, relative to the best, by the model's own forward."""
    logits = model(input_ids=torch.tensor([row], device=DEVICE), use_cache=False).logits[0, -1].float()
    return abs((logits[mine] - logits[other]).item()) / logits.max().abs().item()


def compare(shape: str, dtype: torch.dtype, count: int, new: int) -> bool:
    """Prints a line for each kind of weights and number of rows; whether all are right."""
    model = build(shape, dtype)
    vocabulary, layers = model.config.vocab_size, model.config.num_hidden_layers
    prompts = [list(each.prompt) for each in random_examples(count, vocab_size=vocabulary, longest=1000)]
    all_right = True
    with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
        started = time.perf_counter()
        expected = generate(
            model, prompts, max_new_tokens=new, end_token_ids=[], pad_token_id=0, device=DEVICE
        )
        theirs_s = time.perf_counter() - started
        # fewer rows than prompts: rows leave and enter
        for cached, rows in ((0, max(1, count // 3)), (layers, max(1, count // 3)), (0, 1)):
            some = slice(0, count if rows > 1 else max(1, count // 6))
            started = time.perf_counter()
            found = engine_texts(model, prompts[some], new, cached, rows=rows, gather=0.25)
            mine_s = time.perf_counter() - started
            margins = []
            for prompt, mine, other in zip(prompts[some], found, expected[some], strict=True):
                if mine != other:
                    first = next(index for index in range(new) if mine[index] != other[index])
                    margins.append(margin(model, prompt + other[:first], mine[first], other[first]))
            right = max(margins, default=0.0) <= ROUNDING if dtype != torch.float32 else not margins
            all_right &= right
            print(
                json.dumps({
                    "type": str(dtype), "device": str(DEVICE), "weights": "cached" if cached else "nf4", "rows": rows,
                    "texts": len(found), "equal": len(found) - len(margins),
                    "margins": [round(each, 5) for each in margins], "right": right,
                    "generate_s": round(theirs_s, 1), "engine_s": round(mine_s, 1),
                }), flush=True,
            )  # fmt: skip
    return all_right


def main(shape: str, rows: str = "48", new: str = "32") -> int:
    results = [compare(shape, dtype, int(rows), int(new)) for dtype in (torch.float32, torch.bfloat16)]
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
