"""The optimizer by name or factory, and the schedule of the learning rate."""

import inspect
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from medqlora.artifacts.checkpoint import OptimizerFactory, SchedulerFactory
from medqlora.config.optimizers import SCHEDULERS, class_path
from medqlora.errors import InputError
from medqlora.models.quantization import import_bitsandbytes
from medqlora.training.flat import FlatOptimizer, FlatWeights
from medqlora.training.optimizer_names import FLAT_OPTIMIZERS, NamedOptimizer, optimizer_class

#: 8-bit state: Dettmers et al., 2022, https://arxiv.org/abs/2110.02861; "paged" moves it to host memory when the GPU
#: is full
OptimizerName = Literal["adamw_8bit", "paged_adamw_8bit", "adamw"]
#: those of `SCHEDULERS`
SchedulerName = Literal["cosine", "linear", "constant"]


def check_optimizer(optimizer: str | type[Optimizer], weight_decay: float) -> None:
    """Refuses an unusable optimizer, before a model is loaded.

    Args:
        optimizer: a name, or the class of a `class_path`.
        weight_decay: `--model.weight_decay`.

    Raises:
        InputError: it evaluates the loss itself, several times a step; or it does not take the weight decay.
    """
    name = NamedOptimizer(optimizer) if isinstance(optimizer, str) else None
    if name in FLAT_OPTIMIZERS:
        return
    kind = optimizer if isinstance(optimizer, type) else optimizer_class(NamedOptimizer(optimizer))
    if weight_decay and (name is None or "weight_decay" not in inspect.signature(kind).parameters):
        own = "write --model.optimizer.weight_decay" if name is None else "leave it out"
        raise InputError(
            f"--model.weight_decay {weight_decay:g}: {kind.__module__}.{kind.__qualname__} does not take it: {own}"
        )
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise InputError(
            f"--model.optimizer {kind.__module__}.{kind.__qualname__}: it evaluates the loss again within a step, and "
            "gradients are summed before it here: use adamw_8bit, or another that does not"
        )


