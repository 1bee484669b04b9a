"""What a checkpoint says beside the weights: which run it is of, and where its random numbers stand."""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from medqlora.errors import InputError
from medqlora.models import Backend, LoRA
from medqlora.utils.random_state import random_state

#: where it stands in the checkpoint's dictionary
KEY = "medqlora"
#: the name in a run's definition of the digest of its training examples
TRAINED_ON = "the training examples"


def describe(backend: Backend, lora: LoRA, device: torch.device) -> dict[str, Any]:
    """What `check` and `random_state.restore_random_state` read when the run is resumed; plain values and tensors."""
    return {
        "base": backend.base,
        "base_identity": backend.identity(),
        "lora": {**vars(lora)},
        "random_state": random_state(device),
    }


def check(checkpoint: Mapping[str, Any], backend: Backend, lora: LoRA, *, anyway: bool = False) -> None:
    """Raises InputError when `checkpoint` is of another base or of other adapters.

    Args:
        checkpoint: as it was read.
        backend, lora: the run's own.
        anyway: let differ what doesn't change the adapters' shapes.
    """
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
        if now != value and name != "dropout" and not (anyway and name not in _SHAPES):
            raise InputError(
                f"--model.lora.{name} is {now}, but the checkpoint was trained with {value}: pass that"
            )


#: what decides the adapters' names and shapes
_SHAPES = ("r", "target_modules", "use_dora")
#: data module → the digests of what it read, which takes a while with a large set
_digests: WeakKeyDictionary[Any, dict[str, str]] = WeakKeyDictionary()


def definition(module: Any, data: Any, precision: str) -> dict[str, Any]:
    """What decides the course of a run, as named plain values; memory knobs and the run's length are none of it.

    Args:
        module: the QLoRAModule, with its options as attributes.
        data: its datamodule, the training set read.
        precision: the Trainer's.
    """
    source = {key: value for key, value in data.source.fingerprint().items() if key != "files"}
    paths = data.source.fingerprint().get("files", {})
    # a file that was moved is the same one: the digests tell
    kept = {key: value for key, value in source.items() if not (isinstance(value, str) and value in paths)}
    return {
        "--model.backend.base": module.backend.identity(),
        "--data.source": data.source.name,
        **{f"--data.source.{key}": value for key, value in kept.items() if key != "source"},
        "--data.prompt": data.prompt_name,
        "--data.max_prompt_tokens": data.max_prompt_tokens,
        "--data.batch_size": data.batch_size,
        "--data.train_samples": data.train_samples,
        "--data.seed": data.seed,
        **_read(data),
        "--model.optimizer": _optimizer(module.optimizer),
        **{
            f"--model.{name}": getattr(module, name)
            for name in ("learning_rate", "weight_decay", "warmup_ratio", "max_grad_norm")
        },
        **{f"--model.lora.{name}": value for name, value in vars(module.lora).items()},
        "--trainer.precision": precision,
    }


def check_definition(saved: Mapping[str, Any], now: Mapping[str, Any], *, anyway: bool) -> list[str]:
    """Compares the values that define the run.

    Args:
        saved: the checkpoint's part of this project.
        now: as `definition` gives them.
        anyway: whether to go on with other values.

    Returns:
        The differences, a piece of a line each; none for a checkpoint from before they were kept.

    Raises:
        InputError: there are some, and nothing said to go on; or of another optimizer, whose state can't be used.
    """
    before = saved.get("definition")
    if before is None:
        return []
    different = [
        f"{name} {_shown(now.get(name))} (the checkpoint: {_shown(before.get(name))})"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    options = [one for one in different if one.startswith("--")]
    if any(one.startswith("--data") for one in options):
        different = options  # other data follow from them
    if before.get("--model.optimizer") != now.get("--model.optimizer"):
        raise InputError(
            f"--ckpt_path: the run was made with other values: {'; '.join(different)}: another optimizer can't go "
            "on with its state: pass the checkpoint's values, or leave --ckpt_path out"
        )
    if different and not anyway:
        raise InputError(
            f"--ckpt_path: the run was made with other values: {'; '.join(different)}: pass the checkpoint's, or "
            "--resume_anyway true to go on with these"
        )
    return different


def adopt_rates(checkpoint: dict[str, Any], learning_rate: float, weight_decay: float) -> None:
    """Puts the run's own rates into the optimizer's and the scheduler's states, which would bring theirs.

    Where they are the same nothing is touched, not by a bit. A factory's optimizer keeps its own weight decay.
    """
    definition = checkpoint[KEY].get("definition") or {}
    old = definition.get("--model.learning_rate", learning_rate)
    groups = [group for state in checkpoint["optimizer_states"] for group in state.get("param_groups", ())]
    if old != learning_rate:
        for group in groups:
            group["lr"] = group["lr"] * (learning_rate / old) if old else learning_rate
            group["initial_lr"] = learning_rate
        for state in checkpoint["lr_schedulers"]:
            state["base_lrs"] = [learning_rate for _ in state["base_lrs"]]
    if definition.get("--model.weight_decay", weight_decay) != weight_decay:
        for group in groups:
            group["weight_decay"] = weight_decay


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _read(data: Any) -> dict[str, str]:
    """Digests of the training set and the dev set as they go through the model, in their order."""
    if data not in _digests:
        _digests[data] = {
            TRAINED_ON: _digest(data.train),
            "the validation questions": _digest(data.dev),
        }
    return _digests[data]


def forget(data: Any) -> None:
    """Has `definition` compute the digests of `data` anew: it reads its training set again."""
    _digests.pop(data, None)


def _digest(examples: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for example in examples:
        for part in (example.id.encode(), example.prompt, example.completion):
            found.update(struct.pack("<q", len(part)))
            found.update(part if isinstance(part, bytes) else struct.pack(f"<{len(part)}q", *part))
    return found.hexdigest()[:32]


def _optimizer(optimizer: Any) -> str:
    """Its name; of a `class_path`, the class and its own settings, without the rate, which is the run's."""
    if isinstance(optimizer, str):
        return optimizer
    built = optimizer([nn.Parameter(torch.zeros(1))])
    settings = {key: value for key, value in sorted(built.defaults.items()) if key != "lr"}
    return f"{type(built).__module__}.{type(built).__qualname__} {settings}"


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
