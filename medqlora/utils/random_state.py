"""The state of a process's random generators: saved and restored."""

import random
from typing import TypedDict

import torch
from torch import Tensor


class RandomState(TypedDict, total=False):
    """States of Python's and torch's generators; `cuda` where the device is a GPU."""

    python: tuple[int, tuple[int, ...], float | None]
    torch: Tensor
    cuda: Tensor


def random_state(device: torch.device) -> RandomState:
    """Reads the states, as plain values and tensors."""
    state: RandomState = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: RandomState) -> None:
    """Sets the generators to the states of `random_state`, of this process or an earlier one."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
