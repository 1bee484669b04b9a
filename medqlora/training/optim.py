"""The optimizers by name, and the learning rate over a run."""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medqlora.errors import InputError
from medqlora.models.quantization import import_bitsandbytes
from medqlora.training.flat import FlatOptimizer, FlatWeights
from medqlora.training.optimizer_names import FLAT_OPTIMIZERS, NamedOptimizer, optimizer_class

#: 8-bit state: Dettmers et al., 2022, https://arxiv.org/abs/2110.02861; "paged" moves it to the host
#: when the GPU is full
OptimizerName = Literal["adamw_8bit", "paged_adamw_8bit", "adamw"]
#: what a `class_path` in a configuration becomes
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]


def check_optimizer(optimizer: str | type[Optimizer], weight_decay: float) -> None:
    """Refuses an optimizer that can't be used, before a model is loaded.

    Args:
        optimizer: a name, or the class of a `class_path`.
        weight_decay: `--model.weight_decay`.

    Raises:
        InputError: it computes the loss by itself, several times a step; or it doesn't take the weight decay.
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
            f"--model.optimizer {kind.__module__}.{kind.__qualname__}: it asks for the loss again within a step, and "
            "gradients are added up before it here: use adamw_8bit, or another that doesn't"
        )


def build_optimizer(
    optimizer: str | OptimizerFactory,
    named: Sequence[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
) -> Optimizer:
    """The optimizer over the parameters of `named`, (name, parameter) each.

    A name is one of `training.optimizer_names`.

    The optimizers by name run on all weights as one buffer, which the parameters become views of
    (`training.flat`). A factory (from a `class_path`) is given the parameters as they are, for it may treat each
    as a whole, and brings its own settings; the learning rate is `learning_rate` for all, so that one option
    means the same everywhere.
    """
    if callable(optimizer):
        built = optimizer([parameter for _, parameter in named])
        for group in built.param_groups:
            group["lr"] = learning_rate
        return built
    name = NamedOptimizer(optimizer)
    if name not in FLAT_OPTIMIZERS:
        chosen = optimizer_class(name)
        settings: dict[str, Any] = {"lr": learning_rate}
        if "weight_decay" in inspect.signature(chosen).parameters:
            settings["weight_decay"] = weight_decay
        return chosen([parameter for _, parameter in named], **settings)

    def build(parts: list[Tensor]) -> Optimizer:
        if name == "adamw":
            from torch.optim import AdamW

            return AdamW(parts, lr=learning_rate, weight_decay=weight_decay)
        optimizers = import_bitsandbytes().optim
        kind = optimizers.PagedAdamW8bit if name == "paged_adamw_8bit" else optimizers.AdamW8bit
        return kind(parts, lr=learning_rate, weight_decay=weight_decay)

    return FlatOptimizer(FlatWeights(named), build)


def warmup_cosine(optimizer: Optimizer, *, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Linear from 0 to the full rate over `warmup_steps`, then half a cosine down to 0 at `total_steps`.

    Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983, one cycle.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)  # the first step is not wasted at a rate of 0
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return LambdaLR(optimizer, factor)
