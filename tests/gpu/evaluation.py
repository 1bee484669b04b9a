"""PubMedQA's 500 test questions scored and answered on a GPU: the decode engine beside transformers' `generate`.

    python tests/gpu/evaluation.py PUBMEDQA_FILE TOKENIZER_FOLDER [llama-3-8b|…] [QUESTIONS] [evaluations|all]

Weights are random NF4 of the shape, with adapters on all projections; every text has 64 tokens. Prints a JSON line a
measurement: seconds after loading, peak memory, tokens per second; then, of the first questions, how many texts equal
those of transformers, how many of transformers' own are equal with another number of rows, and how far the tokens of
each are from the best ones of the same weights in float32 (0 for the best, relative to its logit).
"""

import gc
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoTokenizer

from medqlora.config.model import EvaluationOptions
from medqlora.data import PubMedQA, encode_all, lookup
from medqlora.data.batching.packing import pack
from medqlora.fused import FusedDecoder
from medqlora.inference import Predictor
from medqlora.inference.decoding import DecodeEngine, Request
from medqlora.inference.decoding.self_test import why_not
from medqlora.models import Decoder
from medqlora.models.quantization import settle
from medqlora.planner import Setting, Shape, Work, plan, with_budget
from medqlora.planner.fitting import with_cache_in
from medqlora.planner.memory import GIB
from medqlora.profiling.random_model import add_adapters, build_base
from medqlora.profiling.shapes import SHAPES
from medqlora.records import Encoded

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
NEW = 64
#: questions whose texts are compared, and those at once
COMPARED, ROWS = 64, 64
#: texts at once, tokens of a pass over prompts, and most GiB; of the evaluations of all questions
SETTINGS = ((ROWS, 8192, None), (None, 4096, 10.0), (None, 8192, None))


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def peak_gib(reset: bool = False) -> float:
    if DEVICE.type != "cuda":
        return 0.0
    if reset:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def bandwidth() -> float:
    """Bytes a second of a large copy, read and written."""
    source = torch.zeros(2**30 if DEVICE.type == "cuda" else 2**26, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    for _ in range(3):
        target.copy_(source)
    synchronize()
    started = time.perf_counter()
    for _ in range(20):
        target.copy_(source)
    synchronize()
    return 40 * source.nbytes / (time.perf_counter() - started)


class Run:
    """A model, its tokenizer and questions."""

    def __init__(
        self, file: str, tokenizer: str, shape: str | dict[str, Any], count: int, dtype: torch.dtype = DTYPE
    ) -> None:
        self.dtype = dtype
        self.tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer)
        self.prompt = lookup("medical")
        records = PubMedQA(path=file).read().test[:count]
        self.records = records
        encoded = encode_all(records, self.prompt, self.tokenizer, 1024, progress=False, cached=False)
        self.examples = {example.id: example for example in encoded}
        fields: dict[str, Any] = {**(SHAPES[shape][1] if isinstance(shape, str) else shape)}
        vocabulary = max(int(fields["vocab_size"]), len(self.tokenizer))
        base: Any = build_base({**fields, "vocab_size": vocabulary}, device=DEVICE, dtype=dtype)
        base.config.use_cache = True
        base.config.eos_token_id = None
        self.base, self.model = base, add_adapters(base).eval()
        self.layers: int = base.config.num_hidden_layers

    def engine(self, cached: bool) -> DecodeEngine:
        decoder = FusedDecoder(
            self.model,
            checkpointing="none",
            compile=DEVICE.type == "cuda",
            cached=self.layers if cached else 0,
        )
        return DecodeEngine(decoder)

    def predictor(
        self,
        engine: DecodeEngine | None,
        rows: int | None,
        tokens: int,
        *,
        memory: int | None = None,
        generate: bool = True,
        packed: bool = True,
    ) -> Predictor:
        return Predictor(
            self.model, Decoder(self.model), self.tokenizer, self.prompt,
            EvaluationOptions(generate=generate, max_new_tokens=NEW), device=DEVICE, max_prompt_tokens=1024,
            micro_batch_tokens=tokens, rows=rows, memory=memory, packed=packed, engine=engine,
            autocast=None if self.dtype == torch.float32 else self.dtype,
        )  # fmt: skip

    def evaluate(
        self,
        name: str,
        engine: DecodeEngine | None,
        count: int,
        *,
        rows: int | None,
        tokens: int = 8192,
        memory: int | None = None,
    ) -> list[Any]:
        """Prints seconds and peak, and returns the predictions."""
        predictor = self.predictor(engine, rows, tokens, memory=memory)
        records = self.records[:count]
        peak_gib(reset=True)
        started = time.perf_counter()
        predictions = predictor.predict(records, self.examples)
        synchronize()
        say(
            evaluation=name, questions=count, rows=rows, prefill_tokens=tokens,
            limit_gib=None if memory is None else memory / GIB,
            seconds=round(time.perf_counter() - started, 2), peak_gib=peak_gib(),
            planned_gib=None if engine is None else self.planned(engine, rows, tokens, memory),
        )  # fmt: skip
        return predictions

    def planned(self, engine: DecodeEngine, rows: int | None, tokens: int, memory: int | None) -> float:
        """GiB of `plan` for a generation, without what only training has."""
        cached = self.layers if engine.decoder.groups[0].kept is not None else 0
        lengths = [(len(each.prompt), len(each.completion)) for each in self.examples.values()]
        work = Work(lengths, 8, rows or 1, 0)
        setting = Setting(checkpointing="none", cached=cached, new_tokens=NEW, decodes=True)
        shape, setting = Shape.of(self.base.config), with_budget(setting, work, tokens)
        trained = ("optimizer", "gradients")
        if rows is None or memory is not None:
            gpu = DEVICE.type == "cuda"
            free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() if gpu else None
            extra = sum(plan(shape, setting).phases["generate"][part] for part in trained)
            limit = None if memory is None else memory + extra
            setting = with_cache_in(shape, setting, work, free, rows=rows, limit=limit)
        parts = plan(shape, setting).phases["generate"]
        return round(sum(size for part, size in parts.items() if part not in trained) / GIB, 2)

    def speed(self, name: str, engine: DecodeEngine, rows: int, bytes_per_s: float, new: int = NEW) -> None:
        """Prints tokens a second of decoding, after the prefill."""
        weights = sum(group.outputs * group.inputs for group in engine.decoder.groups)
        cached = engine.decoder.groups[0].kept is not None and rows > 2
        prompts = [self.examples[record.id].prompt for record in self.records]
        prompts = [prompt for prompt in prompts if len(prompt) >= 380][:rows] if rows < 9 else prompts[:rows]
        prompts = [prompt[:380] for prompt in prompts] if rows < 9 else prompts
        engine.limit(rows=rows, tokens=None, prefill_tokens=8192)
        with torch.autocast(DEVICE.type, self.dtype, enabled=self.dtype != torch.float32):
            for _ in range(2):  # the first captures the graphs
                waiting = {engine.add(Request(prompt, new)) for prompt in prompts}
                while waiting:
                    waiting -= {event.id for event in engine.step()}
                synchronize()
                started, steps = time.perf_counter(), 0
                while engine.busy:
                    engine.step()
                    steps += 1
                synchronize()
                step_s = (time.perf_counter() - started) / steps
        tokens = sum(map(len, prompts)) + rows * new / 2
        read = weights * (2 if cached else 0.5 + 1 / 64) + self.model.get_output_embeddings().weight.nbytes
        read += tokens * engine.token_bytes
        say(
            decoding=name, rows=rows, step_ms=round(step_s * 1e3, 2), tokens_per_s=round(rows / step_s),
            read_gb=round(read / 1e9, 2), bandwidth_share=round(read / step_s / bytes_per_s, 3),
        )  # fmt: skip

    def texts(self, name: str, engine: DecodeEngine | None, rows: int) -> list[tuple[int, ...]]:
        """Token ids of the first questions' texts."""
        from medqlora.inference.generation import generate

        prompts = [self.examples[record.id].prompt for record in self.records[:COMPARED]]
        started = time.perf_counter()
        with torch.autocast(DEVICE.type, self.dtype, enabled=self.dtype != torch.float32):
            if engine is None:
                found = [
                    tuple(text)
                    for first in range(0, len(prompts), rows)
                    for text in generate(
                        self.model, prompts[first : first + rows], max_new_tokens=NEW, end_token_ids=[],
                        pad_token_id=0, device=DEVICE,
                    )
                ]  # fmt: skip
            else:
                engine.limit(rows=rows, tokens=None, prefill_tokens=8192)
                numbers = [engine.add(Request(prompt, NEW)) for prompt in prompts]
                by_number: dict[int, list[int]] = {number: [] for number in numbers}
                for event in engine.run():
                    by_number[event.id] += event.tokens
                engine.release()
                found = [tuple(by_number[number]) for number in numbers]
        synchronize()
        say(texts=name, rows=rows, seconds=round(time.perf_counter() - started, 2))
        return found

    def compute_in_float32(self) -> None:
        settle(self.model, DEVICE, torch.float32)
        for module in self.base.modules():
            if type(module).__name__ in ("LlamaRMSNorm", "Embedding") or module is self.base.lm_head:
                module.weight.data = module.weight.data.float()

    @torch.no_grad()
    def regrets(self, texts: Sequence[Sequence[int]]) -> dict[str, float]:
        """How far the tokens are from the best ones of a float32 pass, relative to the best logit."""
        decoder = FusedDecoder(self.model, checkpointing="none")
        gaps = []
        for first in range(0, len(texts), 8):
            some = range(first, min(len(texts), first + 8))
            rows = [(*self.examples[self.records[index].id].prompt, *texts[index]) for index in some]
            batch = pack([Encoded("", row, ()) for row in rows])
            ends = batch.lengths.long().cumsum(0)
            places = torch.cat([torch.arange(end - NEW, end) for end in ends.tolist()])
            chosen = batch.input_ids[0, places].to(DEVICE)
            logits = decoder.logits(decoder.hidden(batch.to(DEVICE), (places - 1).to(DEVICE)))
            best = logits.max(-1).values
            gaps.append((best - logits.gather(1, chosen[:, None])[:, 0]) / best.abs())
        gap = torch.cat(gaps)
        return {
            "mean": round(gap.mean().item(), 5), "most": round(gap.max().item(), 4),
            "best": round((gap == 0).float().mean().item(), 4),
        }  # fmt: skip


