"""Training steps from CUDA graphs on a GPU: equal bits, speed and memory beside steps without graphs.

    CUBLAS_WORKSPACE_CONFIG=:4096:8 python tests/gpu/graph_steps.py {llama-3-8b|tiny} [CASE …]

Weights are random NF4 of the shape, lengths are PubMedQA's. One JSON line a case; a case that raises says so in its
line, and the next one runs.
"""

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from torch import Tensor, nn

from medqlora.config.model import StepOptions
from medqlora.data.batching.budget import TokenBudget
from medqlora.data.batching.packing import StepBatch, step_batch
from medqlora.fused import Checkpointing, FusedDecoder, StepGraphs
from medqlora.models.host_weights import to_host
from medqlora.planner import Setting, Shape, plan
from medqlora.planner.memory import GIB
from medqlora.profiling.lengths import random_examples
from medqlora.profiling.measure import step_batches
from medqlora.profiling.random_model import add_adapters, build_base
from medqlora.profiling.shapes import SHAPES
from medqlora.training.optim import build_optimizer
from medqlora.training.out_of_memory import BudgetSplitter
from medqlora.training.step import Splitter, TorchDriver, TrainStep

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
DTYPE = torch.bfloat16 if GPU else torch.float32


def say(name: str, result: object) -> None:
    print(json.dumps({"case": name, "result": result}), flush=True)


def synchronize() -> None:
    if GPU:
        torch.cuda.synchronize()


def gib(value: float) -> float:
    return round(value / 2**30, 2)


class Bench:
    """A model of the shape, and training steps on it."""

    def __init__(self, shape: str) -> None:
        started = time.perf_counter()
        self.shape = SHAPES[shape][1]
        self.model: Any = add_adapters(build_base(self.shape, device=DEVICE, dtype=DTYPE))
        self.named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        self.hosted = self.head_hosted = False
        self.start = [p.detach().clone() for _, p in self.named]
        self.examples = random_examples(vocab_size=int(str(self.shape["vocab_size"])), longest=842)
        synchronize()
        say("build", {"s": round(time.perf_counter() - started, 1)})

    def batches(self, count: int, budget: int, batch_size: int | None = None) -> list[StepBatch]:
        source = step_batches(self.examples, budget, batch_size, 0)
        return [next(source) for _ in range(count)]

    def planned_gib(
        self, batches: list[StepBatch], *, graphs: bool, checkpointing: Any, cached: int = 0
    ) -> float:
        """The peak of the steps by `medqlora plan`."""
        micros = [micro for batch in batches for micro in batch.micro_batches]
        largest = max(micros, key=lambda micro: micro.input_ids.numel())
        setting = Setting(
            checkpointing=checkpointing,
            cached=cached,
            graphs=graphs,
            tokens=largest.input_ids.numel(),
            loss_rows=len(largest.rows),
            embedding="host" if self.hosted else "device",
            head="host" if self.head_hosted else "device",
        )
        return plan(Shape.of(self.model.config), setting).total("fit") / GIB

    def host(self) -> None:
        """Moves the embedding to host memory, for the rest of the process."""
        to_host(self.model, embedding=True, head=False)
        self.hosted = True

    def train(
        self,
        *,
        graphs: bool | None,
        rate: float = 1e-5,
        tokens: int = 0,
        splitter: Splitter | None = None,
        **options: Any,
    ) -> TrainStep:
        """Steps from the first weights; `graphs`: None for unpadded rows, False for padded ones without graphs."""
        with torch.no_grad():
            for (_, parameter), value in zip(self.named, self.start, strict=True):
                parameter.data.copy_(value)
        decoder = FusedDecoder(self.model, compile=GPU, **options)
        if graphs is not None:
            StepGraphs(decoder, tokens, capture=graphs)
        optimizer = build_optimizer("adamw_8bit", self.named, learning_rate=rate, weight_decay=0.0)
        step = StepOptions(learning_rate=rate)
        driver = TorchDriver(DEVICE, DTYPE)
        return TrainStep(decoder, optimizer, step, device=DEVICE, driver=driver, splitter=splitter)

    def weights(self) -> list[Tensor]:
        return [parameter.detach().clone() for _, parameter in self.named]


