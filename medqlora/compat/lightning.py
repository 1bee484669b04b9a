"""Private parts of Lightning, version 2.6 (2.6.6 is tested), and attributes that its types leave out."""

import inspect
import math
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor, nn
from torch.optim import Optimizer


def checkpoint_to_restore() -> str | None:
    """The checkpoint that the running stage restores, as a file; None without one.

    `trainer.ckpt_path` still names that of the stage before while `setup` runs: `Trainer._run` hands the new one to
    its checkpoint connector after `configure_model`. Until then only the argument of `_run` has it ("best" is
    resolved by then).
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is Trainer._run.__code__:
            path = frame.f_locals["ckpt_path"]
            return None if path is None else str(path)
        frame = frame.f_back
    return None


def data_source(trainer: Trainer) -> object:
    """The object that the running stage gets its loaders from: a datamodule, a module or a loader.

    `trainer.datamodule` keeps the datamodule of an earlier call, also where the loaders come from the module.
    """
    loops: dict[str, Any] = {
        "fit": trainer.fit_loop,
        "validate": trainer.validate_loop,
        "test": trainer.test_loop,
        "predict": trainer.predict_loop,
    }
    assert trainer.state.fn is not None
    source: object = loops[str(trainer.state.fn.value)]._data_source.instance
    return source


def validation_or_epoch_end_follows(trainer: Trainer) -> bool:
    """Whether a validation or the end of the epoch belongs to the step that has just ended.

    Lightning can't resume between them: a checkpoint from there goes on with the next step. No public name tells
    whether the loop will validate.
    """
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return bool(loop.batch_progress.is_last_batch or loop._should_check_val_fx(fetcher))


def validations_left(trainer: Trainer, steps_left: int) -> int:
    """The validations of a fit within so many optimizer steps.

    `val_check_batch` is set when the loaders are made; Lightning counts it over epochs where
    `check_val_every_n_epoch` is None.
    """
    every, epochs = float(trainer.val_check_batch or math.inf), trainer.check_val_every_n_epoch
    batches = float(trainer.num_training_batches)
    if not trainer.limit_val_batches or not batches:
        return 0
    if epochs is None:
        return round(steps_left / every)
    return round(steps_left * max(1.0, batches // every) / (batches * epochs))


def cluster_environment(trainer: Trainer) -> ClusterEnvironment:
    """The environment (SLURM, torchrun, …) of the processes; a strategy has it with several processes only."""
    return trainer._accelerator_connector.cluster_environment


def callbacks_of(trainer: Trainer) -> Sequence[Callback]:
    """The Trainer's callbacks; Lightning sets the attribute in a connector, where type checkers don't see it."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return list(callbacks)


def fast_dev_run(trainer: Trainer) -> bool:
    """Whether `fast_dev_run` is on; set in a connector, as `callbacks_of`."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def overfit_batches(trainer: Trainer) -> int | float:
    """The option `overfit_batches`, 0 for none; set in a connector, as `callbacks_of`."""
    batches: int | float = trainer.overfit_batches  # type: ignore[attr-defined]
    return batches


def log_every_n_steps(trainer: Trainer) -> int:
    """The logging interval, 0 for the end of the epoch; set in a connector, as `callbacks_of`."""
    steps: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return steps


def datamodule_of(trainer: Trainer) -> object:
    """The datamodule of the running call, or of an earlier one; set in a connector, as `callbacks_of`."""
    return getattr(trainer, "datamodule", None)


def use_no_inference_mode(trainer: Trainer) -> None:
    """Makes all evaluation loops use `torch.no_grad` instead of `torch.inference_mode`, the Trainer's default.

    Tensors that are created in inference mode and kept (rotary tables, a layer's caches) break the next backward.
    """
    for loop in (
        trainer.fit_loop.epoch_loop.val_loop,
        trainer.validate_loop,
        trainer.test_loop,
        trainer.predict_loop,
    ):
        loop.inference_mode = False


def no_sigterm_broadcast(trainer: Trainer) -> None:
    """Removes the message about a SIGTERM that Lightning 2.6 sends before each step, with a device sync.

    The message of the step itself carries the signal.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def kill_started_processes(strategy: object, *, forget: bool = False) -> None:
    """Kills the processes that Lightning's launcher started for a strategy on one machine.

    Args:
        strategy: the Trainer's.
        forget: also empty the launcher's list: its observer would kill this process before it can report an error.
    """
    launcher = getattr(strategy, "launcher", None)
    if isinstance(launcher, _SubprocessScriptLauncher):
        launcher.kill(signal.SIGKILL)
        if forget:
            launcher.procs.clear()


class UnwrappedDDP(DDPStrategy):
    """Lightning's DDP without torch's `DistributedDataParallel` around the module, and without a broadcast of it."""

    def _setup_model(self, model: nn.Module) -> Any:
        return model

    def setup(self, trainer: Trainer) -> None:
        no_sigterm_broadcast(trainer)
        Strategy.setup(self, trainer)


class LightningDriver:
    """A `medqlora.training.step.StepDriver`: Lightning's precision plugin scales, unscales and calls its hooks.

    Args:
        module: uses manual optimization; its `on_before_optimizer_step`, the first hook after the gradients are
            unscaled, has to clip them.
    """

    def __init__(self, module: LightningModule) -> None:
        self._module = module
        self._scaler = getattr(module.trainer.precision_plugin, "scaler", None)

    def forward(self) -> AbstractContextManager[object]:
        """Nothing to enter: Lightning has entered its precision's context around `training_step`."""
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


def reload_each_epoch(trainer: Trainer) -> None:
    """Makes the training loader anew for each epoch, as `reload_dataloaders_every_n_epochs: 1`.

    Lightning counts an epoch's batches when it makes the loader.
    """
    trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]  # declared nowhere
