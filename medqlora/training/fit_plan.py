"""What a fit with these options will hold in memory, and what is chosen for it where an option is "auto"."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from medqlora.data.batching.budget import DEFAULT_TOKENS
from medqlora.models.targets import projections
from medqlora.planner import Plan, Setting, Shape, Work, fill, plan, with_budget
from medqlora.planner.fitting import RESERVE
from medqlora.planner.memory import GIB
from medqlora.utils.console import say


class FitPlan(NamedTuple):
    """A fit before it is begun.

    Attributes:
        micro_batch_tokens: the budget, as given or chosen.
        setting: what it is planned with.
        plan: bytes by phase and part.
        memory: what it was to fit in, in bytes; None where nothing was chosen by it.
        work: what goes through the model.
    """

    micro_batch_tokens: int
    setting: Setting
    plan: Plan
    memory: int | None
    work: Work

    def summary(self) -> str:
        """One line."""
        phases = ", ".join(f"{name} {size(self.plan.total(name))}" for name in self.plan.phases)
        room = "" if self.memory is None else f" of {size(self.memory)} free"
        again = self.setting.checkpointing
        kept = f"{again} layers compute again" if isinstance(again, int) else f"checkpointing {again}"
        if self.setting.cached:
            kept += ", weights kept dequantized"
        return (
            f"Plan: {size(self.plan.peak)}{room} ({phases}); micro-batches of at most "
            f"{self.micro_batch_tokens} tokens, {kept}"
        )


def plan_fit(
    module: Any,
    data: Any,
    shape: Shape,
    lengths: Sequence[tuple[int, int]],
    *,
    fused: bool,
    width: int,
    memory: int | None,
    devices: int = 1,
    spread: bool = False,
) -> FitPlan:
    """The plan of a fit, what is "auto" chosen by the memory that there is.

    Args:
        module, data: a QLoRAModule and its data, for their options alone.
        shape: of the base.
        lengths: (prompt, completion) of each training example, in tokens.
        fused: whether the fused engine will run it.
        width: bytes of what is multiplied.
        memory: that torch may allocate in all, in bytes; None takes the options' careful readings.
        devices: GPUs that share each step.
        spread: whether they share one base too; else each has its own.
    """
    work = Work(lengths, data.batch_size, data.eval_batch_size if module.generate else 0, data.seed, devices)
    asked = getattr(module.backend, "gradient_checkpointing", False)
    checkpointing: Any = "offload" if asked == "unsloth" else "full" if asked else "none"
    if fused and module.checkpointing != "auto":
        checkpointing = module.checkpointing
    setting = Setting(
        quantization=getattr(module.backend, "quantization", "nf4"),
        double_quantization=getattr(module.backend, "double_quantization", True),
        width=width,
        r=module.lora.r,
        targets=projections(module.lora.target_modules),
        optimizer=module.optimizer if isinstance(module.optimizer, str) else "adamw",
        engine="fused" if fused else "native",
        checkpointing=checkpointing,
        embedding=module.embedding,
        head=module.head,
        cached=shape.layers if fused and module.weights == "cached" else 0,
        new_tokens=module.max_new_tokens,
        shares=devices if spread else 1,
    )
    budget = None if data.micro_batch_tokens == "auto" else data.micro_batch_tokens
    if memory is None:
        budget = budget or DEFAULT_TOKENS
        setting = with_budget(setting, work, budget)
    else:
        budget, setting = fill(
            shape,
            setting,
            work,
            memory,
            micro_batch_tokens=budget,
            checkpointing=fused and module.checkpointing == "auto",
            weights=fused and module.weights == "auto" and not spread,
        )
    return FitPlan(budget, setting, plan(shape, setting), memory, work)


def settle_fit(
    module: Any,
    data: Any,
    *,
    fused: bool,
    width: int,
    memory: int | None,
    devices: int = 1,
    spread: bool = False,
) -> FitPlan | None:
    """Plans, says it in a line, and puts a number in the place of an "auto" `data.micro_batch_tokens`.

    None, and nothing said, where the base isn't a Llama-like decoder, whose memory can't be told.
    """
    lengths = [(len(one.prompt), len(one.completion)) for one in data.train]
    try:
        shape = Shape.of(module.backend.config())
    except AttributeError:
        return None
    found = plan_fit(
        module,
        data,
        shape,
        lengths,
        fused=fused,
        width=width,
        memory=memory,
        devices=devices,
        spread=spread,
    )
    data.budget.settle(found.micro_batch_tokens)
    say(found.summary())
    return found


def usable_memory(device: torch.device) -> int | None:
    """Bytes that torch may allocate on a GPU, others' and a reserve left out; None on a CPU."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - RESERVE * total)


def size(value: float) -> str:
    """Bytes as text."""
    return f"{value / GIB:.2f} GiB" if value >= GIB / 10 else f"{value / 2**20:.1f} MiB"
