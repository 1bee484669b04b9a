"""The content of a checkpoint beside the weights: the run that it belongs to, and the state of its random numbers."""

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from medqlora.artifacts.validated import ValidationRecord
from medqlora.config.data import DataOptions
from medqlora.config.lora import LoRAOptions
from medqlora.config.model import StepOptions
from medqlora.data import Source
from medqlora.errors import InputError
from medqlora.models import Backend
from medqlora.records import Encoded
from medqlora.utils.cache import quoted_base
from medqlora.utils.random_state import RandomState, random_state

#: the key of this project's part in the checkpoint's dictionary
KEY = "medqlora"
#: the key of the training examples' digest in a definition
TRAINED_ON = "the training examples"
_VALIDATED_ON = "the validation questions"
#: the LoRA options that decide the adapter's tensor names and shapes
_SHAPES = ("r", "target_modules", "use_dora")

#: makes an optimizer of the parameters
OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], Optimizer]
#: makes the schedule of an optimizer's learning rate
SchedulerFactory: TypeAlias = Callable[[Optimizer], LRScheduler]
#: how long the texts of a validation may be, where its scores come from them
GENERATED_TOKENS = "--model.max_new_tokens"
_SCHEDULER = "--model.lr_scheduler"


class CheckpointRecord(TypedDict, total=False):
    """This project's part of a checkpoint, under `KEY`: plain values and tensors.

    Attributes:
        base: the base model as the user named it.
        base_identity: identifies the base model.
        lora: the fields of `LoRAOptions`.
        random_state: see `medqlora.utils.random_state`.
        definition: see `checkpoint_definition`.
        skipped_steps: the steps that fp16's scaler left out.
        validation: the scores of these weights; empty where they were not validated.
    """

    base: str
    base_identity: str
    lora: dict[str, object]
    random_state: RandomState
    definition: dict[str, object]
    skipped_steps: int
    validation: ValidationRecord


@dataclass(frozen=True)
class ExampleDigests:
    """Digests of the examples as they go through the model, in their order: 32 hexadecimal digits each."""

    train: str
    validation: str

    @classmethod
    def of(cls, train: Iterable[Encoded], dev: Iterable[Encoded]) -> "ExampleDigests":
        """Takes a while for a large set: compute them once."""
        return cls(_digest(train), _digest(dev))


def describe(backend: Backend, lora: LoRAOptions, device: torch.device) -> CheckpointRecord:
    """The part of the record that `check` and `restore_random_state` read when the run is resumed."""
    return {
        "base": backend.base,
        "base_identity": backend.identity(),
        "lora": asdict(lora),
        "random_state": random_state(device),
    }


def record_of(checkpoint: Mapping[str, object]) -> CheckpointRecord:
    """This project's part of a checkpoint.

    Raises:
        InputError: another program wrote the checkpoint.
    """
    record = checkpoint.get(KEY)
    if not isinstance(record, dict):
        raise InputError(
            "--ckpt_path: this checkpoint was not written by medqlora: give a .ckpt of a run's checkpoints/ folder"
        )
    return cast(CheckpointRecord, record)


def check(
    checkpoint: Mapping[str, object], backend: Backend, lora: LoRAOptions, *, anyway: bool = False
) -> None:
    """Compares a checkpoint with the run's base model and adapters.

    Args:
        checkpoint: as it was read.
        backend, lora: the run's own.
        anyway: accept other LoRA options where they don't change the tensors' shapes.

    Raises:
        InputError: the checkpoint has another base model or other adapters.
    """
    saved = record_of(checkpoint)
    if saved["base_identity"] != backend.identity():
        raise InputError(
            f"--ckpt_path: this checkpoint was trained on {quoted_base(saved['base'])}, not on "
            f"{quoted_base(backend.base)}: pass that base as --model.backend.base, or another checkpoint"
        )
    for name, value in saved["lora"].items():
        current = getattr(lora, name)
        if current != value and name != "dropout" and not (anyway and name not in _SHAPES):
            raise InputError(
                f"--model.lora.{name} is {current}, but the checkpoint was trained with {value}: pass that"
            )


def checkpoint_definition(
    *,
    base_identity: str,
    source: Source,
    data: DataOptions,
    step: StepOptions,
    optimizer: str | OptimizerFactory,
    scheduler: str | SchedulerFactory = "cosine",
    lora: LoRAOptions,
    digests: ExampleDigests,
    precision: str,
    stages: Sequence[Mapping[str, object]] = (),
    generated_tokens: int | None = None,
) -> dict[str, object]:
    """The values that decide the course of a run; options for memory and the run's length are not among them.

    Args:
        base_identity: the base model's.
        source: the training data's.
        data, step, lora: the run's options.
        optimizer: a name, or the factory of a `class_path`.
        scheduler: as optimizer, of the learning rate.
        digests: of the encoded examples.
        precision: the Trainer's.
        stages: what defines each stage of a training in stages.
        generated_tokens: length limit of the texts that the validation's scores come from; None without texts.
    """
    fingerprint = dict(source.fingerprint())
    files = fingerprint.pop("files", {})
    paths = files if isinstance(files, Mapping) else {}
    kept = {
        key: value
        for key, value in fingerprint.items()
        # a moved file stays the same file: the digests of the examples decide
        if key != "source" and not (isinstance(value, str) and value in paths)
    }
    return {
        "--model.backend.base": base_identity,
        "--data.source": source.name,
        **{f"--data.source.{key}": value for key, value in kept.items()},
        "--data.prompt": data.prompt,
        "--data.max_prompt_tokens": data.max_prompt_tokens,
        "--data.batch_size": data.batch_size,
        "--data.train_samples": data.train_samples,
        "--data.validation_samples": data.validation_samples,
        "--data.seed": data.seed,
        TRAINED_ON: digests.train,
        _VALIDATED_ON: digests.validation,
        "--model.optimizer": _optimizer(optimizer),
        "--model.learning_rate": step.learning_rate,
        _SCHEDULER: _scheduler(scheduler),
        "--model.weight_decay": step.weight_decay,
        "--model.warmup_ratio": step.warmup_ratio,
        "--model.max_grad_norm": step.max_grad_norm,
        **{f"--model.lora.{name}": value for name, value in asdict(lora).items()},
        "--trainer.precision": precision,
        **_if_not_default(data, step),
        **({"--data.stages": [dict(stage) for stage in stages]} if stages else {}),
        **({} if generated_tokens is None else {GENERATED_TOKENS: generated_tokens}),
    }


