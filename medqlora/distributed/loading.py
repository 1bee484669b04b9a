"""Loads the model of a backend where a strategy needs it: on one device, on the host, or sharded over processes."""

from collections.abc import Callable

import torch
from lightning.pytorch.strategies import Strategy
from torch import nn

from medqlora.distributed.processes import ShardedBaseStrategy
from medqlora.errors import InputError
from medqlora.models.host_weights import to_host
from medqlora.models.sharded import ShardedBase, share_base
from medqlora.training.fit_plan import size
from medqlora.utils.console import say


def load_model(
    load: Callable[[torch.device], nn.Module], strategy: Strategy, *, embedding: str, head: str
) -> tuple[nn.Module, ShardedBase | None]:
    """Loads the model, and shards its layers where processes share them.

    Args:
        load: the backend's, given the device of the weights.
        strategy: with `ShardedBaseStrategy` the model is loaded on the host and sharded from there.
        embedding, head: "device" or "host".

    Raises:
        InputError: as the backend's `load`; or a weight of this kind can't stay on the host.
    """
    device = strategy.root_device
    if not isinstance(strategy, ShardedBaseStrategy):
        model = load(device)
        _to_host(model, embedding, head)
        return model, None
    with strategy.turn():
        model = load(torch.device("cpu"))
        _to_host(model, embedding, head, pinned=device.type == "cuda")
        shared = share_base(model, device, strategy.host)
    say(f"Base:    each process keeps {size(shared.share_bytes)} of its layers' {size(shared.total_bytes)}")
    return model, shared


def _to_host(model: nn.Module, embedding: str, head: str, *, pinned: bool = False) -> None:
    on_host = {"embedding": embedding == "host", "head": head == "host"}
    try:
        to_host(model, **on_host, pinned=pinned)
    except TypeError as error:
        options = ", ".join(f"--model.{name} host" for name, wanted in on_host.items() if wanted)
        raise InputError(f"{options}: not possible with this base: {error}: use device") from error
