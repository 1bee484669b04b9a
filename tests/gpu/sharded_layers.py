"""Sharded layers on two GPUs: losses and gradients beside those of whole ones, the time of a pass, and what it holds.

    python tests/gpu/sharded_layers.py [--cpu] [--seventy] [--steps N]

Each GPU has a whole model first, and the same one sharded after. Both take the same micro-batches; the second GPU
has one more. A profile of a pass with each follows. `--seventy` measures Llama-3-70B's shape on two GPUs and on one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

if "RANK" not in os.environ:  # before the heavy imports
    each = [{**os.environ, "RANK": str(rank), "SINCE": str(time.time())} for rank in range(2)]
    begun = [subprocess.Popen([sys.executable, *sys.argv], env=environment) for environment in each]
    sys.exit(max(process.wait() for process in begun))

import torch
import torch.distributed as dist
from profiled import kernel_summary
from seventy import SeventyBillion
from torch import Tensor

from medqlora.data.batching.packing import pack
from medqlora.distributed.processes import sharding_groups
from medqlora.fused import FusedDecoder
from medqlora.models import Decoder
from medqlora.models.sharded import ShardedBase, share_base
from medqlora.models.transformers import checkpoint_activations
from medqlora.profiling.random_model import add_adapters, build_base
from medqlora.profiling.shapes import SHAPES
from medqlora.records import Encoded

WIDE = {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "vocab_size": 4096}
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "llama, 70B's layers": ("fused", 1920, {**SHAPES["llama-3-70b"][1], **WIDE, "num_hidden_layers": 6}),
    "gemma2": ("native", 512, {
        "model_type": "gemma2", "vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128,
    }),
}  # fmt: skip
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
BEGUN = float(os.environ["SINCE"])


def passes(model: Any, decoder: Any, batches: list[Any]) -> list[Tensor]:
    """The loss of each micro-batch, and all gradients."""
    model.zero_grad()
    losses = []
    for batch in batches:
        loss = decoder.loss_sum(batch)
        loss.backward()
        losses.append(loss.detach())
    return [*losses, *(one.grad.clone() for one in model.parameters() if one.grad is not None)]


def timed(model: Any, decoder: Any, batch: Any, shared: ShardedBase | None, device: torch.device) -> float:
    """Milliseconds of a micro-batch's forward and backward, the median of ten after three."""
    times = []
    for _ in range(13 if device.type == "cuda" else 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        passes(model, decoder, [batch])
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
        if shared is not None:
            shared.join()
    return statistics.median(times[3:] or times) * 1e3


def compare(rank: int, name: str, device: torch.device, mesh: Any, host: Any) -> None:
    engine, tokens, shape = CASES[name]
    if device.type == "cpu":
        shape, tokens = {**shape, **SMALL}, 64
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = add_adapters(build_base(shape, device=device, dtype=dtype, seed=0))
    generator = torch.Generator().manual_seed(rank)

    def batch() -> Any:
        ids = torch.randint(3, 4000, (tokens,), generator=generator).tolist()
        return pack([Encoded("0", tuple(ids[:-40]), tuple(ids[-40:]))]).to(device)

    def decoder(shared: ShardedBase | None) -> Any:
        if engine == "fused":
            return FusedDecoder(model, checkpointing="offload", compile=device.type == "cuda", shared=shared)
        return Decoder(model)

    if engine == "native":
        checkpoint_activations(model)
    batches = [batch() for _ in range(2 + rank)]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        whole = decoder(None)
        expected = passes(model, whole, batches)
        again = passes(model, whole, batches)
        whole_ms = timed(model, whole, batches[0], None, device)
        alone = kernel_summary(lambda: passes(model, whole, batches[:1]), device) if rank == 0 else ""
        shared = share_base(model, device, mesh, host)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        sharded = decoder(shared)
        equal = []
        for _ in range(3):
            found = passes(model, sharded, batches)
            shared.join()
            equal.append(sum(torch.equal(a, b) for a, b in zip(found, expected, strict=True)))
        sharded_ms = timed(model, sharded, batches[0], shared, device)
        peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0

        def one_pass() -> None:
            passes(model, sharded, batches[:1])
            shared.join()

        together = kernel_summary(one_pass, device if rank == 0 else torch.device("cpu"))
    repeated = sum(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
    apart = max(abs(float(a) / float(b) - 1) for a, b in zip(found, expected, strict=True) if a.dim() == 0)
    gathers = 2 * len(shared.layers) - 1
    print(
        f"[{time.time() - BEGUN:.0f} s] rank {rank} {name} ({engine}): of {len(expected)} losses and gradients equal: "
        f"{equal}, a whole model's own repetition {repeated}; losses apart {apart:.1e}; ms a micro-batch: "
        f"whole {whole_ms:.2f}, sharded {sharded_ms:.2f}, {(sharded_ms - whole_ms) / gathers:.3f} a gather; "
        f"peak {peak:.2f} GiB\n"
        f"   whole:   {alone}\n   sharded: {together}",
        flush=True,
    )


def main(rank: int, options: argparse.Namespace) -> None:
    device = torch.device("cpu") if options.cpu else torch.device("cuda", rank)
    if not options.cpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "gloo" if options.cpu else "nccl",
        init_method=f"tcp://127.0.0.1:{options.port}",
        rank=rank,
        world_size=2,
        device_id=None if options.cpu else device,
    )
    mesh, host = sharding_groups(device.type, 2)
    print(f"[{time.time() - BEGUN:.0f} s] rank {rank} begins", flush=True)
    for name in CASES:
        compare(rank, name, device, mesh, host)
    if options.seventy:
        seventy = SeventyBillion(rank, device, host, options.steps)
        seventy.measure("two GPUs")
        seventy.measure("one GPU")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--seventy", action="store_true", help="measures the 70B's shape too")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--port", type=int, default=29551)
    main(int(os.environ["RANK"]), parser.parse_args())
