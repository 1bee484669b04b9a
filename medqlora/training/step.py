"""The optimizer step: micro-batches, gradient sum over processes, clipping and update.

`QLoRAModule` runs it under Lightning, `bench` measures it, and a plain PyTorch loop needs nothing else.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from medqlora.config.model import StepOptions
from medqlora.data.batching.packing import MicroBatch, StepBatch
from medqlora.fused import FusedDecoder
from medqlora.training.flat import FlatOptimizer
from medqlora.training.step_metrics import StepResult, clip_or_leave_out


class ComputesLoss(Protocol):
    """The model as a step sees it: `medqlora.models.Decoder` or `medqlora.fused.FusedDecoder`."""

    def loss_sum(self, batch: MicroBatch) -> Tensor:
        """Cross-entropy summed over the completion tokens, or over `batch.terms` with their weights, [] float32."""


class Splitter(Protocol):
    """Makes smaller micro-batches of a step that ran out of memory."""

    def split(self, batch: StepBatch) -> StepBatch:
        """Returns the same step in more micro-batches. Raises torch.OutOfMemoryError where none is left to split."""


class StepDriver(Protocol):
    """Autocast, loss scaling and the optimizer's call, which differ between PyTorch and Lightning."""

    def forward(self) -> AbstractContextManager[object]:
        """Returns the context of the forward pass."""

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of `loss`, scaled in float16."""

    def update(self, optimizer: Optimizer, clip: Callable[[], None]) -> bool:
        """Unscales the gradients, calls `clip`, steps the optimizer; returns whether the scaler skipped the update."""


class TorchDriver:
    """A step in plain PyTorch.

    Args:
        device: device of the model.
        dtype: data type of the products; bfloat16 and float16 run under autocast, float16 with a `GradScaler`.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self._device = device
        self._dtype = dtype
        self._scaler = torch.amp.GradScaler(device.type) if dtype == torch.float16 else None

    def forward(self) -> AbstractContextManager[object]:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def backward(self, loss: Tensor) -> None:
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def update(self, optimizer: Optimizer, clip: Callable[[], None]) -> bool:
        if self._scaler is None:
            clip()
            optimizer.step()
            return False
        scale = self._scaler.get_scale()
        self._scaler.unscale_(optimizer)
        clip()
        self._scaler.step(optimizer)
        self._scaler.update()
        return self._scaler.get_scale() < scale


def _nothing() -> None:
    """Stands for the other processes where there are none."""


def _unwatched(done: int, of_tokens: int) -> None:
    """Nobody shows the progress."""


def _same(loss: Tensor) -> Tensor:
    return loss


class TrainStep:
    """Runs optimizer steps: `step(batch)` for each `StepBatch`.

    The loss is the sum over the completion tokens divided by their number in the whole step; with weights,
    Σ w·nll / Σ w over the whole step (`data.batching.loss_terms`). So the number of
    micro-batches and of processes changes memory and speed, never the result. The host does not wait for the device,
    except in float16, whose scaler reads one value a step.

    Args:
        decoder: computes the loss of a micro-batch.
        optimizer: updates the trained parameters.
        options: `max_grad_norm` is used here; the rates are in `optimizer` and `scheduler`.
        device: device of the model; the batches lie there, or on the host.
        scheduler: sets the learning rate of the next step, unless the update was skipped.
        driver: `TorchDriver(device)` by default.
        splitter: halves micro-batches that do not fit; without it torch.OutOfMemoryError reaches the caller.
        finish: called when this process has its own gradients; waits for processes that share the base model.
        reduce: sums the gradients over all processes, and the loss that it gets; returns the summed loss.
        watch: called after each micro-batch with the tokens that are done, and all tokens of this process's step.
    """

    def __init__(
        self,
        decoder: ComputesLoss,
        optimizer: Optimizer,
        options: StepOptions,
        *,
        device: torch.device,
        scheduler: LRScheduler | None = None,
        driver: StepDriver | None = None,
        splitter: Splitter | None = None,
        finish: Callable[[], None] = _nothing,
        reduce: Callable[[Tensor], Tensor] = _same,
        watch: Callable[[int, int], None] = _unwatched,
    ) -> None:
        self.decoder = decoder
        self.optimizer = optimizer
        self.scheduler = scheduler
        self._limit = options.max_grad_norm or math.inf
        self._device = device
        self._driver: StepDriver = TorchDriver(device) if driver is None else driver
        self._splitter = splitter
        self._finish = finish
        self._reduce = reduce
        self._watch = watch
        self._loss = self._grad_norm = torch.zeros(())
        if isinstance(decoder, FusedDecoder):  # it adds to gradients in place where one buffer holds them
            decoder.accumulate = isinstance(optimizer, FlatOptimizer)

    def step(self, batch: StepBatch) -> StepResult:
        """Takes one optimizer step.

        A step whose loss or gradient is not finite changes no weight (`clip_or_leave_out`).

        Raises:
            torch.OutOfMemoryError: one example alone does not fit, or there is no `splitter`.
        """
        # before the step too: whoever set a gradient to None took it out of the `FlatOptimizer`'s buffer
        self.optimizer.zero_grad()
        loss = self._accumulate(batch)
        while loss is None:  # after the handler, which keeps alive what the failed pass allocated
            self.optimizer.zero_grad()
            assert self._splitter is not None
            batch = self._splitter.split(batch)
            loss = self._accumulate(batch)
        self._finish()
        self._loss = self._reduce(loss)
        rate: float = self.optimizer.param_groups[0]["lr"]
        overflow = self._driver.update(self.optimizer, self.clip)
        if not isinstance(self.optimizer, FlatOptimizer):  # frees memory; a buffer stays
            self.optimizer.zero_grad()
        if self.scheduler is not None and not overflow:
            self.scheduler.step()
        return StepResult(self._loss, self._grad_norm, rate, batch.ids, overflow)

    def clip(self) -> None:
        """Clips the gradients between backward and update; the driver calls it, or Lightning's hook."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._grad_norm = clip_or_leave_out(parameters, self._limit, self._loss)

    def _accumulate(self, batch: StepBatch) -> Tensor | None:
        """Adds the gradients of this process's micro-batches.

        Returns:
            Their share of the step's loss, [] float32; None where memory ran out and a splitter is there.
        """
        loss = torch.zeros((), device=self._device)
        if isinstance(self.decoder, FusedDecoder) and self.decoder.graphs is not None:
            # processes with one micro-batch each pad it to the largest: they wait for that one anyway, and so they
            # capture a new size at the same time
            self.decoder.graphs.least = batch.largest_share if len(batch.micro_batches) == 1 else 0
        device_type = self._device.type
        tokens = [int(micro.input_ids.numel()) for micro in batch.micro_batches]
        done = 0
        try:
            with self._driver.forward():
                for micro, size in zip(batch.micro_batches, tokens, strict=True):
                    if micro.host_ids is None:  # not moved yet
                        micro = micro.to(self._device)
                    part = self.decoder.loss_sum(micro) / batch.divisor
                    with torch.autocast(device_type, enabled=False):  # a backward belongs outside autocast
                        self._driver.backward(part)
                    loss += part.detach()
                    done += size
                    self._watch(done, sum(tokens))
        except torch.OutOfMemoryError:
            if self._splitter is None:
                raise
            return None
        return loss
