"""The options of Lightning's Trainer, under `--trainer.`, and the checks of their values.

Written down here because an import of Lightning takes seconds; a test compares the names and the defaults with the
constructor of the installed Lightning.
"""

from collections.abc import Mapping
from typing import Literal

from medqlora.errors import InputError

Precision = (
    Literal[64, 32, 16]
    | Literal[
        "transformer-engine",
        "transformer-engine-float16",
        "16-true",
        "16-mixed",
        "bf16-true",
        "bf16-mixed",
        "32-true",
        "64-true",
        "64",
        "32",
        "16",
        "bf16",
    ]
    | None
)
Limit = float | int | None

#: the defaults that a run has in place of Lightning's
DEFAULTS: Mapping[str, object] = {
    "num_sanity_val_steps": 0,  # the comparison of packed with single rows checks more
    "enable_model_summary": False,  # it counts the bytes of a 4-bit weight; the start of a run prints the parameters
    "use_distributed_sampler": False,  # the loaders shard by themselves
    "inference_mode": False,  # its tensors would break the next backward
    "log_every_n_steps": 10,
}

#: name → (type, Lightning's default, help)
OPTIONS: Mapping[str, tuple[object, object, str]] = {
    "accelerator": (object, "auto", "cpu, gpu or auto."),
    "strategy": (
        object,
        "auto",
        "with several devices: auto or ddp replicate the base model, fsdp shards its layers.",
    ),
    "devices": (list[int] | str | int, "auto", "number of devices, a list of indices, or auto."),
    "num_nodes": (int, 1, "number of machines."),
    "precision": (
        Precision,
        None,
        "32, bf16-mixed or 16-mixed; null is 32. LoRA weights stay in float32.",
    ),
    "logger": (
        object,
        None,
        "a further logger by class_path; the event files of TensorBoard are always written.",
    ),
    "callbacks": (object, None, "further callbacks by class_path."),
    "fast_dev_run": (
        int | bool,
        False,
        "run so many batches of each stage, without a logger or checkpoints.",
    ),
    "max_epochs": (int | None, None, "passes over the training set; -1 for no limit."),
    "min_epochs": (int | None, None, "train for at least so many epochs."),
    "max_steps": (int, -1, "optimizer steps at most; -1 for no limit."),
    "min_steps": (int | None, None, "train for at least so many steps."),
    "max_time": (object, None, "stop after this time, as DD:HH:MM:SS."),
    "limit_train_batches": (
        Limit,
        None,
        "number (int) or share (float) of the training batches of an epoch.",
    ),
    "limit_val_batches": (Limit, None, "number or share of the validation batches."),
    "limit_test_batches": (Limit, None, "number or share of the test batches."),
    "limit_predict_batches": (Limit, None, "number or share of the batches of predict."),
    "overfit_batches": (
        int | float,
        0.0,
        "train and validate on this number or share of the training batches.",
    ),
    "val_check_interval": (
        object,
        None,
        "validate within an epoch: 0.5 for twice, or every so many steps.",
    ),
    "check_val_every_n_epoch": (int | None, 1, "validate after every n-th epoch."),
    "num_sanity_val_steps": (int | None, None, "validation batches to run before the training."),
    "log_every_n_steps": (int | None, None, "steps between two readings of the losses from the device."),
    "enable_checkpointing": (bool | None, None, "write checkpoints; a run needs them."),
    "enable_progress_bar": (bool | None, None, "show the progress bar."),
    "enable_model_summary": (bool | None, None, "print Lightning's table of the layers."),
    "accumulate_grad_batches": (int, 1, "without effect: data.batch_size is the size of a step."),
    "gradient_clip_val": (Limit, None, "without effect: use model.max_grad_norm."),
    "gradient_clip_algorithm": (str | None, None, "without effect, as gradient_clip_val."),
    "deterministic": (
        bool | Literal["warn"] | None,
        None,
        "use deterministic algorithms of torch, or warn without.",
    ),
    "benchmark": (bool | None, None, "let cuDNN search for its fastest algorithm."),
    "inference_mode": (bool, True, "evaluate in torch's inference mode instead of no_grad."),
    "use_distributed_sampler": (bool, True, "let Lightning shard the loaders."),
    "profiler": (object, None, "simple, advanced, pytorch, or a profiler by class_path."),
    "detect_anomaly": (bool, False, "let autograd search for the operation that made a NaN."),
    "barebones": (bool, False, "switch off logger, checkpoints and bar; a run needs them."),
    "plugins": (object, None, "plugins of Lightning by class_path."),
    "sync_batchnorm": (bool, False, "synchronize batch normalization over processes."),
    "reload_dataloaders_every_n_epochs": (int, 0, "build the loaders again after so many epochs."),
    "default_root_dir": (object, None, "folder in which lightning_logs lies; null is the working folder."),
    "enable_autolog_hparams": (bool, True, "log the hyperparameters at the start."),
    "model_registry": (str | None, None, "name of the model in Lightning's registry."),
}
#: options that take a class or a list of them; the others of type `object` take text too
CLASS_LISTS = ("logger", "callbacks", "plugins")

