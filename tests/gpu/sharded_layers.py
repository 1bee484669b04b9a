"""Sharded layers on two GPUs: losses and gradients beside those of whole ones, the time of a pass, and what it holds.

    python tests/gpu/sharded_layers.py [--cpu] [--one_gpu] [--deterministic] [--seventy] [--steps N]

Each GPU has a whole model first, and the same one sharded after. Both take the same micro-batches; the second GPU
has one more. A profile of a pass with each follows. `--seventy` measures Llama-3-70B's shape on two GPUs and on one.
`--one_gpu` has both processes on one GPU (`one_gpu.py`), and measures no time. The fused engine's attention adds in any
order in its backward, so that a whole model's gradients differ from pass to pass; `--deterministic` replaces it by
PyTorch's products and softmax.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

import one_gpu

if "RANK" not in os.environ:  # before the heavy imports
    each = [{**os.environ, "RANK": str(rank), "SINCE": str(time.time())} for rank in range(2)]
    if "--one_gpu" in sys.argv and "--cpu" not in sys.argv:
        way = one_gpu.settle(fit=False)
        each = [
            {**one, "ONE_GPU_WAY": way, **one_gpu.nccl_environment(rank)} for rank, one in enumerate(each)
        ]
    begun = [subprocess.Popen([sys.executable, *sys.argv], env=environment) for environment in each]
    sys.exit(max(process.wait() for process in begun))

import torch
import torch.distributed as dist
from profiled import kernel_summary
from seventy import SeventyBillion
from torch import Tensor

from medqlora.data.batching.packing import pack
from medqlora.distributed.processes import sharding_groups
from medqlora.fused import FusedDecoder, step
from medqlora.fused.kernels import attention
from medqlora.models import Decoder, LoRA, sharded_layer
from medqlora.models.sharded import ShardedBase, share_base
from medqlora.models.transformers import checkpoint_activations
from medqlora.profiling.random_model import add_adapters, build_base
from medqlora.profiling.shapes import SHAPES
from medqlora.records import Encoded

WIDE = {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "vocab_size": 4096}
LLAMA = {
    **SHAPES["llama-3-70b"][1], "hidden_size": 1024, "intermediate_size": 3584, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 4096, "num_hidden_layers": 4,
}  # fmt: skip
GEMMA = {
    "model_type": "gemma2", "vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128,
}  # fmt: skip


class Case(NamedTuple):
    """A model, and how it is trained.

    Attributes:
        tokens: of a micro-batch.
        recompute: the native engine's activation checkpointing.
        compile: the fused engine's kernels.
    """

    name: str
    engine: str
    tokens: int
    shape: dict[str, Any]
    dtype: torch.dtype = torch.bfloat16
    lora: LoRA = LoRA()
    recompute: bool = True
    compile: bool = False


CASES = [
    Case("gemma2", "native", 512, GEMMA),
    Case("llama, float16", "fused", 512, LLAMA, torch.float16),
    Case("gemma2, float16", "native", 512, GEMMA, torch.float16),
    Case("llama, rsLoRA", "fused", 512, LLAMA, lora=LoRA(use_rslora=True)),
    Case("gemma2, DoRA", "native", 512, GEMMA, lora=LoRA(use_dora=True), recompute=False),
    Case("llama, 70B's layers", "fused", 1920, {**SHAPES["llama-3-70b"][1], **WIDE, "num_hidden_layers": 6},
         compile=True),
]  # fmt: skip
#: the loss's factor in float16, without which small gradients are 0
SCALE = 1024.0
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
BEGUN = float(os.environ["SINCE"])


def passes(model: Any, decoder: Any, batches: list[Any], scale: float = 1.0) -> list[Tensor]:
    """The loss of each micro-batch, and all gradients."""
    model.zero_grad()
    losses = []
    for batch in batches:
        loss = decoder.loss_sum(batch)
        (loss * scale).backward()
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


class Comparison:
    """One case in this process: the whole model, then the same one sharded."""

    def __init__(self, rank: int, case: Case, device: torch.device) -> None:
        self.rank, self.case, self.device = rank, case, device
        shape, self.tokens = case.shape, case.tokens
        if device.type == "cpu":
            shape, self.tokens = {**shape, **SMALL}, 64
        self.dtype = case.dtype if device.type == "cuda" else torch.float32
        self.scale = SCALE if self.dtype == torch.float16 else 1.0
        base = build_base(shape, device=device, dtype=self.dtype, seed=0)
        self.model: Any = add_adapters(base, lora=case.lora)
        if case.engine == "native" and case.recompute:
            checkpoint_activations(self.model)
        generator = torch.Generator().manual_seed(rank)
        self.batches = [self._batch(generator) for _ in range(2 + rank)]

    def _batch(self, generator: torch.Generator) -> Any:
        ids = torch.randint(3, 4000, (self.tokens,), generator=generator).tolist()
        return pack([Encoded("0", tuple(ids[:-40]), tuple(ids[-40:]))]).to(self.device)

    def decoder(self, shared: ShardedBase | None) -> Any:
        if self.case.engine == "fused":
            compiled = self.case.compile and self.device.type == "cuda"
            return FusedDecoder(self.model, checkpointing="offload", compile=compiled, shared=shared)
        return Decoder(self.model)

    def run(self, mesh: Any, host: Any, *, times: bool) -> None:
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            whole = self.decoder(None)
            expected, again = (passes(self.model, whole, self.batches, self.scale) for _ in range(2))
            alone = self._timed(whole, None) if times else ""
            shared = share_base(self.model, self.device, mesh, host)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            parted = self.decoder(shared)
            runs = []
            for _ in range(3):
                runs.append(passes(self.model, parted, self.batches, self.scale))
                shared.join()
            together = self._timed(parted, shared) if times else ""
        print(f"[{time.time() - BEGUN:.0f} s] rank {self.rank} {self.case.name} ({self.case.engine}): "
              f"{self._compared(expected, again, runs)}", flush=True)  # fmt: skip
        if times:
            print(f"   whole:   {alone}\n   sharded: {together}", flush=True)

    def _compared(self, expected: list[Tensor], again: list[Tensor], runs: list[list[Tensor]]) -> str:
        pairs = [*zip(runs[-1], expected, strict=True)]
        losses = sum(torch.equal(a, b) for a, b in pairs if a.dim() == 0)
        apart = max(_distance(a, b) for a, b in pairs)
        own = max(map(_distance, again, expected))
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0
        return (
            f"of {len(expected)} losses and gradients equal: {[sum(map(torch.equal, run, expected)) for run in runs]}, "
            f"a whole model's own repetition {sum(map(torch.equal, again, expected))}; losses equal {losses} of "
            f"{len(self.batches)}; all zero {sum(not bool(one.any()) for one in expected)}; apart at most {apart:.1e}, "
            f"a whole model's own repetition {own:.1e} (norms); peak {peak:.2f} GiB"
        )

    def _timed(self, decoder: Any, shared: ShardedBase | None) -> str:
        def one_pass() -> None:
            passes(self.model, decoder, self.batches[:1])
            if shared is not None:
                shared.join()

        ms = timed(self.model, decoder, self.batches[0], shared, self.device)
        profiled = self.device if self.rank == 0 else torch.device("cpu")
        return f"{ms:.2f} ms a micro-batch; {kernel_summary(one_pass, profiled)}"


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm().clamp(min=1e-30))


def refused(rank: int, device: torch.device, mesh: Any, host: Any) -> None:
    """Bytes that are held as bfloat16, whose copies change them on a GPU: loading has to say so."""
    model = Comparison(rank, CASES[0], device).model
    held = sharded_layer.STORED_AS
    sharded_layer.STORED_AS = torch.bfloat16
    try:
        share_base(model, device, mesh, host)
        said = "was not refused" + (" (a CPU's copies keep all bytes)" if device.type == "cpu" else ": WRONG")
    except RuntimeError as error:
        said = f"refused: {error}"
    finally:
        sharded_layer.STORED_AS = held
    print(f"[{time.time() - BEGUN:.0f} s] rank {rank} held as bfloat16 {said}", flush=True)


def add_in_one_order() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    for kernel in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(False)
    for module in (attention, step):
        module.flash_runs = lambda *_: False


def main(rank: int, options: argparse.Namespace) -> None:
    device = torch.device("cpu") if options.cpu else torch.device("cuda", 0 if options.one_gpu else rank)
    if not options.cpu:
        torch.cuda.set_device(device)
        torch.cuda.init()
    way = os.environ.get("ONE_GPU_WAY", "nccl") if options.one_gpu else "nccl"
    one_gpu.replace_gather(way)
    backend = "gloo" if options.cpu else one_gpu.backend(way)
    dist.init_process_group(
        backend,
        init_method=f"tcp://127.0.0.1:{options.port}",
        rank=rank,
        world_size=2,
        device_id=device if backend == "nccl" else None,
    )
    mesh, host = sharding_groups(device.type, 2)
    if options.deterministic:
        add_in_one_order()
    print(f"[{time.time() - BEGUN:.0f} s] rank {rank} begins", flush=True)
    refused(rank, device, mesh, host)
    for case in CASES:
        if options.cases and not any(part in case.name for part in options.cases):
            continue
        Comparison(rank, case, device).run(mesh, host, times=not options.one_gpu)
    if options.seventy:
        seventy = SeventyBillion(rank, device, host, options.steps)
        seventy.measure("two GPUs")
        seventy.measure("one GPU")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--one_gpu", action="store_true", help="both processes on one GPU")
    parser.add_argument(
        "--deterministic", action="store_true", help="gradients that do not differ by themselves"
    )
    parser.add_argument("--cases", nargs="*", help="parts of names (default: all)")
    parser.add_argument("--seventy", action="store_true", help="measures the 70B's shape too")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--port", type=int, default=29551)
    main(int(os.environ["RANK"]), parser.parse_args())
