"""SIGTERM and SIGINT end a run after the step in progress, with a checkpoint."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.callbacks.adapter_checkpoint import AdapterCheckpoint
from medqlora.runs import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals(Callback):
    """Raises `Interrupted` as soon as a checkpoint of the present step stands; a second signal ends at once.

    `trainer.should_stop` would let Lightning validate first, which may take longer than what sent the signal waits.
    Stands after AdapterCheckpoint in the Trainer's callbacks, so that a checkpoint due now is written already.
    Under SLURM with requeueing Lightning's own handlers do this, and these stay away.
    """

    def __init__(self) -> None:
        #: the signal that came; None before
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not at `on_fit_start`: Lightning puts its own handlers in place after that
        environment: Any = trainer._accelerator_connector.cluster_environment
        requeued = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
        if requeued or threading.current_thread() is not threading.main_thread():
            return
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)  # the newest checkpoint is whole whenever this comes
        self.received = number

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        module: Any = pl_module
        if trainer.world_size > 1:
            module.signal = self.received or 0
            if module.agreed_signal:  # every process knows it after the same step
                self.received = self.received or signal.SIGTERM
            else:
                return
        if self.received is None:
            return
        saver = trainer.checkpoint_callback
        if isinstance(saver, AdapterCheckpoint) and not saver.epoch_or_validation_is_next(trainer):
            saver.save_newest(trainer)
            self._stop(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)  # the saver has just written the checkpoint that begins with this validation

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._stop(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        module: Any = trainer.lightning_module
        if trainer.world_size > 1 and not module.agreed_signal:
            return
        if self.received is not None and trainer.state.fn == "fit":
            saver = trainer.checkpoint_callback
            step = saver.newest_step if isinstance(saver, AdapterCheckpoint) else None
            raise Interrupted(self.received, step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        """Puts back what was there; where Lightning has done so already, there is nothing of ours."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._receive:
                signal.signal(number, handler)
        self._before = {}
