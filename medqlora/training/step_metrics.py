"""The figures of training steps, which stay on the device until they are logged; and steps that went wrong."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medqlora.utils.console import say

#: ids that a message names, of a step's
_NAMED = 16


class StepFigures(NamedTuple):
    """Of one optimizer step; scalars on the device.

    Attributes:
        step: its number.
        loss, grad_norm: of the whole step, the norm before it was clipped.
        rate: the learning rate.
        ids: the step's questions.
        overflow: the loss scaler found one, and left the step out by itself.
    """

    step: int
    loss: Tensor
    grad_norm: Tensor
    rate: float
    ids: tuple[str, ...] = ()
    overflow: bool = False


def clip_or_leave_out(parameters: Sequence[Tensor], limit: float, loss: Tensor) -> Tensor:
    """Scales the gradients down to the norm `limit`; where it or the loss is no finite number, all become 0.

    The optimizer then sees a step without a gradient: nothing that isn't a number reaches a weight or the
    optimizer's state, and the host has not waited to know.

    Returns:
        The norm before.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    good = torch.isfinite(norm) & torch.isfinite(loss.to(norm.device))
    factor = torch.where(good, (limit / (norm + 1e-6)).clamp(max=1.0), 0.0)
    for gradient in gradients:
        gradient.nan_to_num_(0.0, 0.0, 0.0).mul_(factor)
    return norm


class StepMetrics:
    """Collects the figures of each step, and reads many from the device at once."""

    def __init__(self) -> None:
        self._pending: list[StepFigures] = []
        #: steps that were left out, in all and since the last good one
        self.bad = self._in_a_row = 0

    def add(self, figures: StepFigures) -> None:
        """The device isn't waited for."""
        self._pending.append(figures)

    def flush(self, loggers: Iterable[Any], skipped_steps: int, max_bad_steps: int) -> dict[str, float]:
        """Logs every step since the last call: one message from the device for all of them.

        Args:
            loggers: Lightning's.
            skipped_steps: how many steps the loss scaler has left out so far.
            max_bad_steps: how many in a row may be no finite number.

        Returns:
            What a progress bar shows of the newest step; empty where there was none.

        Raises:
            FloatingPointError: more than that were.
        """
        if not self._pending:
            return {}
        values = torch.stack(
            [torch.stack((one.loss, one.grad_norm.to(one.loss))) for one in self._pending]
        ).tolist()
        pending, self._pending = self._pending, []
        shown: dict[str, float] = {}
        for one, (loss, norm) in zip(pending, values, strict=True):
            self._judge(one, loss, norm, max_bad_steps)
            metrics = {"train/loss": loss, "train/grad_norm": norm, "train/learning_rate": one.rate}
            if skipped_steps:
                metrics["train/overflows"] = float(skipped_steps)
            if self.bad:
                metrics["train/bad_steps"] = float(self.bad)
            for logger in loggers:
                logger.log_metrics(metrics, step=one.step)
            shown = {"loss": loss, "lr": one.rate}
        return shown

    def _judge(self, one: StepFigures, loss: float, norm: float, max_bad_steps: int) -> None:
        if math.isfinite(loss) and (one.overflow or math.isfinite(norm)):
            self._in_a_row = 0
            return
        self.bad += 1
        self._in_a_row += 1
        named = ", ".join(one.ids[:_NAMED]) + (", …" if len(one.ids) > _NAMED else "")
        say(
            f"Step {one.step} is left out: its loss is {loss}, its gradient's norm {norm}; its questions: {named}"
        )
        if self._in_a_row >= max_bad_steps:
            raise FloatingPointError(
                f"the loss or the gradient of {self._in_a_row} steps in a row was no finite number, the last is step "
                f"{one.step}: lower --model.learning_rate, or use --trainer.precision bf16-mixed instead of "
                "16-mixed; the adapter and checkpoints written before are whole"
            )
