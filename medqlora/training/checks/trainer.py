"""Callbacks and options of Lightning's Trainer that would change what is trained or reported, refused at start.

Both the command line and a user's own Trainer come here, before a model is loaded. A subclass of a refused
callback is refused too.
"""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LambdaCallback,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)

from medqlora.artifacts.validated import validation_scores
from medqlora.errors import InputError

_AVERAGED = (
    "validation would score averaged weights, and checkpoints and the exported adapter hold others: leave it out; "
    "--model.learning_rate already falls to 0 along a cosine, which has the same effect"
)
#: callback → why it is refused, and what to use instead
_REFUSED: tuple[tuple[type[Callback], str], ...] = (
    (StochasticWeightAveraging, _AVERAGED),
    (WeightAveraging, _AVERAGED),
    (
        BatchSizeFinder,
        "--data.batch_size sets the examples of an optimizer step, and with it the result: choose it, and use "
        "--data.micro_batch_tokens auto, which fills the GPU's memory without changing the result",
    ),
    (
        LearningRateFinder,
        "it needs automatic optimization, and each step here is a whole optimizer step of our own: compare a few "
        "values of --model.learning_rate with --trainer.max_steps",
    ),
    (
        GradientAccumulationScheduler,
        "a batch is a whole optimizer step here: use --data.batch_size and --data.micro_batch_tokens",
    ),
    (ModelPruning, "4-bit weights and LoRA adapters can't be pruned: use a smaller --model.lora.r"),
    (
        BaseFinetuning,
        "the base stays frozen in 4 bits, and the adapters alone are trained: leave it out, and name the adapted "
        "layers with --model.lora.target_modules",
    ),
)
#: whose classes log no score of their own
_KNOWN = ("lightning.", "pytorch_lightning.", "medqlora.")


def check_trainer(trainer: Trainer) -> None:
    """Raises InputError for a callback or an option that would silently change what is trained or reported."""
    for callback in _callbacks(trainer):
        check_callback(type(callback))
    _check_limits(trainer)
    if trainer.gradient_clip_val or trainer.accumulate_grad_batches != 1:
        raise InputError(
            "--trainer.gradient_clip_val, --trainer.accumulate_grad_batches: a batch is a whole optimizer step "
            "here: use --model.max_grad_norm, --data.batch_size and --data.micro_batch_tokens"
        )


def check_callback(given: type) -> None:
    """Raises InputError for the class of a callback that is refused, whatever its options."""
    for kind, why in _REFUSED:
        if issubclass(given, kind):
            name = given.__name__ if given is kind else f"{given.__name__} ({kind.__name__})"
            raise InputError(f"--trainer.callbacks {name}: {why}")


def _check_limits(trainer: Any) -> None:
    """What takes the first of the questions: they come by length, the longest first."""
    if trainer.overfit_batches:
        raise InputError(
            f"--trainer.overfit_batches {trainer.overfit_batches}: it would also validate on the longest questions "
            "alone: use --data.train_samples to train on a few examples"
        )
    for name in ("limit_val_batches", "limit_test_batches"):
        value = getattr(trainer, name)  # a whole number is of batches, a fraction is a share
        cut = value > 0 if isinstance(value, int) else 0 < value < 1
        if cut and not trainer.fast_dev_run:
            raise InputError(
                f"--trainer.{name} {value}: questions are asked by length, and a score of the first of them "
                "would be one of the longest or shortest: leave it out"
            )


def check_monitors(trainer: Trainer, module: Any, data: Any) -> None:
    """Raises InputError for an EarlyStopping or ModelCheckpoint that waits for a score which nothing logs.

    Lightning would find out after the first epoch. Where a callback, a module or a datamodule of the user's own
    could log a score, none is refused.

    Args:
        trainer: that runs the fit.
        module: the QLoRAModule.
        data: its datamodule, read.
    """
    callbacks = _callbacks(trainer)
    if any(isinstance(one, LambdaCallback) or not _is_known(one) for one in (*callbacks, module, data)):
        return
    known = validation_scores(labelled=bool(data.dev[0].labels), written=module.generate) if data.dev else ()
    for callback in callbacks:
        monitor: str | None
        if isinstance(callback, EarlyStopping) and callback.strict:
            monitor = callback.monitor
        elif isinstance(callback, ModelCheckpoint) and type(callback).__module__.startswith(_KNOWN[:2]):
            monitor = callback.monitor  # AdapterCheckpoint checks its own
        else:
            continue
        if monitor is not None and monitor not in known:
            given = (
                f"the validation gives {', '.join(known)}: monitor one of them"
                if known
                else "there is no validation set: leave it out"
            )
            raise InputError(f"--trainer.callbacks {type(callback).__name__}(monitor={monitor!r}): {given}")


def check_val_interval(trainer: Any, steps: int) -> None:
    """Raises InputError for a validation after more batches than an epoch has; Lightning would load the model first.

    Args:
        trainer: that runs the fit.
        steps: optimizer steps an epoch, which are its batches.
    """
    every, limit = trainer.val_check_interval, trainer.limit_train_batches
    batches = min(steps, limit) if isinstance(limit, int) else int(steps * limit)
    validates = trainer.limit_val_batches and trainer.check_val_every_n_epoch is not None
    if validates and isinstance(every, int) and not isinstance(every, bool) and every > batches > 0:
        raise InputError(
            f"--trainer.val_check_interval {every}: an epoch has {batches} steps: use at most {batches}, or "
            f"count over epochs with --trainer.check_val_every_n_epoch null"
        )


def use_no_inference_mode(trainer: Trainer) -> None:
    """Evaluates under `torch.no_grad` instead of Lightning's default `torch.inference_mode`.

    Tensors that are made in inference mode and kept (rotary tables, caches of a layer) would break the next
    backward of a fit.
    """
    for loop in (
        trainer.fit_loop.epoch_loop.val_loop,
        trainer.validate_loop,
        trainer.test_loop,
        trainer.predict_loop,
    ):
        loop.inference_mode = False


def _callbacks(trainer: Any) -> Sequence[Callback]:
    return list(trainer.callbacks)


def _is_known(one: object) -> bool:
    return type(one).__module__.startswith(_KNOWN)
