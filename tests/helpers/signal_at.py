"""Callbacks: something befalls a process at a chosen place."""

import atexit
import errno
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.callbacks import checkpoint_io, saver_of
from medqlora.distributed import processes
from medqlora.fused import FusedDecoder


class SignalAt(Callback):
    """Sends the process `rank` a signal in the middle of the step after `step`, or in the validation after it.

    In a step it has its gradients then, and the others wait for them.
    """

    def __init__(self, name: str, step: int, rank: int = 0, validating: bool = False) -> None:
        self.signal = signal.Signals[name]
        self.step = step
        self.rank = rank
        self.validating = validating

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.validating:
            self._send(trainer)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if self.validating:
            self._send(trainer)

    def _send(self, trainer: Trainer) -> None:
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank):
            os.kill(os.getpid(), self.signal)


class KilledIn(Callback):
    """Kills its process in the middle of the step after `step`, once all checkpoints before it are on the disk.

    Only in the run folder that the environment's `KILLED_IN` names, where a run that goes on has to have the same
    options; or `anywhere`.
    """

    def __init__(self, step: int, anywhere: bool = False) -> None:
        self.step = step
        self.anywhere = anywhere

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        here = self.anywhere or Path(str(trainer.log_dir)).name == os.environ.get("KILLED_IN")
        if trainer.global_step == self.step and here:
            saver_of(trainer).settle(trainer)
            os.kill(os.getpid(), signal.SIGKILL)


class FailsAlone(Callback):
    """An error in one process, which then ends as one with NCCL does: not before the others have ended too.

    The time that it is given to end by itself is shorter than a user's.
    """

    def __init__(self, step: int, rank: int) -> None:
        self.step = step
        self.rank = rank

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank):
            atexit.register(threading.Event().wait)
            processes._GRACE_S = 2.0
            raise RuntimeError("of this process alone")


class LowersItsBudget(Callback):
    """What preflight does in the process whose GPU has less room."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_rank == self.rank:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            data.budget.lower()


class OddGPU(Callback):
    """What a GPU of another kind may do in one process: the fused engine's packed rows aren't the model's own."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.global_rank == self.rank:
            hidden = FusedDecoder.hidden

            def crossing(self: Any, batch: Any, rows: Any) -> Any:
                return hidden(self, batch._replace(lengths=batch.lengths.sum()[None]), rows)

            FusedDecoder.hidden = crossing  # type: ignore[method-assign]


class NoRoomForTheBest(Callback):
    """A slow disk that has no room for the best checkpoint of one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        write = checkpoint_io.write_checkpoint

        def slow(checkpoint: Any, path: Path) -> None:
            time.sleep(0.2)
            if path.name != "last.ckpt" and checkpoint["global_step"] == self.step:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            write(checkpoint, path)

        checkpoint_io.write_checkpoint = slow
