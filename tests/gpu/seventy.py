"""Llama-3-70B's shape on one GPU and on two, as `medqlora bench` measures it, in processes that are already there."""

import gc
import json
import time
from typing import Any

import torch
import torch.distributed as dist

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


class SeventyBillion:
    """Measures in this process; each process calls `measure` with the same ways in the same order."""

    def __init__(self, rank: int, device: torch.device, host: Any, steps: int) -> None:
        self.rank, self.device, self.host, self.steps = rank, device, host, steps
        self.rows: dict[str, Any] = {}

    def measure(self, way: str) -> None:
        """`way` is "one GPU" or any name for two."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        since = time.monotonic()
        if way == "one GPU":
            if self.rank == 0:
                self.rows[way] = measure(case_of(self.device, 1, self.steps))
            dist.barrier(self.host)
        else:
            share = measure_share(case_of(self.device, 2, self.steps), self.rank)
            shares: list[Any] = [None, None]
            dist.all_gather_object(shares, share, group=self.host)
            self.rows[way] = combined(shares)
        if self.rank == 0:
            print(f"70B's shape, {way}, {time.monotonic() - since:.0f} s:", shown(self.rows[way]), flush=True)
            if "one GPU" in self.rows:
                alone = self.rows["one GPU"]["tokens_per_s"]
                ratios = {key: round(row["tokens_per_s"] / alone, 3) for key, row in self.rows.items()}
                print(f"70B's shape, times one GPU: {ratios}", flush=True)


def shown(row: Any) -> str:
    keys = ("tokens_per_s", "tokens_per_s_quartiles", "step_s", "tokens_per_step", "quickest_waits",
            "peak_allocated_gib", "peak_reserved_gib", "planned_gib", "plan_error", "loss")  # fmt: skip
    return json.dumps({key: row[key] for key in keys if key in row})
