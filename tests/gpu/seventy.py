"""Llama-3-70B's shape on one GPU and on two, as `medqlora bench` measures it, in processes that are already there."""

import gc
import json
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from gather_variants import gathering_as

from medqlora.profiling.case import Case
from medqlora.profiling.figures import combined
from medqlora.profiling.measure import measure, measure_share
from medqlora.profiling.shapes import SHAPES


def case_of(device: torch.device, devices: int, steps: int) -> Case:
    cpu = device.type == "cpu"
    return Case(
        trainer="fused",
        shape=SHAPES["tiny" if cpu else "llama-3-70b"][1],
        checkpointing="offload",
        embedding="host",
        head="host",
        compile=not cpu,
        micro_batch_tokens=512 if cpu else 2048,
        precision="32" if cpu else "bf16-mixed",
        warm_up=2,
        steps=steps,
        device=device.type,
        devices=devices,
        strategy="fsdp" if devices > 1 else "ddp",
    )


def measure_all(
    rank: int, device: torch.device, host: Any, begins: Callable[[], bool], ways: list[str], steps: int
) -> None:
    """Two GPUs in each way, and one GPU; as far as the time goes."""
    rows: dict[str, Any] = {}
    for way in [*ways[:1], "one GPU", *ways[1:]]:
        if not begins():
            break
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        since = time.monotonic()
        if way == "one GPU":
            if rank == 0:
                rows[way] = measure(case_of(device, 1, steps))
            dist.barrier(host)
        else:
            from torch.distributed.device_mesh import init_device_mesh

            with gathering_as(way, init_device_mesh(device.type, (2,), mesh_dim_names=("shard",))):
                share = measure_share(case_of(device, 2, steps), rank)
            shares: list[Any] = [None, None]
            dist.all_gather_object(shares, share, group=host)
            rows[way] = combined(shares)
        if rank == 0:
            print(way, f"{time.monotonic() - since:.0f} s", shown(rows[way]), flush=True)
    two = rows.get(ways[0], {})
    if rank == 0 and two and "one GPU" in rows:
        for way in ways:
            if way in rows:
                ratio = rows[way]["tokens_per_s"] / rows["one GPU"]["tokens_per_s"]
                print(f"{way}: {ratio:.3f} times one GPU", flush=True)


def shown(row: Any) -> str:
    keys = ("tokens_per_s", "tokens_per_s_quartiles", "step_s", "tokens_per_step", "quickest_waits",
            "peak_allocated_gib", "peak_reserved_gib", "planned_gib", "plan_error", "loss")  # fmt: skip
    return json.dumps({key: row[key] for key in keys if key in row})
