"""From a backend to the model that is run: where its weights go, on one device or spread over several processes."""

from collections.abc import Callable
from typing import Any

import torch

from medqlora.distributed.processes import ShardedBaseStrategy
from medqlora.errors import InputError
from medqlora.models.host_weights import to_host
from medqlora.models.sharded import ShardedBase, share_base
from medqlora.training.fit_plan import size
from medqlora.utils.console import say


def load_model(
    load: Callable[[torch.device], Any], strategy: Any, *, embedding: str, head: str
) -> tuple[Any, ShardedBase | None]:
    """The model, and its layers where the processes share them.

    Args:
        load: the backend's, given the device that the weights are to go to.
        strategy: the Trainer's; with `ShardedBaseStrategy` the model is loaded on the host, and shared out from there.
        embedding, head: "device" or "host".

    Raises:
        InputError: as the backend's `load`; or what is to stay on the host is of a kind that can't.
    """
    device = strategy.root_device
    one = strategy if isinstance(strategy, ShardedBaseStrategy) else None
    if one is None:
        model = load(device)
        _to_host(model, embedding, head)
        return model, None
    with one.turn():
        model = load(torch.device("cpu"))
        _to_host(model, embedding, head, pinned=device.type == "cuda")
        shared = share_base(model, device, one.host)
    say(f"Base:    each process keeps {size(shared.share_bytes)} of its layers' {size(shared.total_bytes)}")
    return model, shared


def _to_host(model: Any, embedding: str, head: str, *, pinned: bool = False) -> None:
    places = {"embedding": embedding == "host", "head": head == "host"}
    try:
        to_host(model, **places, pinned=pinned)
    except TypeError as error:
        asked = ", ".join(f"--model.{name} host" for name, wanted in places.items() if wanted)
        raise InputError(f"{asked}: not possible with this base: its own is a {error}: use device") from error
