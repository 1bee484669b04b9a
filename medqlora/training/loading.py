"""From a backend to the model that is run: where its weights go, on one device or spread over several processes."""

from collections.abc import Callable
from typing import Any

import torch

from medqlora.console import say
from medqlora.models.host_weights import to_host
from medqlora.models.sharded import SharedBase, share_base
from medqlora.training.fit_plan import size
from medqlora.training.processes import OneBase


def load_model(
    load: Callable[[torch.device], Any], strategy: Any, *, embedding: str, head: str
) -> tuple[Any, SharedBase | None]:
    """The model, and its layers where the processes share them.

    Args:
        load: the backend's, given the device that the weights are to go to.
        strategy: the Trainer's; with `OneBase` the model is loaded on the host, and shared out from there.
        embedding, head: "device" or "host".

    Raises:
        InputError: as the backend's `load`.
    """
    device = strategy.root_device
    places = {"embedding": embedding == "host", "head": head == "host"}
    one = strategy if isinstance(strategy, OneBase) else None
    if one is None:
        model = load(device)
        to_host(model, **places)
        return model, None
    with one.turn():
        model = load(torch.device("cpu"))
        to_host(model, **places, pinned=device.type == "cuda")
        shared = share_base(model, device, one.host)
    say(f"Base:    each process keeps {size(shared.share_bytes)} of its layers' {size(shared.total_bytes)}")
    return model, shared
