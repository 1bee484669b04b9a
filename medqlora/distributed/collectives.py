"""Collective operations of a training step, without Lightning."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from medqlora.training.flat import FlatOptimizer
from medqlora.utils.distributed_errors import together


def sum_over_processes(optimizer: Optimizer, parameters: Sequence[nn.Parameter], extra: Tensor) -> Tensor:
    """Sums the gradients and `extra` [k] float32 over all processes, in one all-reduce.

    Args:
        optimizer: of the parameters; a `FlatOptimizer` holds their gradients in one buffer.
        parameters: the trained parameters.
        extra: further values to sum.

    Returns:
        The sum of `extra`.
    """
    flat = getattr(optimizer, "optimizer", optimizer)
    if isinstance(flat, FlatOptimizer):
        flat.flat.tail[: len(extra)].copy_(extra)
        with together():
            torch.distributed.all_reduce(flat.flat.message)
        return flat.flat.tail[: len(extra)].clone()
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters
    ]
    buffer = torch.cat([*(gradient.reshape(-1) for gradient in gradients), extra])
    with together():
        torch.distributed.all_reduce(buffer)
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, buffer.split([*sizes, len(extra)]), strict=False):
        parameter.grad = part.view_as(parameter).clone()
    return buffer[-len(extra) :].clone()
