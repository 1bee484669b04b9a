"""A callback for runs of several processes: one of them is ended, or stopped, at a chosen place."""

import os
import signal

from lightning.pytorch import Callback, LightningModule, Trainer


class SignalAt(Callback):
    """Sends the process `rank` a signal in the middle of the step after `step`.

    It has its gradients then, and the others wait for them.
    """

    def __init__(self, name: str, step: int, rank: int) -> None:
        self.signal = signal.Signals[name]
        self.step = step
        self.rank = rank

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank):
            os.kill(os.getpid(), self.signal)
