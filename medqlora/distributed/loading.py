"""Loads the model of a backend where a strategy needs it: on one device, on the host, or sharded over processes."""

from collections.abc import Callable

import torch
from lightning.pytorch.strategies import Strategy
from torch import nn

from medqlora.distributed.processes import ShardedBaseStrategy
from medqlora.errors import InputError
from medqlora.models.host_weights import to_host
from medqlora.models.sharded import ShardedBase, share_base
from medqlora.models.weight_shares import Share, cut_while_loading
from medqlora.training.fit_plan import size
from medqlora.utils.console import say


def load_model(
    load: Callable[[torch.device], nn.Module],
    strategy: Strategy,
    *,
    embedding: str,
    head: str,
    once: Callable[[], bool],
) -> tuple[nn.Module, ShardedBase | None]:
    """Loads the model, and shards its layers where processes share them.

    Args:
        load: the backend's, given the device of the weights.
        strategy: with `ShardedBaseStrategy` the model is sharded.
        embedding, head: "device" or "host".
        once: the backend's `reads_weights_once`. Where it is true, each weight is cut as soon as it is read, and no
            process holds more than its share. Else one process of a machine after another reads the whole base into
            host memory.

    Raises:
        InputError: as the backend's `load`; a weight of this kind can't stay on the host; or the model's layers can't
            be found.
    """
    device = strategy.root_device
    if not isinstance(strategy, ShardedBaseStrategy):
        model = load(device)
        _to_host(model, embedding, head)
        return model, None
    if once():
        with cut_while_loading(strategy.mesh) as shares:
            model = load(device)
        _to_host(model, embedding, head)
        shared = _share(model, strategy, shares)
    else:
        with strategy.turn():
            model = load(torch.device("cpu"))
            _to_host(model, embedding, head, pinned=device.type == "cuda")
        shared = _share(model, strategy, {})
    say(f"Base:    each process keeps {size(shared.share_bytes)} of its layers' {size(shared.total_bytes)}")
    return model, shared


def _share(model: nn.Module, strategy: ShardedBaseStrategy, shares: dict[int, Share]) -> ShardedBase:
    try:
        return share_base(model, strategy.root_device, strategy.mesh, strategy.host, shares)
    except ValueError as error:
        raise InputError(
            f"--trainer.strategy fsdp: this base's layers can't be sharded: {error}: use ddp"
        ) from error


def _to_host(model: nn.Module, embedding: str, head: str, *, pinned: bool = False) -> None:
    on_host = {"embedding": embedding == "host", "head": head == "host"}
    try:
        to_host(model, **on_host, pinned=pinned)
    except TypeError as error:
        options = ", ".join(f"--model.{name} host" for name, wanted in on_host.items() if wanted)
        raise InputError(f"{options}: not possible with this base: {error}: use device") from error
