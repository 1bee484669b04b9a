"""SIGTERM, SIGINT and SIGHUP end a run after its step, with a checkpoint; SLURM's signal also requeues the job."""

import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.callbacks.adapter_checkpoint import saver_of
from medqlora.compat.lightning import cluster_environment
from medqlora.utils.console import say
from medqlora.utils.interrupts import Interrupted
from medqlora.utils.slurm import slurm_job

#: the last is of a terminal that was closed; Windows has none
SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Signals(Callback):
    """Raises `Interrupted` as soon as a checkpoint of the present step stands; a second signal ends at once.

    `trainer.should_stop` would let Lightning validate first, which may take longer than what sent the signal waits.
    Stands after AdapterCheckpoint in the Trainer's callbacks, so that a checkpoint due now is written already.

    Under SLURM (Lightning's `SLURMEnvironment`, its `auto_requeue` and `requeue_signal`) the signal before a job's
    end does the same and has the job requeued. Lightning's own handler writes its checkpoint within whatever step
    the signal meets, and a second one of it: a run could not go on exactly.
    """

    def __init__(self) -> None:
        #: the signal that came; None before
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._requeues_at: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not at `on_fit_start`: Lightning puts its own handlers in place after that
        environment = cluster_environment(trainer)
        if threading.current_thread() is not threading.main_thread():
            return
        numbers: list[int] = [*SIGNALS]
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._requeues_at = environment.requeue_signal
            numbers += [] if self._requeues_at is None else [self._requeues_at]
        # `nohup` has it ignored, and so it stays
        numbers = [one for one in numbers if signal.getsignal(one) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in numbers}

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
        saver = saver_of(trainer)
        if not saver.epoch_or_validation_is_next(trainer):
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
            if self.received == self._requeues_at and trainer.is_global_zero:
                _requeue()
            raise Interrupted(self.received, saver_of(trainer).newest_step)

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


def _requeue() -> None:
    """Has SLURM start this job again: https://slurm.schedmd.com/scontrol.html#OPT_requeue."""
    words = ["scontrol", "requeue", str(slurm_job())]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        why = done.stderr.strip() if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    say(f"SLURM starts job {words[-1]} again" if why is None else f"`{' '.join(words)}` failed: {why}")
