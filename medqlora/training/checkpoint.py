"""What a checkpoint says beside the weights: which run it is of, and where its random numbers stand."""

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medqlora.errors import InputError
from medqlora.models import Backend, LoRA

#: where it stands in the checkpoint's dictionary
KEY = "medqlora"


def describe(backend: Backend, lora: LoRA, device: torch.device) -> dict[str, Any]:
    """What `check` and `restore_random_state` read when the run is resumed; plain values and tensors."""
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return {
        "base": backend.base,
        "base_identity": backend.identity(),
        "lora": {**vars(lora)},
        "random_state": state,
    }


def check(checkpoint: Mapping[str, Any], backend: Backend, lora: LoRA) -> None:
    """Raises InputError when `checkpoint` is of another base or of other adapters."""
    saved = checkpoint.get(KEY)
    if saved is None:
        raise InputError(
            "--ckpt_path: this checkpoint was not written by medqlora: give a .ckpt of a run's checkpoints/ folder"
        )
    if saved["base_identity"] != backend.identity():
        raise InputError(
            f"--ckpt_path: this checkpoint was trained on the base '{saved['base']}', not on "
            f"'{backend.base}': pass that base as --model.backend.base, or another checkpoint"
        )
    for name, value in saved["lora"].items():
        now = getattr(lora, name)
        if now != value and name != "dropout":
            raise InputError(
                f"--model.lora.{name} is {now}, but the checkpoint was trained with {value}: pass that"
            )


def copy_weights(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Copies an adapter's weights, all of them and nothing else.

    Raises:
        InputError: the names or shapes differ.
    """
    different = sorted(own.keys() ^ saved.keys()) or sorted(
        name for name in own if own[name].shape != saved[name].shape
    )
    if different:
        raise InputError(
            f"--ckpt_path: the checkpoint's adapters are not this model's ({len(different)} differ, the first "
            f"is {different[0]}): pass the --model options that it was trained with"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(saved[name])


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Puts Python's and torch's generators where they stood when the checkpoint was written."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
