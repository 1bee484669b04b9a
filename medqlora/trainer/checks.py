"""Checks of Lightning's Trainer: callbacks and options that would change training or scores are refused at start.

They run for the command line and for a user's own Trainer, before a model is loaded. Subclasses of a refused callback
are refused too.
"""

import math
from collections.abc import Sequence

from lightning.pytorch import Callback, Trainer, callbacks
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from medqlora.compat.lightning import callbacks_of, fast_dev_run, overfit_batches, reload_each_epoch
from medqlora.config.lightning_classes import REFUSED_CALLBACKS
from medqlora.distributed.processes import DDPStrategy4bit
from medqlora.errors import InputError
from medqlora.training.checks.options import check_precision, check_strategy
from medqlora.utils.console import say

#: refused callbacks, with the reason and the alternative; a subclass is what it is derived from
_REFUSED: tuple[tuple[type[Callback], str], ...] = tuple(
    (getattr(callbacks, name), why) for name, why in REFUSED_CALLBACKS.items()
)
#: packages whose classes log no score of their own
_KNOWN = ("lightning.", "pytorch_lightning.", "medqlora.")


#: limit that cuts the longest or shortest questions → the option of a sample by label
_SAMPLED = {"limit_val_batches": "validation_samples", "limit_test_batches": "test_samples"}
#: loggers whose folder Lightning uses as the run's; other loggers share one folder for all runs
OWN_FOLDER = (TensorBoardLogger, CSVLogger)


def check_run(trainer: Trainer) -> None:
    """Raises InputError for a precision, strategy, callback or option of the Trainer that does not work here."""
    check_precision(str(trainer.precision))
    check_strategy(trainer.strategy)
    if trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy4bit):
        raise InputError(
            f"--trainer.strategy {type(trainer.strategy).__name__}: it would wrap a model whose gradients are added "
            "up here: use auto or ddp, or fsdp for a base that is too large for one GPU; in a program of your own "
            "strategy=medqlora.distributed.processes.DDPStrategy4bit()"
        )
    check_trainer(trainer)


def check_trainer(trainer: Trainer) -> None:
    """Raises InputError for a callback or an option that would silently change training or scores."""
    for callback in callbacks_of(trainer):
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


def _check_limits(trainer: Trainer) -> None:
    """Refuses limits that evaluate the first questions only: the longest come first."""
    overfit = overfit_batches(trainer)
    if overfit:
        raise InputError(
            f"--trainer.overfit_batches {overfit}: it would also validate on the longest questions "
            "alone: use --data.train_samples to train on a few examples"
        )
    for name in _SAMPLED:
        value = getattr(trainer, name)  # an int counts batches, a float is a share
        cut = value > 0 if isinstance(value, int) else 0 < value < 1
        if cut and not fast_dev_run(trainer):
            raise InputError(
                f"--trainer.{name} {value}: questions are sorted by length, and a score of the first of them "
                f"would be one of the longest or shortest: use --data.{_SAMPLED[name]} for a quick look"
            )


def check_monitors(trainer: Trainer, known: Sequence[str], others: Sequence[object]) -> None:
    """Raises InputError for an EarlyStopping or ModelCheckpoint that monitors a score which nothing logs.

    Lightning would fail after the first epoch. Nothing is refused where the user's own callback, module or datamodule
    may log a score.

    Args:
        trainer: runs the fit.
        known: names of the scores of the validation.
        others: module and datamodule.
    """
    given = callbacks_of(trainer)
    if any(isinstance(each, LambdaCallback) or not _is_known(each) for each in (*given, *others)):
        return
    for callback in given:
        monitor: str | None
        if isinstance(callback, EarlyStopping) and callback.strict:
            monitor = callback.monitor
        elif isinstance(callback, ModelCheckpoint) and type(callback).__module__.startswith(_KNOWN[:2]):
            monitor = callback.monitor  # AdapterCheckpoint checks its own
        else:
            continue
        if monitor is not None and monitor not in known:
            fix = (
                f"the validation gives {', '.join(known)}: monitor one of them"
                if known
                else "there is no validation set: leave it out"
            )
            raise InputError(f"--trainer.callbacks {type(callback).__name__}(monitor={monitor!r}): {fix}")


def check_val_interval(trainer: Trainer, steps: int) -> None:
    """Raises InputError for a `val_check_interval` above an epoch's batches; Lightning would load the model first.

    Args:
        trainer: runs the fit.
        steps: optimizer steps of an epoch, which are its batches.
    """
    every, limit = trainer.val_check_interval, trainer.limit_train_batches
    batches = min(steps, limit) if isinstance(limit, int) else int(steps * limit)
    validates = trainer.limit_val_batches and trainer.check_val_every_n_epoch is not None
    if validates and isinstance(every, int) and not isinstance(every, bool) and every > batches > 0:
        raise InputError(
            f"--trainer.val_check_interval {every}: an epoch has {batches} steps: use at most {batches}, or "
            f"count over epochs with --trainer.check_val_every_n_epoch null"
        )


def settle_stages(trainer: Trainer, epochs: int, *, validated: bool) -> None:
    """Gives the Trainer the epochs of a training in stages, each of which has a length of its own.

    Args:
        trainer: runs the fit.
        epochs: of all stages.
        validated: whether there are validation questions.

    Raises:
        InputError: the end of a stage would not be validated.
    """
    every, share = trainer.check_val_every_n_epoch, trainer.val_check_interval
    whole = isinstance(share, float) and share > 0 and (1 / share).is_integer()
    if validated and trainer.limit_val_batches and (every != 1 or not whole):
        raise InputError(
            "--data.stages: each stage's end is validated: leave --trainer.check_val_every_n_epoch out, and give "
            "--trainer.val_check_interval a share of the epoch like 0.5"
        )
    reload_each_epoch(trainer)
    if not fast_dev_run(trainer):
        if trainer.max_epochs not in (None, -1, epochs):
            say(
                f"The stages have {epochs} epochs together; --trainer.max_epochs {trainer.max_epochs} is not used"
            )
        trainer.fit_loop.max_epochs = epochs


def check_train_limit(trainer: Trainer, steps: int) -> None:
    """Raises InputError for a share of the epoch that is less than one step; Lightning would load the model first.

    Args:
        trainer: runs the fit.
        steps: optimizer steps of an epoch, which are its batches.
    """
    limit = trainer.limit_train_batches
    if _is_less_than_one(limit, steps):
        raise InputError(
            f"--trainer.limit_train_batches {limit:g}: an epoch has {steps} steps, and that share is less than one: "
            f"use at least {math.ceil(100 / steps) / 100:g}, or --data.train_samples for fewer examples"
        )


def check_predict_limit(trainer: Trainer, groups: int) -> None:
    """As `check_train_limit`, of the groups of questions that `predict` answers."""
    limit = trainer.limit_predict_batches
    if _is_less_than_one(limit, groups):
        raise InputError(
            f"--trainer.limit_predict_batches {limit:g}: the questions are {groups} groups, and that share is less "
            "than one: leave it out, or name a number of groups"
        )


def _is_less_than_one(limit: float, count: int) -> bool:
    return isinstance(limit, float) and 0 < limit < 1 and count > 0 and int(count * limit) < 1


def _is_known(value: object) -> bool:
    return type(value).__module__.startswith(_KNOWN)
