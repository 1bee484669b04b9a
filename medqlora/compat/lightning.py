"""What Lightning 2.6 tells through no public name."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from medqlora.errors import InputError


def checkpoint_to_restore() -> str | None:
    """The checkpoint that the running stage restores, resolved ("best" is a file by then); None without one.

    `trainer.ckpt_path` is still that of the stage before while `setup` runs: Lightning hands the new one from
    `Trainer._run` to its checkpoint connector after `configure_model`. Until then it is an argument of `_run`
    alone, which is read here.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is Trainer._run.__code__:
            found = frame.f_locals["ckpt_path"]
            return None if found is None else str(found)
        frame = frame.f_back
    return None


def data_source(trainer: Any) -> object:
    """What the stage that the Trainer runs asks for its loaders: a datamodule, a module or a loader."""
    loops = {
        "fit": trainer.fit_loop,
        "validate": trainer.validate_loop,
        "test": trainer.test_loop,
        "predict": trainer.predict_loop,
    }
    return loops[str(trainer.state.fn.value)]._data_source.instance


def total_steps(trainer: Any, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run.

    `trainer.estimated_stepping_batches` would tell it too, but sets the loader up before a resumed
    run's state is there, which is then lost (Lightning 2.6).

    Raises:
        InputError: the Trainer has no end.
    """
    limit, epoch = trainer.limit_train_batches, steps_per_epoch
    epoch = min(epoch, limit) if isinstance(limit, int) else int(epoch * limit)
    bounds = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        bounds.append(trainer.max_epochs * epoch)
    if trainer.max_steps >= 0:
        bounds.append(trainer.max_steps)
    if not bounds:
        raise InputError(
            "--trainer.max_epochs -1 without --trainer.max_steps: the learning rate needs an end"
        )
    return min(bounds)


class LightningDriver:
    """A `medqlora.training.step.StepDriver`: Lightning's precision plugin scales, unscales and calls its hooks.

    Args:
        module: uses manual optimization; its `on_before_optimizer_step` has to clip, which is the first hook after the
            gradients are unscaled.
    """

    def __init__(self, module: LightningModule) -> None:
        self._module = module
        self._scaler = getattr(module.trainer.precision_plugin, "scaler", None)

    def forward(self) -> AbstractContextManager[object]:
        """Nothing to do: Lightning has entered its precision's context around `training_step`."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self._module.manual_backward(loss)

    def update(self, optimizer: Optimizer, clip: Callable[[], None]) -> bool:
        """Steps through Lightning's wrapper, which counts `trainer.global_step`."""
        wrapped: Any = self._module.optimizers()
        if self._scaler is None:
            wrapped.step()
            return False
        scale = self._scaler.get_scale()
        wrapped.step()
        return bool(self._scaler.get_scale() < scale)
