"""Figures of training steps, kept on the device until they are logged; and steps that are not finite."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from medqlora.utils.console import say

#: record ids in a message, at most
_NAMED = 16


class LogsMetrics(Protocol):
    """A logger, as Lightning's are."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> object:
        """Writes scalars of step number `step`."""


class StepResult(NamedTuple):
    """Figures of one optimizer step.

    Attributes:
        loss: mean over the completion tokens of the whole step, [] float32 on the device.
        grad_norm: norm of the whole step's gradient before clipping, [] on the device.
        rate: learning rate of the step.
        ids: record ids of the whole step.
        overflow: the float16 loss scaler skipped the update.
    """

    loss: Tensor
    grad_norm: Tensor
    rate: float
    ids: tuple[str, ...] = ()
    overflow: bool = False


def clip_or_leave_out(parameters: Sequence[Tensor], limit: float, loss: Tensor) -> Tensor:
    """Scales the gradients down to the norm `limit`; sets them to 0 where the norm or the loss is not finite.

    The optimizer then takes a step without a gradient: no NaN reaches a weight or its state, and no device sync is
    needed.

    Args:
        parameters: with their gradients.
        limit: largest norm.
        loss: of the step, [].

    Returns:
        The norm before clipping, [].
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    good = torch.isfinite(norm) & torch.isfinite(loss.to(norm.device))
    factor = torch.where(good, (limit / (norm + 1e-6)).clamp(max=1.0), 0.0)
    for gradient in gradients:
        gradient.nan_to_num_(0.0, 0.0, 0.0).mul_(factor)
    return norm


class StepMetrics:
    """Collects the figures of steps on the device, and reads them all with one copy."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, StepResult]] = []
        #: steps that were left out, in total and since the last finite one
        self.bad = self._in_a_row = 0

    def add(self, step: int, result: StepResult) -> None:
        """Keeps the figures of step number `step`, without a device sync."""
        self._pending.append((step, result))

    def flush(
        self, loggers: Iterable[LogsMetrics], skipped_steps: int, max_bad_steps: int
    ) -> dict[str, float]:
        """Logs every step since the last call.

        Args:
            loggers: Lightning's.
            skipped_steps: steps that the loss scaler has skipped so far.
            max_bad_steps: steps in a row that are not finite, at which the run ends.

        Returns:
            Loss and rate of the newest step, for a progress bar; empty without a step.

        Raises:
            FloatingPointError: `max_bad_steps` steps in a row were not finite.
        """
        if not self._pending:
            return {}
        values = torch.stack(
            [torch.stack((result.loss, result.grad_norm.to(result.loss))) for _, result in self._pending]
        ).tolist()
        pending, self._pending = self._pending, []
        shown: dict[str, float] = {}
        for (step, result), (loss, norm) in zip(pending, values, strict=True):
            self._count_bad(step, result, loss, norm, max_bad_steps)
            metrics = {"train/loss": loss, "train/grad_norm": norm, "train/learning_rate": result.rate}
            if skipped_steps:
                metrics["train/overflows"] = float(skipped_steps)
            if self.bad:
                metrics["train/bad_steps"] = float(self.bad)
            for logger in loggers:
                logger.log_metrics(metrics, step=step)
            shown = {"loss": loss, "lr": result.rate}
        return shown

    def _count_bad(self, step: int, result: StepResult, loss: float, norm: float, max_bad_steps: int) -> None:
        if math.isfinite(loss) and (result.overflow or math.isfinite(norm)):
            self._in_a_row = 0
            return
        self.bad += 1
        self._in_a_row += 1
        named = ", ".join(result.ids[:_NAMED]) + (", …" if len(result.ids) > _NAMED else "")
        say(
            f"Step {step} is left out: its loss is {loss}, its gradient's norm {norm}; its questions: {named}"
        )
        if self._in_a_row >= max_bad_steps:
            raise FloatingPointError(
                f"the loss or the gradient of {self._in_a_row} steps in a row was no finite number, the last is step "
                f"{step}: lower --model.learning_rate, or use --trainer.precision bf16-mixed instead of "
                "16-mixed; the adapter and checkpoints written before are whole"
            )
