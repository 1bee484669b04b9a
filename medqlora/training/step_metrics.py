"""The figures of training steps, which stay on the device until they are logged."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class StepMetrics:
    """Collects loss, gradient norm and learning rate of each step, and reads many from the device at once."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, Tensor, Tensor, float]] = []

    def add(self, step: int, loss: Tensor, grad_norm: Tensor, rate: float) -> None:
        """Of the optimizer step `step`; scalars on the device, which isn't waited for."""
        self._pending.append((step, loss, grad_norm, rate))

    def flush(self, loggers: Iterable[Any], skipped_steps: int) -> dict[str, float]:
        """Logs every step since the last call: one message from the device for all of them.

        Args:
            loggers: Lightning's.
            skipped_steps: how many steps the loss scaler has left out so far.

        Returns:
            What a progress bar shows of the newest step; empty where there was none.

        Raises:
            FloatingPointError: a loss was not a finite number.
        """
        if not self._pending:
            return {}
        values = torch.stack(
            [torch.stack((loss, norm.to(loss))) for _, loss, norm, _ in self._pending]
        ).tolist()
        pending, self._pending = self._pending, []
        shown: dict[str, float] = {}
        for (step, _, _, rate), (loss, norm) in zip(pending, values, strict=True):
            metrics = {"train/loss": loss, "train/grad_norm": norm, "train/learning_rate": rate}
            if skipped_steps:
                metrics["train/overflows"] = float(skipped_steps)
            for logger in loggers:
                logger.log_metrics(metrics, step=step)
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss of step {step} is {loss}: lower --model.learning_rate, or use "
                    "--trainer.precision bf16-mixed instead of 16-mixed"
                )
            shown = {"loss": loss, "lr": rate}
        return shown