def free() -> None:
    gc.collect()
    if GPU:
        torch.cuda.empty_cache()


def timed(bench: Bench, batches: list[StepBatch], **options: Any) -> dict[str, Any]:
    """Tokens a second, the peak, and what captures took."""
    free()
    train = bench.train(**options)
    if GPU:
        torch.cuda.reset_peak_memory_stats()
        at_first = torch.cuda.mem_get_info()[0]
    started = time.perf_counter()
    for batch in (
        *batches,
        batches[0],
    ):  # the first pass runs without a graph: its size is captured at the end
        train.step(batch)
    synchronize()
    first_s = time.perf_counter() - started
    started = time.perf_counter()
    for batch in batches:
        loss = train.step(batch).loss
    queued_s = time.perf_counter() - started
    synchronize()
    taken_s = time.perf_counter() - started
    result = {
        "tokens_per_s": round(sum(batch.tokens for batch in batches) / taken_s),
        "step_ms": round(taken_s / len(batches) * 1e3, 1),
        "host_ms": round(queued_s / len(batches) * 1e3, 1),
        "first_pass_s": round(first_s, 2),
        "loss": round(float(loss), 4),
    }
    known = {key: value for key, value in options.items() if key not in ("graphs", "tokens")}
    result["planned"] = round(bench.planned_gib(batches, graphs=options["graphs"] is True, **known), 2)
    if GPU:
        result["allocated"] = gib(torch.cuda.max_memory_allocated())
        result["reserved"] = gib(torch.cuda.max_memory_reserved())
        result["used_since"] = gib(at_first - torch.cuda.mem_get_info()[0])
        result["plan_error"] = round(result["planned"] / result["allocated"] - 1, 3)
    graphs = train.decoder.graphs  # type: ignore[union-attr]
    if graphs is not None:
        result |= {"graphs": graphs.captures, "capture_s": round(graphs.capture_s, 2), "on": graphs.on}
    return result


def speed(bench: Bench, count: int, budget: int, size: int | None, **options: Any) -> dict[str, Any]:
    batches = bench.batches(count, budget, size)
    kinds: dict[str, bool | None] = {"unpadded": None, "graphs" if GPU else "padded": GPU}
    return {
        name: timed(bench, batches, graphs=graphs, tokens=budget, **options) for name, graphs in kinds.items()
    }


def equal(
    bench: Bench, count: int, budget: int, *, other: Checkpointing | None = None, **options: Any
) -> dict[str, Any]:
    """Whether losses, norms and weights of steps from graphs are the bits of steps without.

    With `other`, of steps without graphs and with that checkpointing.
    """
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    runs = []
    batches = bench.batches(count, budget)
    for graphs in (False, GPU if other is None else False):
        torch.manual_seed(0)
        if runs and other is not None:
            options["checkpointing"] = other
        train = bench.train(graphs=graphs, rate=2e-4, **options)
        results = [train.step(batch) for batch in batches]
        figures = torch.stack([torch.stack((result.loss, result.grad_norm)) for result in results])
        runs.append((figures, bench.weights()))
        del train
        free()
    torch.use_deterministic_algorithms(False)
    (one, weights), (second, others) = runs
    differ = [i for i in range(count) if not torch.equal(one[i], second[i])]
    return {
        "steps": count,
        "steps_that_differ": len(differ),
        "first": differ[:1],
        "weights_equal": all(torch.equal(a, b) for a, b in zip(weights, others, strict=True)),
        "moved": float(max((a - b).abs().max() for a, b in zip(weights, bench.start, strict=True))),
        "losses": [round(float(one[i, 0]), 5) for i in (0, count - 1)],
    }


