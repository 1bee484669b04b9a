"""Messages between the processes of a run: one all-reduce a step, and gathered objects. No Lightning."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medqlora.training.flat import FlatOptimizer
from medqlora.utils.distributed_errors import together

T = TypeVar("T")


class AsyncScalar:
    """Copies a scalar to the host asynchronously. Read it one step later, without a device sync."""

    def __init__(self) -> None:
        self._value: Tensor | None = None
        self._arrived: torch.cuda.Event | None = None

    def send(self, value: Tensor) -> None:
        """Starts the copy of `value`, []."""
        if value.device.type != "cuda":
            self._value = value.clone()
            return
        self._value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        self._value.copy_(value, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()

    def read(self) -> float:
        """The scalar of the last `send`, 0 before the first."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return 0.0 if self._value is None else float(self._value)


def sum_over_processes(optimizer: Optimizer, parameters: Sequence[nn.Parameter], extra: Tensor) -> Tensor:
    """Sums the gradients, and `extra`, over all processes in one message.

    Args:
        optimizer: a `FlatOptimizer` has the gradients in one buffer already.
        parameters: the trained parameters.
        extra: [k] float32.

    Returns:
        The sum of `extra`, [k].
    """
    if isinstance(optimizer, FlatOptimizer):
        flat = optimizer.flat
        flat.tail[: len(extra)].copy_(extra)
        with together():
            torch.distributed.all_reduce(flat.message)
        return flat.tail[: len(extra)].clone()
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters
    ]
    message = torch.cat([*(gradient.reshape(-1) for gradient in gradients), extra])
    with together():
        torch.distributed.all_reduce(message)
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, message.split([*sizes, len(extra)]), strict=False):
        parameter.grad = part.view_as(parameter).clone()
    return message[-len(extra) :].clone()


def gather(mine: list[T], world_size: int) -> list[T]:
    """The items of all processes, in every process, in no particular order."""
    if world_size == 1:
        return mine
    parts: list[list[T] | None] = [None] * world_size
    with together():
        torch.distributed.all_gather_object(parts, mine)
    return [item for part in parts if part is not None for item in part]
