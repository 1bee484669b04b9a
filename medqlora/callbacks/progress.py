"""A progress bar that never asks the device for a number."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from medqlora.config.callbacks import ProgressOptions


class StepProgress(TQDMProgressBar):
    """Lightning's bar, fed with the host's numbers alone: loss, rate, tokens/s, validation accuracy.

    The usual way, logging tensors with `prog_bar=True`, makes the device finish before each refresh.

    Args:
        options: those of `medqlora.config.ProgressOptions`.
    """

    def __init__(self, **options: Any) -> None:
        settings = ProgressOptions(**options)
        super().__init__(refresh_rate=settings.refresh_rate, leave=settings.leave)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown: dict[str, float] = getattr(pl_module, "shown", {})
        return {name: f"{value:.4g}" for name, value in shown.items()}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the bars: what is said of the exception has a line of its own."""
        for bar in (self._train_progress_bar, self._val_progress_bar, self._test_progress_bar):
            if bar is not None:
                bar.close()