def build_optimizer(
    optimizer: str | OptimizerFactory,
    named: Sequence[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
    lora_plus_ratio: float = 1.0,
) -> Optimizer:
    """Makes the optimizer.

    adamw, adamw_8bit and paged_adamw_8bit run on one buffer of all weights (`training.flat`). Other optimizers get the
    parameters one by one, since they may treat each as a whole. A factory keeps its own settings; the learning rate
    is `learning_rate` for all.

    Args:
        optimizer: a name of `training.optimizer_names`, or a factory from a `class_path`.
        named: (name, parameter) of the trained parameters.
        learning_rate: highest rate of the schedule.
        weight_decay: of optimizers by name that take it.
        lora_plus_ratio: rate of LoRA's B over that of all others. With another than 1 every optimizer gets its
            parameters one by one, in two groups (Hayou et al., 2024, https://arxiv.org/abs/2402.12354).

    Raises:
        InputError: a factory with another ratio than 1.
    """
    if lora_plus_ratio != 1:
        return _lora_plus(optimizer, named, learning_rate, weight_decay, lora_plus_ratio)
    if callable(optimizer):
        built = optimizer([parameter for _, parameter in named])
        for group in built.param_groups:
            group["lr"] = learning_rate
        return built
    name = NamedOptimizer(optimizer)
    if name not in FLAT_OPTIMIZERS:
        chosen = optimizer_class(name)
        settings = {"lr": learning_rate}
        if "weight_decay" in inspect.signature(chosen).parameters:
            settings["weight_decay"] = weight_decay
        return chosen([parameter for _, parameter in named], **settings)  # type: ignore[arg-type]

    def build(parts: list[Tensor]) -> Optimizer:
        if name == "adamw":
            from torch.optim import AdamW

            return AdamW(parts, lr=learning_rate, weight_decay=weight_decay)
        optimizers = import_bitsandbytes().optim
        kind = optimizers.PagedAdamW8bit if name == "paged_adamw_8bit" else optimizers.AdamW8bit
        return kind(parts, lr=learning_rate, weight_decay=weight_decay)

    return FlatOptimizer(FlatWeights(named), build)


def _lora_plus(
    optimizer: str | OptimizerFactory,
    named: Sequence[tuple[str, nn.Parameter]],
    learning_rate: float,
    weight_decay: float,
    ratio: float,
) -> Optimizer:
    if callable(optimizer):
        raise InputError(
            f"--model.lora_plus_ratio {ratio:g}: an optimizer by class_path has groups of its own: give a name, as "
            "adamw_8bit"
        )
    name = NamedOptimizer(optimizer)
    module, _, kind = class_path(name).rpartition(".")
    chosen = optimizer_class(name) if name not in FLAT_OPTIMIZERS else getattr(_home(module), kind)
    of_b = [parameter for name, parameter in named if "lora_B" in name]
    others = [parameter for name, parameter in named if "lora_B" not in name]
    groups = [{"params": others, "lr": learning_rate}, {"params": of_b, "lr": learning_rate * ratio}]
    settings = (
        {"weight_decay": weight_decay} if "weight_decay" in inspect.signature(chosen).parameters else {}
    )
    build: Callable[..., Optimizer] = chosen
    return build(groups, lr=learning_rate, **settings)


def _home(module: str) -> ModuleType:
    return import_bitsandbytes().optim if module.startswith("bitsandbytes") else torch.optim


def check_scheduler(scheduler: object) -> None:
    """Raises InputError for a name that no schedule has, and for one that follows a score.

    Args:
        scheduler: a name, a factory, or the class of a `class_path`.
    """
    if isinstance(scheduler, str) and scheduler not in SCHEDULERS:
        raise InputError(
            f"--model.lr_scheduler {scheduler}: choose one of {', '.join(SCHEDULERS)}, or a class_path"
        )
    if isinstance(scheduler, type) and issubclass(scheduler, ReduceLROnPlateau):
        name = f"{scheduler.__module__}.{scheduler.__qualname__}"
        raise InputError(
            f"--model.lr_scheduler {name}: it follows a score, and the rate is set after every step here: use cosine, "
            "linear or constant"
        )


class StageRate(NamedTuple):
    """The steps of a stage, and the factor of the learning rate over them."""

    steps: int
    factor: float


def staged_schedule(
    scheduler: str | SchedulerFactory,
    optimizer: Optimizer,
    stages: Sequence[StageRate],
    *,
    warmup_ratio: float,
    total_steps: int,
    each: bool,
) -> LRScheduler:
    """Makes the schedule of a training in stages.

    Args:
        scheduler: a name of `SCHEDULERS`.
        optimizer: with the full rate.
        stages: in their order; steps after them belong to the last.
        warmup_ratio: share of the schedule's steps over which the rate rises.
        total_steps: of the run.
        each: a schedule for each stage; else one over all of them.

    Raises:
        InputError: the schedule is a class of the user's, which can't be scaled.
    """
    check_scheduler(scheduler)
    if not isinstance(scheduler, str):
        raise InputError(
            "--model.lr_scheduler: a class_path has one course for the whole run, and --data.stages have rates of "
            "their own: use cosine, linear or constant"
        )
    name = scheduler

    def factor(step: int) -> float:
        place, stage = step, stages[-1]
        for stage in stages[:-1]:
            if place < stage.steps:
                break
            place -= stage.steps
        else:
            stage = stages[-1]
        steps = stage.steps if each else total_steps
        return stage.factor * _factor(name, place if each else step, round(steps * warmup_ratio), steps)

    return LambdaLR(optimizer, factor)


def _factor(name: str, step: int, warmup_steps: int, total_steps: int) -> float:
    """The factor of the rate in `step`, of a schedule by name."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)  # a rate above 0 in the first step
    if name == "constant":
        return 1.0
    if name == "linear":
        return max(0, total_steps - step) / max(1, total_steps - warmup_steps)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def build_scheduler(
    scheduler: str | SchedulerFactory, optimizer: Optimizer, *, warmup_steps: int, total_steps: int
) -> LRScheduler:
    """Makes the schedule of the learning rate, which is stepped once an optimizer step.

    Args:
        scheduler: a name of `SCHEDULERS`, or a factory, which decides everything by itself.
        optimizer: with the full rate.
        warmup_steps: the rate rises linearly over them.
        total_steps: of the run; "cosine" and "linear" are 0 there.

    Raises:
        InputError: there is no schedule of this name, or it follows a score.
    """
    if not isinstance(scheduler, str):
        built = scheduler(optimizer)
        check_scheduler(type(built))
        return built
    check_scheduler(scheduler)
    if scheduler == "cosine":
        return warmup_cosine(optimizer, warmup_steps=warmup_steps, total_steps=total_steps)
    name = scheduler
    return LambdaLR(optimizer, lambda step: _factor(name, step, warmup_steps, total_steps))


def warmup_cosine(optimizer: Optimizer, *, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Makes the schedule: linear from 0 to the full rate over `warmup_steps`, then a half cosine to 0 at `total_steps`.

    Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983, one cycle.
    """
    return LambdaLR(optimizer, lambda step: _factor("cosine", step, warmup_steps, total_steps))