def not_a_number(bench: Bench, budget: int, at: int = 3) -> dict[str, Any]:
    """Steps of which one has a token whose embedding is not a number: with graphs beside without."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    batches = bench.batches(7, budget)
    embedding = bench.model.get_input_embeddings().weight
    token = int(batches[at].micro_batches[0].input_ids[0, 0])
    runs = []
    for graphs in (False, GPU):
        train = bench.train(graphs=graphs, tokens=budget, rate=2e-4, checkpointing="none")
        results = []
        for number, batch in enumerate(batches):
            row = embedding.data[token].clone()
            if number == at:
                embedding.data[token] = torch.nan
            results.append(train.step(batch))
            embedding.data[token] = row
        figures = torch.stack([torch.stack((result.loss, result.grad_norm)) for result in results])
        runs.append((figures, bench.weights()))
        del train
        free()
    torch.use_deterministic_algorithms(False)
    (one, weights), (second, others) = runs
    return {
        "losses": [round(float(loss), 5) for loss in second[:, 0]],
        "figures_equal": torch.equal(one.nan_to_num(-1), second.nan_to_num(-1)),
        "not_a_number_at": [i for i in range(len(batches)) if not bool(torch.isfinite(second[i]).all())],
        "weights_equal": all(torch.equal(a, b) for a, b in zip(weights, others, strict=True)),
        "weights_finite": all(bool(torch.isfinite(weight).all()) for weight in others),
    }


def out_of_memory(bench: Bench, budget: int, room_gib: float) -> dict[str, Any]:
    """Losses of steps whose first capture doesn't fit, beside those with room."""
    examples = {example.id: example for example in bench.examples}
    found: dict[str, Any] = {}
    for name in ("with_room", "short"):
        tokens = TokenBudget(budget)

        def rebuild(ids: Sequence[str], tokens: TokenBudget = tokens) -> StepBatch:
            return step_batch([examples[one] for one in ids], tokens.value)

        splitter = BudgetSplitter(tokens, rebuild, DEVICE)
        train = bench.train(graphs=GPU, rate=2e-4, checkpointing="none", splitter=splitter)
        train.step(step_batch(bench.examples[:2], budget))
        synchronize()
        free()
        if GPU and name == "short":
            total = torch.cuda.get_device_properties(0).total_memory
            held = torch.cuda.memory_reserved() + room_gib * 2**30
            torch.cuda.set_per_process_memory_fraction(held / total)
        ids = [[one.id for one in bench.examples[start : start + 14]] for start in range(0, 70, 14)]
        losses = [round(float(train.step(rebuild(chosen)).loss), 5) for chosen in ids]
        graphs: Any = train.decoder.graphs  # type: ignore[union-attr]
        found[name] = {"losses": losses, "budget": tokens.value, "captures": graphs.captures, "on": graphs.on}
        if GPU:
            torch.cuda.set_per_process_memory_fraction(1.0)
        del train, graphs
        free()
    pairs = zip(found["with_room"]["losses"], found["short"]["losses"], strict=True)
    return {**found, "largest_difference": max(abs(a / b - 1) for a, b in pairs)}


