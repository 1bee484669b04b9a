"""A progress bar that never asks the device for a number."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class StepProgress(TQDMProgressBar):
    """Lightning's bar, fed with the host's numbers alone: loss, rate, tokens/s, validation accuracy.

    The usual way, logging tensors with `prog_bar=True`, makes the device finish before each refresh.

    Args:
        refresh_rate: steps between refreshes; 0 hides the bar.
        leave: keep the bar of each finished epoch on the screen.
    """

    def __init__(self, refresh_rate: int = 1, leave: bool = False) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=leave)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown: dict[str, float] = getattr(pl_module, "shown", {})
        return {name: f"{value:.4g}" for name, value in shown.items()}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the bars: what is said of the exception has a line of its own."""
        for bar in (self._train_progress_bar, self._val_progress_bar, self._test_progress_bar):
            if bar is not None:
                bar.close()
