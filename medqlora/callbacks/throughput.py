"""How fast a run trains, measured without making the device wait."""

import time
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import Callback, LightningModule, Trainer

from medqlora.data.batching.packing import StepBatch
from medqlora.models.flops import StepFlops, step_flops

#: dense 16-bit FLOP/s of what Lightning 2.6 doesn't know: NVIDIA's datasheet
_PEAK_FLOPS = {"NVIDIA H200": 989.5e12}


class Throughput(Callback):
    """Logs examples/s, tokens/s that are not padding, seconds a step and, on a GPU, FLOP utilisation.

    Measured from one logging step to the next: there the losses are read from the device anyway, so the
    clock is right without a synchronisation of its own. Validation and checkpoints don't count. The
    utilisation is the model's work (see `medqlora.models.flops`) over the GPU's nominal 16-bit rate.
    """

    def __init__(self) -> None:
        #: the whole run so far: tokens, examples, seconds, steps
        self.totals = {"tokens": 0, "examples": 0, "seconds": 0.0, "steps": 0}
        self._flops: StepFlops | None = None
        self._peak: float | None = None
        self._restart()

    def _restart(self) -> None:
        self._started = time.perf_counter()
        self._tokens = self._examples = self._steps = 0
        self._work = self._imbalance = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model: Any = pl_module.model
        self._flops = step_flops(model)
        if pl_module.device.type == "cuda":
            known = _PEAK_FLOPS.get(torch.cuda.get_device_name(pl_module.device))
            self._peak = known or get_available_flops(pl_module.device, torch.bfloat16)
        self._restart()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        self._tokens += batch.all_tokens
        self._imbalance += batch.imbalance
        self._examples += len(batch.ids)
        self._steps += 1
        if self._flops is not None:
            for micro in batch.micro_batches:
                self._work += self._flops.step(micro.lengths.tolist(), len(micro.targets))
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
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
        if trainer.world_size > 1:  # tokens of the fullest process over the mean
            metrics["throughput/imbalance"] = self._imbalance / self._steps
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step - 1)
        shown: dict[str, float] = pl_module.shown  # type: ignore[assignment]
        shown["tok/s"] = metrics["throughput/tokens_per_s"]
        now = {"tokens": self._tokens, "examples": self._examples, "seconds": seconds, "steps": self._steps}
        self.totals = {name: self.totals[name] + value for name, value in now.items()}
        self._restart()