_REQUIRED_ON = {
    "logger": "a run's folder is where its logger writes",
    "enable_checkpointing": "what a fit leaves is a checkpoint's adapter",
}
#: option → the least value that Lightning can count with; it reports one below it only after the model is loaded
_LEAST = {
    "max_epochs": -1,
    "max_steps": -1,
    "num_nodes": 1,
    "log_every_n_steps": 1,
    "check_val_every_n_epoch": 1,
}
#: Lightning's names of the precisions in which the adapters stay in float32
PRECISIONS = {
    "None": "32-true",
    "32": "32-true",
    "32-true": "32-true",
    "16": "16-mixed",
    "16-mixed": "16-mixed",
    "bf16": "bf16-mixed",
    "bf16-mixed": "bf16-mixed",
}


def check_values(trainer: Mapping[str, object]) -> None:
    """Refuses what a run needs to be on, and numbers that can't be.

    Args:
        trainer: option → value; those left out are not looked at.

    Raises:
        InputError: names the option and the reason.
    """
    if trainer.get("barebones") is True:
        raise InputError("--trainer.barebones true: it leaves out what a run is for: leave it out")
    for name, why in _REQUIRED_ON.items():
        if trainer.get(name) is False and not trainer.get("fast_dev_run"):
            raise InputError(f"--trainer.{name} false: {why}: leave it out")
    for name, least in _LEAST.items():
        value = trainer.get(name)
        if isinstance(value, int) and value < least:
            raise InputError(f"--trainer.{name} {value}: it has to be at least {least}")
    interval = trainer.get("val_check_interval")
    if isinstance(interval, (int, float)) and interval == 0:
        raise InputError(
            "--trainer.val_check_interval 0: it has to be above 0, or left out for once an epoch"
        )


def check_precision(precision: str) -> None:
    """Raises InputError for a precision in which the adapters would not stay in float32."""
    if precision not in PRECISIONS:
        raise InputError(
            f"--trainer.precision {precision}: the adapters are kept in float32: use bf16-mixed, 16-mixed or 32"
        )


def check_strategy_name(name: str) -> None:
    """Raises InputError for a strategy that shards parameters in a way that a 4-bit weight can't be sharded."""
    plain = name.lower()
    if plain != "fsdp" and any(word in plain for word in ("fsdp", "deepspeed", "modelparallel")):
        raise InputError(
            f"--trainer.strategy {name}: it shards parameters, and a 4-bit weight would lose its scales: use fsdp, "
            "which here shards the packed base with torch's FSDP2"
        )


def check_seed(seed: object) -> None:
    """Raises InputError for a seed that NumPy doesn't take."""
    if isinstance(seed, int) and not 0 <= seed < 2**32:
        raise InputError(f"--seed_everything {seed}: it has to be from 0 to {2**32 - 1}")
