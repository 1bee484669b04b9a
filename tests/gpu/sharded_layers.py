"""Sharded layers on two GPUs: losses and gradients beside those of whole ones, and the time of a pass.

    python tests/gpu/sharded_layers.py [--cpu]

Each GPU has a whole model first, and the same one sharded after. Both take the same micro-batches; the second GPU
has one more.
"""

import sys
import time
from typing import Any

import torch
import torch.distributed as dist
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
    "llama, 70B's layers": ("fused", 2048, {**SHAPES["llama-3-70b"][1], **WIDE, "num_hidden_layers": 6}),
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
    """Milliseconds of a micro-batch's forward and backward."""
    times = []
    for _ in range(6):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        passes(model, decoder, [batch])
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
        if shared is not None:
            shared.join()
    return sorted(times)[2] * 1e3


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
            return FusedDecoder(model, checkpointing="offload", shared=shared)
        return Decoder(model)

    if engine == "native":
        checkpoint_activations(model)
    batches = [batch() for _ in range(2 + rank)]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        whole = decoder(None)
        expected = passes(model, whole, batches)
        again = passes(model, whole, batches)
        whole_ms = timed(model, whole, batches[0], None, device)
        del whole
        shared = share_base(model, device, mesh, host)
        sharded = decoder(shared)
        equal = []
        for _ in range(3):
            found = passes(model, sharded, batches)
            shared.join()
            equal.append(sum(torch.equal(a, b) for a, b in zip(found, expected, strict=True)))
        sharded_ms = timed(model, sharded, batches[0], shared, device)
    repeated = sum(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
    print(
        f"rank {rank} {name} ({engine}): of {len(expected)} losses and gradients equal: {equal}, a whole model's own "
        f"repetition {repeated}; ms a micro-batch: whole {whole_ms:.1f}, sharded {sharded_ms:.1f}",
        flush=True,
    )


def main(rank: int, port: int, cpu: bool) -> None:
    device = torch.device("cpu") if cpu else torch.device("cuda", rank)
    if not cpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "gloo" if cpu else "nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    mesh, host = sharding_groups(device.type, 2)
    for name in CASES:
        compare(rank, name, device, mesh, host)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(main, (29551, "--cpu" in sys.argv), nprocs=2)