def equal(one: Sequence[object], other: Sequence[object]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))


def main(file: str, tokenizer: str, shape: str = "llama-3-8b", count: str = "500", parts: str = "all") -> int:
    run = Run(file, tokenizer, shape, int(count))
    bytes_per_s = bandwidth()
    say(bandwidth_tb_per_s=round(bytes_per_s / 1e12, 2))
    texts: dict[str, list[tuple[int, ...]]] = {}
    scores = {}
    few = min(COMPARED, int(count))
    for name, cached in (("nf4", False), ("cached", True)):
        peak_gib(reset=True)
        engine = run.engine(cached)
        say(self_test=why_not(engine), weights=name)
        for rows in (1, 8, 50, 64) if parts == "all" else (1, 50):
            run.speed(name, engine, rows, bytes_per_s)
        engine.release()
        if parts == "all":
            texts[name] = run.texts(name, engine, ROWS)
        for rows, tokens, limit in SETTINGS:
            if limit is None or not cached:
                memory = None if limit is None else int(limit * GIB)
                scores[name] = run.evaluate(name, engine, int(count), rows=rows, tokens=tokens, memory=memory)
                engine.release()
        del engine
    if parts != "all":
        return 0
    scores["transformers"] = run.evaluate("transformers", None, few, rows=ROWS, tokens=65536)
    texts["transformers"] = run.texts("transformers", None, ROWS)
    texts["transformers, 8 rows"] = run.texts("transformers, 8 rows", None, 8)
    for name in ("nf4", "cached", "transformers, 8 rows"):
        say(equal_texts=name, of=len(texts[name]), equal=equal(texts[name], texts["transformers"]))
    for name in ("nf4", "cached"):
        pairs = zip(scores[name][:few], scores["transformers"], strict=True)
        difference = max(abs(a - b) for x, y in pairs for a, b in zip(x.logprobs, y.logprobs, strict=True))
        say(label_logprobs=name, largest_difference=difference)
    run.compute_in_float32()
    for name, found in texts.items():
        say(regret=name, **run.regrets(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
