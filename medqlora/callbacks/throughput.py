"""The speed of a run, measured without a device sync."""

import time

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from medqlora.callbacks.attached import qlora_module
from medqlora.compat.lightning import log_every_n_steps
from medqlora.data.batching.packing import StepBatch
from medqlora.models.flops import StepFlops, step_flops
from medqlora.utils.console import say

#: dense 16-bit FLOP/s of GPUs that Lightning 2.6 doesn't know: NVIDIA's datasheet
_PEAK_FLOPS = {"NVIDIA H200": 989.5e12}


class Throughput(Callback):
    """Logs examples/s, tokens/s without padding, seconds a step and, on a GPU, FLOP utilisation; at the end the run's.

    Measured from one logging step to the next: the losses are read from the device there anyway, so the clock is right
    without a sync of its own. Validation and checkpoints don't count. The utilisation is the model's work (see
    `medqlora.models.flops`) over the GPU's nominal 16-bit rate.
    """

    def __init__(self) -> None:
        #: of the run so far: tokens, examples, seconds, steps
        self.totals = {"tokens": 0, "examples": 0, "seconds": 0.0, "steps": 0}
        self._flops: StepFlops | None = None
        self._peak: float | None = None
        #: when the fit began, after loading; and its first step, after the checks before it
        self._began: float | None = None
        self._first: float | None = None
        #: of the validations between steps: seconds, and when the one that runs began
        self._validation_s, self._validating = 0.0, 0.0
        self._restart()

    def _restart(self) -> None:
        self._started = time.perf_counter()
        self._tokens = self._examples = self._steps = 0
        self._work = self._imbalance = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._flops = step_flops(qlora_module(pl_module).model)
        if pl_module.device.type == "cuda":
            known = _PEAK_FLOPS.get(torch.cuda.get_device_name(pl_module.device))
            self._peak = known or get_available_flops(pl_module.device, torch.bfloat16)
        self._restart()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()
        if self._first is None:
            self._first = self._started

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: StepBatch, batch_idx: int
    ) -> None:
        if self._first is None:  # resumed in mid-epoch: the epoch's start was the interrupted run's
            self._restart()
            self._first = self._started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close(pl_module)
        self._validating = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()
        if self._first is not None:
            self._validation_s += self._started - self._validating

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the whole run's speed: all steps of this process, without validation and checkpoints."""
        self._close(pl_module)
        totals = self.totals
        if not totals["steps"] or not totals["seconds"]:
            return
        metrics = {
            "throughput/run_tokens_per_s": totals["tokens"] / totals["seconds"],
            "throughput/run_examples_per_s": totals["examples"] / totals["seconds"],
            "throughput/run_step_s": totals["seconds"] / totals["steps"],
        }
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        if stopped := _stopped_early(trainer):
            say(stopped)
        say(
            f"Trained: {totals['steps']:,} steps, {totals['examples']:,} examples, {totals['tokens']:,} tokens in "
            f"{totals['seconds']:.1f} s of steps ({metrics['throughput/run_tokens_per_s']:,.0f} tokens/s)"
        )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says where the time of the fit went, since it was loaded."""
        if self._began is None or self._first is None or not self.totals["steps"]:
            return
        whole, steps_s = time.perf_counter() - self._first, self.totals["seconds"]
        say(
            f"Fit: {whole:.1f} s from the first step on (steps {steps_s:.1f} s, validation {self._validation_s:.1f} s, "
            f"the rest {max(0.0, whole - steps_s - self._validation_s):.1f} s); "
            f"{self._first - self._began:.1f} s before"
        )

    def _close(self, pl_module: LightningModule) -> None:
        """Ends a stretch of steps: what was not logged yet counts for the run."""
        if self._steps:
            qlora_module(
                pl_module
            ).flush_metrics()  # reads the losses, so the device has finished these steps
            self._count(time.perf_counter() - self._started)
        self._restart()

    def _count(self, seconds: float) -> None:
        now = {"tokens": self._tokens, "examples": self._examples, "seconds": seconds, "steps": self._steps}
        self.totals = {name: self.totals[name] + value for name, value in now.items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: StepBatch, batch_idx: int
    ) -> None:
        self._tokens += batch.all_tokens
        self._imbalance += batch.imbalance
        self._examples += len(batch.ids)
        self._steps += 1
        if self._flops is not None:
            for micro in batch.micro_batches:
                self._work += self._flops.step(micro.lengths.tolist(), len(micro.targets))
        every = log_every_n_steps(trainer)
        if every and (batch_idx + 1) % every == 0:
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = time.perf_counter() - self._started
        metrics = {
            "throughput/tokens_per_s": self._tokens / seconds,
            "throughput/examples_per_s": self._examples / seconds,
            "throughput/step_s": seconds / self._steps,
        }
        if self._peak:
            metrics["throughput/flop_utilisation"] = self._work / seconds / self._peak
        if trainer.world_size > 1:  # the largest process's tokens over the mean
            metrics["throughput/imbalance"] = self._imbalance / self._steps
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step - 1)
        qlora_module(pl_module).shown["tok/s"] = metrics["throughput/tokens_per_s"]
        self._count(seconds)
        self._restart()


def _stopped_early(trainer: Trainer) -> str:
    """Why a callback has ended the fit before its last epoch; "" where none has."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if trainer.should_stop and isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            reason = callback.stopping_reason_message.removesuffix(" Signaling Trainer to stop.")
            return f"Stopped early, in epoch {callback.stopped_epoch + 1} of {trainer.max_epochs}: {reason}"
    return ""
