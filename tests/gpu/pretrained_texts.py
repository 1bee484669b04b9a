"""Texts of a pretrained model: the decode engine beside transformers' `generate` on the same 4-bit weights.

    python tests/gpu/pretrained_texts.py BASE_FOLDER PUBMEDQA_FILE {float32|bfloat16} [QUESTIONS] [NEW_TOKENS] [ROWS]

Random weights part early, since the best tokens are close together everywhere; a pretrained model shows how often
texts part in use. Weights in NF4 and cached, all questions through the rows at once; of transformers also texts with
another number of rows, which round differently. Prints a JSON line a comparison: equal texts; in bfloat16 a float32
pass then judges the tokens where the first of them part (see `partings`). In float32 all texts are equal.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from partings import DEVICE, Parting, autocast, in_roundings, partings, to_float32
from transformers import AutoTokenizer

from medqlora.data import PubMedQA, encode_all, lookup
from medqlora.fused import FusedDecoder
from medqlora.inference.decoding import DecodeEngine, Request
from medqlora.inference.generation import generate
from medqlora.models import LoRA, Transformers

#: of the texts that part, those that are judged
JUDGED = 40


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


class Texts:
    """A base in NF4 with adapters that change nothing yet, and the questions' prompts."""

    def __init__(self, folder: str, file: str, dtype: torch.dtype, count: int, new: int) -> None:
        self.dtype, self.new = dtype, new
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        records = PubMedQA(path=file).read().test[:count]
        encoded = encode_all(records, lookup("medical"), tokenizer, 1024, progress=False, cached=False)
        self.prompts = [list(each.prompt) for each in encoded]
        self.ends = [tokenizer.eos_token_id]
        backend = Transformers(folder, "nf4", gradient_checkpointing=False)
        self.model: Any = backend.load(lora=LoRA(), adapter=None, device=DEVICE, dtype=dtype, seed=0)
        self.model.eval()
        self.layers: int = self.model.config.num_hidden_layers

    def of_transformers(self, rows: int, count: int | None = None) -> list[list[int]]:
        prompts = self.prompts[:count]
        with autocast(self.dtype):
            return [
                text
                for first in range(0, len(prompts), rows)
                for text in generate(
                    self.model, prompts[first : first + rows], max_new_tokens=self.new, end_token_ids=self.ends,
                    pad_token_id=0, device=DEVICE,
                )
            ]  # fmt: skip

    def of_engine(self, rows: int, cached: bool, count: int | None = None) -> list[list[int]]:
        decoder = FusedDecoder(
            self.model,
            checkpointing="none",
            compile=DEVICE.type == "cuda",
            cached=self.layers if cached else 0,
        )
        engine = DecodeEngine(decoder, rows=rows, prefill_tokens=8192, gather=0.25)
        with autocast(self.dtype):
            numbers = [engine.add(Request(prompt, self.new, self.ends)) for prompt in self.prompts[:count]]
            written: dict[int, list[int]] = {number: [] for number in numbers}
            for event in engine.run():
                written[event.id] += event.tokens
        engine.release()
        return [written[number] for number in numbers]

    def compare(
        self, name: str, mine: Sequence[list[int]], theirs: Sequence[list[int]], seconds: float
    ) -> list[Parting]:
        """Prints how many texts are equal, and returns where the others part."""
        equal = sum(one == other for one, other in zip(mine, theirs, strict=False))
        say(
            texts=name, type=str(self.dtype), compared=len(mine), equal=equal, tokens=sum(map(len, mine)),
            seconds=round(seconds, 1),
        )  # fmt: skip
        some = [place for place, one in enumerate(mine) if one != theirs[place]][:JUDGED]
        return partings(
            self.model, self.dtype, [self.prompts[place] for place in some], [mine[place] for place in some],
            [theirs[place] for place in some], end=self.ends[0],
        )  # fmt: skip


def main(folder: str, file: str, dtype: str, count: str = "500", new: str = "64", rows: str = "250") -> int:
    texts = Texts(folder, file, getattr(torch, dtype), int(count), int(new))
    started = time.perf_counter()
    theirs = texts.of_transformers(int(rows))
    say(transformers_s=round(time.perf_counter() - started, 1), rows=int(rows))
    few = min(32, int(count))
    apart: dict[str, list[Parting]] = {}
    kinds = (("nf4", 64, False, None), ("cached", 64, True, None), ("nf4, one row", 1, False, few))
    for name, many, cached, limit in kinds:
        started = time.perf_counter()
        mine = texts.of_engine(many, cached, limit)
        apart[name] = texts.compare(f"engine, {name}", mine, theirs, time.perf_counter() - started)
    right = texts.dtype != torch.float32 or not any(apart.values())
    started = time.perf_counter()
    others = texts.of_transformers(few, few)
    apart["transformers"] = texts.compare(
        f"transformers, {few} rows", others, theirs, time.perf_counter() - started
    )
    if texts.dtype != torch.float32:
        to_float32(texts.model)
        for name, some in apart.items():
            shares = in_roundings(texts.model, some)
            most, mean = max(shares, default=0.0), sum(shares) / max(1, len(shares))
            right &= name == "transformers" or most <= 1.0
            say(partings=name, texts=len(shares), in_roundings=round(most, 3), mean=round(mean, 3))
    return int(not right)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
