"""The fused engine on a GPU: its error against float32, its speed and memory, and where its time goes.

    python tests/gpu/engine.py {8b|tiny} PUBMEDQA_FILE TOKENIZER_FOLDER [CASE …]

Weights are random NF4 of the shape, made on the device layer by layer. One JSON line a case; a case that
raises says so in its line, and the next one runs.
"""

import cProfile
import gc
import json
import os
import pstats
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# packs differ in length: without this the allocator keeps blocks of every size that it has seen
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft import get_peft_model
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from medqlora.data import PubMedQA
from medqlora.data.batching.packing import MicroBatch, pack
from medqlora.datamodule import PubMedQADataModule
from medqlora.fused import FusedDecoder
from medqlora.fused.kernels.dequantize import FourBit
from medqlora.fused.kernels.elementwise import elementwise
from medqlora.models import Decoder, LoRA
from medqlora.models.lora import SEVEN_PROJECTIONS, peft_config
from medqlora.models.quantization import settle
from medqlora.records import Encoded

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8},
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8,
             "num_key_value_heads": 2},
}  # fmt: skip


def build(shape: str, layers: int | None = None, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A PEFT model of the shape; no weight of a layer ever exists in 16 bits beside another's."""
    changes = {"num_hidden_layers": layers} if layers else {}
    config = LlamaConfig(
        vocab_size=128256, rope_theta=500000.0, max_position_embeddings=8192, rms_norm_eps=1e-5, dtype=dtype,
        tie_word_embeddings=False, use_cache=False, attn_implementation="sdpa", **{**SHAPES[shape], **changes},
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    generator = torch.Generator(DEVICE).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.empty(size, device=DEVICE, dtype=dtype).normal_(std=0.02, generator=generator)

    for parent in list(model.model.layers.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Linear):
                linear = bnb.nn.Linear4bit(
                    module.in_features, module.out_features, bias=False, compute_dtype=dtype, quant_type="nf4",
                    device="meta",
                )  # fmt: skip
                packed, state = quantize_4bit(
                    normal(module.out_features, module.in_features), blocksize=64, quant_type="nf4",
                    compress_statistics=True,
                )  # fmt: skip
                linear.weight = bnb.nn.Params4bit(
                    packed, requires_grad=False, quant_state=state, quant_type="nf4", bnb_quantized=True
                )
                setattr(parent, name, linear)
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.weight = nn.Parameter(1 + normal(config.hidden_size), requires_grad=False)
    model.model.embed_tokens.weight = nn.Parameter(normal(config.vocab_size, config.hidden_size))
    model.lm_head.weight = nn.Parameter(normal(config.vocab_size, config.hidden_size))
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(DEVICE)
    model.is_loaded_in_4bit = True  # PEFT asks the model, then the layer
    settle(model, DEVICE, dtype)
    model.requires_grad_(False)
    model = get_peft_model(model, peft_config(LoRA(r=16, alpha=32), list(SEVEN_PROJECTIONS)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.01, generator=generator)
    return model.train()


def packs(examples: list[Encoded], budget: int) -> Iterator[MicroBatch]:
    """Micro-batches without end, filled in a random order until the next example would pass the budget."""
    chosen: list[Encoded] = []
    used, order = 0, random.Random(1)
    while True:
        for example in order.sample(examples, len(examples)):
            length = len(example.prompt) + len(example.completion)
            if used + length > budget:
                yield pack(chosen).to(DEVICE)
                chosen, used = [], 0
            chosen.append(example)
            used += length


def flatten(model: Any) -> nn.Parameter:
    """All adapters as views of one parameter, whose gradient theirs are views of."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    flat = nn.Parameter(torch.cat([parameter.data.flatten() for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    offset = 0
    for parameter in parameters:
        place = slice(offset, offset + parameter.numel())
        parameter.data = flat.data[place].view(parameter.shape)
        parameter.grad = flat.grad[place].view(parameter.shape)
        offset += parameter.numel()
    return flat


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def steps(decoder: Any, flat: nn.Parameter, batches: list[MicroBatch], optimizer: Any) -> Tensor:
    """One optimizer step a micro-batch; the last loss per completion token."""
    for batch in batches:
        loss = decoder.loss_sum(batch) / batch.rows.numel()
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        flat.grad.zero_()  # type: ignore[union-attr]
    return loss.detach()


def speed(
    model: Any, flat: nn.Parameter, examples: list[Encoded], budget: int, count: int, decoder: Any
) -> dict[str, Any]:
    """Tokens a second over `count` steps after warm-up, with and without the optimizer, and the peak."""
    stream = packs(examples, budget)
    optimizer = bnb.optim.AdamW8bit([flat], lr=1e-5)
    started = time.perf_counter()
    steps(decoder, flat, [next(stream) for _ in range(4)], optimizer)
    synchronize()
    warm_up_s = time.perf_counter() - started
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    result: dict[str, Any] = {"warm_up_s": round(warm_up_s, 1)}
    for name, stepping in (("tokens_per_s", optimizer), ("tokens_per_s_without_optimizer", None)):
        batches = [next(stream) for _ in range(count)]
        tokens = sum(int(batch.lengths.sum()) for batch in batches)
        synchronize()
        started = time.perf_counter()
        loss = steps(decoder, flat, batches, stepping)
        queued_s = time.perf_counter() - started
        synchronize()
        step_s = time.perf_counter() - started
        result[name] = round(tokens / step_s)
        result.setdefault("step_s", round(step_s / count, 4))
        result.setdefault("host_s", round(queued_s / count, 4))
    result["tokens_per_step"] = round(tokens / count)
    result["loss"] = round(loss.item(), 4)
    if DEVICE.type == "cuda":
        result["peak_allocated_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        result["peak_reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
    return result


def profile(flat: nn.Parameter, batch: MicroBatch, decoder: Any) -> dict[str, Any]:
    """Milliseconds a step of the kernels that take the most."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    steps(decoder, flat, [batch] * 2, None)
    synchronize()
    with torch.profiler.profile(activities=activities[DEVICE.type == "cuda" :]) as run:
        steps(decoder, flat, [batch] * 2, None)
        synchronize()
    name = "self_device_time_total" if DEVICE.type == "cuda" else "self_cpu_time_total"
    kernels = sorted(run.key_averages(), key=lambda event: -getattr(event, name))
    total = sum(getattr(event, name) for event in kernels)
    return {
        "tokens": int(batch.lengths.sum()),
        "kernels_ms": round(total / 2000, 1),
        "top": [[round(getattr(e, name) / 2000, 2), e.count // 2, e.key[:110]] for e in kernels[:36]],
    }


def gradients(model: Any, loss: Tensor) -> Tensor:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([g.flatten().float().cpu() for g in torch.autograd.grad(loss, trained)])


def errors(shape: str, examples: list[Encoded], compiled: bool) -> dict[str, Any]:
    """Relative errors in bfloat16 against the native decoder in float32, on four layers of the shape."""
    model = build(shape, layers=4)
    inner = model.get_base_model()
    batch = pack(examples[:3]).to(DEVICE)

    def compute_in(dtype: torch.dtype) -> None:
        settle(model, DEVICE, dtype)
        for module in (inner.model.embed_tokens, inner.lm_head):
            module.weight.data = module.weight.data.to(dtype)
        for module in inner.modules():
            if type(module).__name__ == "LlamaRMSNorm":
                module.weight.data = module.weight.data.to(dtype)

    compute_in(torch.float32)
    loss = Decoder(model).loss_sum(batch)
    exact = gradients(model, loss)
    exact_loss = loss.item()
    result: dict[str, Any] = {}
    fused32 = FusedDecoder(model, checkpointing=2).loss_sum(batch)
    found = gradients(model, fused32)
    result["fused_float32"] = [
        abs(fused32.item() / exact_loss - 1),
        ((found - exact).norm() / exact.norm()).item(),
    ]
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float16, "float16")):
        compute_in(torch.float32)
        compute_in(dtype)
        makers: dict[str, Callable[[], Any]] = {
            "native": lambda: Decoder(model),
            "fused_none": lambda: FusedDecoder(model, checkpointing="none", compile=compiled),
            "fused_full": lambda: FusedDecoder(model, checkpointing="full", compile=compiled),
            "fused_eager": lambda: FusedDecoder(model, checkpointing="none"),
        }
        for engine, maker in makers.items():
            with torch.autocast(DEVICE.type, dtype=dtype):
                loss = maker().loss_sum(batch)
            found = gradients(model, loss)
            result[f"{engine}_{name}"] = [
                abs(loss.item() / exact_loss - 1), ((found - exact).norm() / exact.norm()).item()
            ]  # fmt: skip
    return result


def same_bits(model: Any) -> dict[str, Any]:
    """Whether the engine's dequantization is bitsandbytes', as the share of values that differ."""
    mlp = model.get_base_model().model.layers[0].mlp
    weights: list[Any] = [mlp.gate_proj.base_layer.weight, mlp.up_proj.base_layer.weight]
    theirs = torch.cat([dequantize_4bit(weight.data, weight.quant_state) for weight in weights])
    rows, columns = theirs.shape
    wide = torch.zeros(rows, columns + 64, device=DEVICE, dtype=torch.bfloat16)
    FourBit(weights).dequantize_into(wide[:, :columns])
    return {
        "differ": (wide[:, :columns] != theirs).float().mean().item(),
        "largest": (wide[:, :columns] - theirs).abs().max().item(),
        "spilled": wide[:, columns:].abs().max().item(),
    }


def waits(model: Any, flat: nn.Parameter, batch: MicroBatch) -> dict[str, Any]:
    """Whether a forward and backward wait for the device anywhere: torch raises where they do."""
    results = {}
    for checkpointing in ("none", "full"):
        decoder = FusedDecoder(model, checkpointing=checkpointing, compile=True)
        steps(decoder, flat, [batch], None)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            steps(decoder, flat, [batch], None)
            results[checkpointing] = "never"
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return results


def host(flat: nn.Parameter, batch: MicroBatch, decoder: Any) -> dict[str, Any]:
    """Microseconds of host work a step, the functions that take the most first."""
    steps(decoder, flat, [batch] * 2, None)
    synchronize()
    with torch.autograd.set_multithreading_enabled(False):  # else the backward runs where nothing is counted
        started = time.perf_counter()
        steps(decoder, flat, [batch], None)
        bare_s = time.perf_counter() - started
        synchronize()
        run = cProfile.Profile()
        run.runcall(steps, decoder, flat, [batch], None)
    synchronize()
    rows = sorted(pstats.Stats(run).stats.items(), key=lambda item: -item[1][2])  # type: ignore[attr-defined]
    top = [
        [f"{Path(where[0]).name}:{where[1]} {where[2]}"[-70:], n, round(own * 1e6)]
        for where, (n, _, own, _, _) in rows
    ]
    return {"host_ms": round(bare_s * 1e3, 1), "top": top[:40]}


def main(shape: str, file: str, tokenizer: str, *chosen: str) -> None:
    versions = {"torch": torch.__version__, "bitsandbytes": bnb.__version__}
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    say("machine", {"device": device, **versions})
    data = PubMedQADataModule(PubMedQA(path=file, fold=0))
    data.read(AutoTokenizer.from_pretrained(tokenizer), ("train",), report=lambda _: None)
    examples = data.train
    large, small = (8192, 2048) if shape == "8b" else (1024, 600)
    cases: dict[str, Callable[[], dict[str, Any]]] = {"errors": lambda: errors(shape, examples, True)}
    held: dict[str, Any] = {}

    def model() -> tuple[Any, nn.Parameter]:
        if not held:
            built = build(shape)
            held.update(model=built, flat=flatten(built))
        return held["model"], held["flat"]

    def timed(budget: int, count: int, checkpointing: Any, kind: Any) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            built, flat = model()
            decoder = FusedDecoder(built, checkpointing=checkpointing)
            decoder.functions = elementwise(kind)
            return speed(built, flat, examples, budget, count, decoder)

        return run

    def profiled(budget: int, checkpointing: Any, kind: Any) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            built, flat = model()
            decoder = FusedDecoder(built, checkpointing=checkpointing)
            decoder.functions = elementwise(kind)
            return profile(flat, next(packs(examples, budget)), decoder)

        return run

    def hosted(budget: int, checkpointing: Any, kind: Any) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            built, flat = model()
            decoder = FusedDecoder(built, checkpointing=checkpointing)
            decoder.functions = elementwise(kind)
            return host(flat, next(packs(examples, budget)), decoder)

        return run

    cases["dequantization"] = lambda: same_bits(model()[0])
    cases["waits-for-the-device"] = lambda: waits(*model(), next(packs(examples, small)))
    cases["8k-none"] = timed(large, 12, "none", "triton")
    cases["8k-none-profile"] = profiled(large, "none", "triton")
    cases["8k-full"] = timed(large, 8, "full", "triton")
    cases["2k-none"] = timed(small, 20, "none", "triton")
    cases["2k-full"] = timed(small, 20, "full", "triton")
    # what fits into 7.4 GiB, and a step of eight examples
    cases["3k-full"] = timed(3200 if shape == "8b" else small, 16, "full", "triton")
    cases["3k-none"] = timed(3100 if shape == "8b" else small, 16, "none", "triton")
    cases["8k-none-plain"] = timed(large, 8, "none", "plain")
    cases["2k-full-plain"] = timed(small, 16, "full", "plain")
    cases["2k-none-profile"] = profiled(small, "none", "triton")
    cases["2k-none-host"] = hosted(small, "none", "triton")
    cases["8k-none-compiled"] = timed(large, 12, "none", "compiled")
    for name, case in cases.items():
        if chosen and name not in chosen:
            continue
        started = time.perf_counter()
        try:
            result = case()
        except Exception as error:
            traceback.print_exc()
            result = {"raised": f"{type(error).__name__}: {error}"[:300]}
        say(name, {**result, "case_s": round(time.perf_counter() - started, 1)})
        gc.collect()
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()


def say(name: str, result: dict[str, Any]) -> None:
    print(json.dumps({"case": name, **result}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
