"""A progress bar that reads no number from the device."""

import contextlib

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from medqlora.callbacks.attached import qlora_module
from medqlora.config.callbacks import ProgressOptions


class StepProgress(TQDMProgressBar):
    """Lightning's bar with numbers that are on the host: loss, learning rate, tokens/s, validation accuracy.

    Tensors that are logged with `prog_bar=True` would cost a device sync at each refresh.

    Args:
        values, options: those of `medqlora.config.ProgressOptions`.
    """

    def __init__(self, *values: object, **options: object) -> None:
        settings = ProgressOptions(*values, **options)  # type: ignore[arg-type]  # checked where the options are read
        super().__init__(refresh_rate=settings.refresh_rate, leave=settings.leave)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        return {name: f"{value:.4g}" for name, value in qlora_module(pl_module).shown.items()}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the bars, so that the error's message gets a line of its own."""
        for name in ("train_progress_bar", "val_progress_bar", "test_progress_bar"):
            with contextlib.suppress(TypeError):  # Lightning's, for a bar that was not shown yet
                getattr(self, name).close()