def _if_not_default(data: DataOptions, step: StepOptions) -> dict[str, object]:
    """Options that older checkpoints lack: they are named where they change something."""
    changed: dict[str, object] = {"--data.topics": list(data.selected_topics)} if data.selected_topics else {}
    of_data = ("balance", "label_smoothing", "stage_schedule", "rationale")
    of_step = ("lora_plus_ratio", "neftune_alpha")
    for name in of_data:
        if getattr(data, name) != getattr(DataOptions(), name):
            changed[f"--data.{name}"] = getattr(data, name)
    for name in of_step:
        if getattr(step, name) != getattr(StepOptions(), name):
            changed[f"--model.{name}"] = getattr(step, name)
    return changed


def check_definition(saved: CheckpointRecord, now: Mapping[str, object], *, anyway: bool) -> list[str]:
    """Compares the checkpoint's definition with the run's.

    Args:
        saved: the checkpoint's record.
        now: the run's, see `checkpoint_definition`.
        anyway: accept other values.

    Returns:
        The differences, a part of a line each; none for a checkpoint without a definition, as older ones are.

    Raises:
        InputError: values differ and `anyway` is false; or the optimizer differs, whose state can't be used.
    """
    before = saved.get("definition")
    if before is None:
        return []
    before = {_SCHEDULER: "cosine", **before}  # older checkpoints have no other
    if GENERATED_TOKENS not in before or GENERATED_TOKENS not in now:  # it is compared where both have it
        before = {name: value for name, value in before.items() if name != GENERATED_TOKENS}
        now = {name: value for name, value in now.items() if name != GENERATED_TOKENS}
    different = [
        f"{name} {_shortened(now.get(name))} (the checkpoint: {_shortened(before.get(name))})"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]
    options = [text for text in different if text.startswith("--")]
    if any(text.startswith("--data") for text in options):
        different = options  # other examples follow from them
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


def adopt_rates(checkpoint: Mapping[str, object], learning_rate: float, weight_decay: float) -> None:
    """Replaces the rates in the optimizer's and the scheduler's saved states by the run's own, in place.

    Equal rates are left as they are, to the bit. An optimizer from a factory keeps its own weight decay.
    """
    definition = record_of(checkpoint).get("definition") or {}
    old = _number(definition.get("--model.learning_rate"), learning_rate)
    optimizers = cast("list[dict[str, list[dict[str, float]]]]", checkpoint["optimizer_states"])
    groups = [group for state in optimizers for group in state.get("param_groups", ())]
    if old != learning_rate:
        for group in groups:
            group["lr"] = group["lr"] * (learning_rate / old) if old else learning_rate
            group["initial_lr"] = _scaled(group.get("initial_lr", old), old, learning_rate)
        for schedule in cast("list[dict[str, list[float]]]", checkpoint["lr_schedulers"]):
            schedule["base_lrs"] = [_scaled(rate, old, learning_rate) for rate in schedule["base_lrs"]]
    if definition.get("--model.weight_decay", weight_decay) != weight_decay:
        for group in groups:
            group["weight_decay"] = weight_decay


def _scaled(rate: float, old: float, new: float) -> float:
    """A group's highest rate where the run's changes from `old` to `new`: LoRA+ has a group with a multiple of it."""
    return new if rate == old or not old else rate * (new / old)


def copy_weights(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Copies an adapter's weights into the model's.

    Args:
        saved: the checkpoint's, by parameter name.
        own: the model's; exactly the same names and shapes.

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


def _digest(examples: Iterable[Encoded]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        name = example.id.encode()
        digest.update(struct.pack("<q", len(name)) + name)
        for ids in (example.prompt, example.completion):
            digest.update(struct.pack(f"<q{len(ids)}q", len(ids), *ids))
        for slot in example.images:
            digest.update(f"{slot.image.sha256} {slot.begin} {slot.end}".encode())
    return digest.hexdigest()[:32]


def _optimizer(optimizer: str | OptimizerFactory) -> str:
    """A name; for a factory the class and its own settings, without the learning rate, which is the run's."""
    if isinstance(optimizer, str):
        return optimizer
    built = optimizer([nn.Parameter(torch.zeros(1))])
    settings = {key: value for key, value in sorted(built.defaults.items()) if key != "lr"}
    return f"{type(built).__module__}.{type(built).__qualname__} {settings}"


def _scheduler(scheduler: str | SchedulerFactory) -> str:
    """A name; for a factory the class and its own settings."""
    if isinstance(scheduler, str):
        return scheduler
    built = scheduler(SGD([nn.Parameter(torch.zeros(1))], lr=1.0))
    moving = ("base_lrs", "last_epoch")  # they change with every step
    settings = {
        key: value
        for key, value in sorted(built.state_dict().items())
        if not key.startswith("_") and key not in moving
    }
    return f"{type(built).__module__}.{type(built).__qualname__} {settings}"


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) else default
