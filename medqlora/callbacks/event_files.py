"""TensorBoard's event files, on a disk that may fill up: that costs points of a curve, and no run."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from medqlora.utils.console import say

#: seconds after which writing is tried again
_PATIENCE_S = 30.0


class EventFiles(TensorBoardLogger):
    """Lightning's TensorBoard logger, whose writer's OSErrors are said once and leave points out.

    TensorBoard's own writer ends at its first error, raises it at every later call, and nothing that follows a
    record cut off in the middle is read: so where there is room again a new file is begun.

    Args:
        options: of Lightning's `TensorBoardLogger`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._guarded = _Guarded(self)
        self._again_at = 0.0
        self._agreed_scalar = False

    @property
    def experiment(self) -> Any:
        """TensorBoard's SummaryWriter, its methods guarded."""
        return self._guarded

    def attempt(self, name: str, *args: Any, **options: Any) -> Any:
        """The writer's method of this name; None where it finds no room."""
        if time.monotonic() < self._again_at:
            return None
        try:
            done = getattr(TensorBoardLogger.experiment.fget(self), name)(*args, **options)  # type: ignore[attr-defined]
        except OSError as error:
            self._leave(error)
            return None
        if name == "flush":  # what was kept back is written
            self._agreed_scalar = False
        return done

    def _leave(self, error: OSError) -> None:
        writer, self._experiment = self._experiment, None
        self._again_at = time.monotonic() + _PATIENCE_S
        if writer is not None:
            with contextlib.suppress(Exception):  # it says again what it has said
                writer.close()
        if not self._agreed_scalar:
            self._agreed_scalar = True
            say(
                f"No room for TensorBoard's events in {self.log_dir} ({error.strerror}): points are left out until "
                "there is, and training goes on: make room on that disk"
            )


class _Guarded:
    """What is called on it is called on the logger's writer of that moment."""

    def __init__(self, logger: EventFiles) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> Any:
            return self._logger.attempt(name, *args, **options)

        return call


def silence_writer_threads() -> None:
    """Keeps the traceback of TensorBoard's writing thread from the screen: `EventFiles` says what it means."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread" or not isinstance(args.exc_value, OSError):
            before(args)

    threading.excepthook = hook