def dropped(bench: Bench, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """`run` with LoRA's dropout."""
    parents = [
        module
        for name, module in bench.model.named_modules()
        if name.endswith("lora_dropout") and isinstance(module, nn.ModuleDict)
    ]
    for parent in parents:
        parent["default"] = nn.Dropout(0.1)
    try:
        return run()
    finally:
        for parent in parents:
            parent["default"] = nn.Identity()


def hosted(bench: Bench, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not bench.hosted:
        bench.host()
    return run()


def smallest(bench: Bench, count: int, budget: int) -> dict[str, Any]:
    """Embedding and head on the host as well: the least memory that trains."""
    to_host(bench.model, embedding=not bench.hosted, head=True)
    bench.hosted = bench.head_hosted = True
    return timed(bench, bench.batches(count, budget), graphs=None, tokens=budget, checkpointing="offload")


def profile(bench: Bench, budget: int, top: int, **options: Any) -> dict[str, Any]:
    """Milliseconds of the kernels of a step, those that take the most first."""
    free()
    train = bench.train(**options)
    batches = bench.batches(1, budget)
    for _ in range(3):
        train.step(batches[0])
    synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities[GPU:]) as run:
        started = time.perf_counter()
        train.step(batches[0])
        synchronize()
        wall = time.perf_counter() - started
    name = "self_device_time_total" if GPU else "self_cpu_time_total"
    kernels = sorted(run.key_averages(), key=lambda event: -getattr(event, name))
    return {
        "tokens": batches[0].tokens,
        "wall_ms": round(wall * 1e3, 1),
        "kernels_ms": round(sum(getattr(event, name) for event in kernels) / 1000, 1),
        "launches": sum(event.count for event in kernels),
        "top": [[round(getattr(e, name) / 1000, 2), e.count, e.key[:90]] for e in kernels[:top]],
    }


def all_cases(bench: Bench) -> dict[str, Callable[[], dict[str, Any]]]:
    """What can be asked for, by name."""
    layers = int(str(bench.shape["num_hidden_layers"]))
    small, large = (2048, 8192) if GPU else (900, 1500)
    count = int(os.environ.get("STEPS", 24 if GPU else 2))
    return {
        "2k": lambda: speed(bench, count, small, None, checkpointing="none"),
        "2k_cached": lambda: speed(bench, count, small, None, checkpointing="none", cached=layers),
        "2k_profile": lambda: profile(bench, small, 40, graphs=None, checkpointing="none"),
        "2k_graph_profile": lambda: profile(bench, small, 40, graphs=True, checkpointing="none"),
        "equal": lambda: equal(bench, 50 if GPU else 3, small, checkpointing="none"),
        "equal_16": lambda: equal(bench, 16, small, checkpointing="none"),
        "equal_cached": lambda: equal(bench, 16, small, checkpointing="none", cached=layers),
        "equal_offload": lambda: equal(bench, count // 2, small, checkpointing="offload"),
        "offload_is_full": lambda: equal(bench, count // 2, small, checkpointing="offload", other="full"),
        "8k_offload_is_full": lambda: equal(bench, count // 4, large, checkpointing="offload", other="full"),
        "equal_full": lambda: equal(bench, count // 2, small, checkpointing=layers // 2),
        "8_examples": lambda: speed(bench, count, large, 8, checkpointing="none"),
        "8k_cached": lambda: speed(bench, count // 2, large, None, checkpointing="none", cached=layers),
        "8k": lambda: speed(bench, count // 2, large, None, checkpointing="none"),
        "8k_offload": lambda: speed(bench, count // 2, large, None, checkpointing="offload"),
        "8k_profile": lambda: profile(bench, large, 40, graphs=None, checkpointing="none", cached=layers),
        "not_a_number": lambda: not_a_number(bench, small),
        "out_of_memory": lambda: out_of_memory(bench, 6144, 8),
        "equal_dropout": lambda: dropped(
            bench, lambda: equal(bench, count // 2, small, checkpointing=layers // 2)
        ),
        "8k_offload_profile": lambda: profile(bench, large, 30, graphs=None, checkpointing="offload"),
        # the last: the embedding stays on the host
        "2k_hosted": lambda: hosted(bench, lambda: speed(bench, count, small, None, checkpointing="offload")),
        "smallest": lambda: smallest(bench, count // 2, small),
        "equal_hosted": lambda: hosted(
            bench, lambda: equal(bench, count // 2, small, checkpointing="offload")
        ),
    }


def main(shape: str, *chosen: str) -> None:
    device = torch.cuda.get_device_name() if GPU else "cpu"
    say("machine", {"device": device, "torch": torch.__version__})
    bench = Bench(shape)
    cases = all_cases(bench)
    for name in chosen or cases:
        started = time.perf_counter()
        try:
            say(name, {**cases[name](), "case_s": round(time.perf_counter() - started, 1)})
        except Exception as error:
            lines = traceback.format_exc().splitlines()[-12:]
            say(name, {"error": f"{type(error).__name__}: {error}"[:600], "trace": lines})
        free()


if __name__ == "__main__":
    main(*sys.argv[1:])
