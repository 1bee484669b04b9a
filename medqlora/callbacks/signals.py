"""SIGTERM, SIGINT and SIGHUP end a run after its step, with a checkpoint; SLURM's signal also requeues the job."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeAlias

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.callbacks.attached import qlora_module, saver_of
from medqlora.compat.lightning import cluster_environment
from medqlora.utils.console import say
from medqlora.utils.interrupts import Interrupted
from medqlora.utils.slurm import slurm_job

#: SIGHUP comes from a terminal that was closed; Windows has none
SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
#: what `signal.getsignal` returns
_Handler: TypeAlias = "Callable[[int, FrameType | None], object] | int | None"


class Signals(Callback):
    """Raises `Interrupted` as soon as a checkpoint of the current step is saved; a second signal ends at once.

    `trainer.should_stop` would let Lightning validate first, which may take longer than the signal's sender waits.
    The callback stands after AdapterCheckpoint in the Trainer's list, so that a checkpoint due now is saved already.

    Under SLURM (Lightning's `SLURMEnvironment`, its `auto_requeue` and `requeue_signal`) the signal before a job's end
    does the same, and requeues the job. Lightning's own handler saves its checkpoint inside the step that the signal
    interrupts, and again for a second signal: a run could not be resumed exactly.
    """

    def __init__(self) -> None:
        #: the signal that was received; None before
        self.received: int | None = None
        self._before: dict[int, _Handler] = {}
        self._requeues_at: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not at `on_fit_start`: Lightning installs its own handlers after that
        self.install(trainer)

    def install(self, trainer: Trainer) -> None:
        """Installs the handlers; outside the main thread Python allows none."""
        if threading.current_thread() is not threading.main_thread():
            return
        numbers: list[int] = [*SIGNALS]
        environment = cluster_environment(trainer)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._requeues_at = environment.requeue_signal
            numbers += [] if self._requeues_at is None else [self._requeues_at]
        # an ignored signal stays ignored: `nohup` sets that
        numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in numbers}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)  # the newest checkpoint is undamaged at every moment
        self.received = number

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if trainer.world_size > 1:
            module = qlora_module(pl_module)
            module.signal = self.received or 0
            if not module.agreed_signal:
                return
            self.received = self.received or signal.SIGTERM  # all processes know it after the same step
        if self.received is None:
            return
        saver = saver_of(trainer)
        if not saver.epoch_or_validation_is_next(trainer):
            saver.save_newest(trainer)
            self._stop(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)  # AdapterCheckpoint has just saved the state before this validation

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        self._stop(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if trainer.world_size > 1 and not qlora_module(trainer.lightning_module).agreed_signal:
            return
        if self.received is not None and trainer.state.fn == "fit":
            if self.received == self._requeues_at and trainer.is_global_zero:
                _requeue()
            raise Interrupted(self.received, saver_of(trainer).newest_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        """Restores the earlier handlers, where Lightning has not done so already."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._receive:
                signal.signal(number, handler)
        self._before = {}


def _requeue() -> None:
    """Has SLURM start this job again: https://slurm.schedmd.com/scontrol.html#OPT_requeue."""
    words = ["scontrol", "requeue", str(slurm_job())]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        why = done.stderr.strip() if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    say(f"SLURM starts job {words[-1]} again" if why is None else f"`{' '.join(words)}` failed: {why}")
