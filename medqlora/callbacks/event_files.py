"""TensorBoard's event files on a disk that may fill up: points of a curve are lost, the run is not."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from medqlora.compat.lightning_callbacks import drop_writer
from medqlora.compat.tensorboard import write_session
from medqlora.utils.console import say

#: seconds after which writing is tried again
_PATIENCE_S = 30.0
#: TensorBoard sorts its groups by name: these come behind train and val
_LATER = {
    "best": "x-best",
    "epoch": "x-progress",
    "memory": "x-memory",
    "test": "x-test",
    "throughput": "x-speed",
}


def tag_of(metric: str) -> str:
    """The metric's name in TensorBoard: "memory/fit/peak_gib" is "x-memory/fit/peak_gib"."""
    group, _, rest = metric.partition("/")
    return f"{_LATER[group]}/{rest or metric}" if group in _LATER else metric


class EventFiles(TensorBoardLogger):
    """Lightning's TensorBoard logger that survives OSErrors of its writer: it reports them once and loses points.

    TensorBoard's own writer stops at its first error and raises it at every later call. Readers skip everything behind
    a record that was cut off. So the logger begins a new file where there is room again.

    Args:
        options: of Lightning's `TensorBoardLogger`.
    """

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # the parent's own parameters
        self._guarded = _GuardedWriter(self)
        self._retry_at_s = 0.0
        self._reported = False

    @property
    def experiment(self) -> "_GuardedWriter":
        """TensorBoard's SummaryWriter, its methods guarded."""
        return self._guarded

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs scalars, those of the machine in groups behind the training's and the validation's curves."""
        super().log_metrics({tag_of(name): value for name, value in metrics.items()}, step)

    def log_session(
        self,
        options: Mapping[str, str | float],
        columns: Mapping[str, str | float],
        metrics: Iterable[str],
        scores: Mapping[str, float],
        step: int,
    ) -> None:
        """Writes the run's row of the HPARAMS table; `scores` are logged at `step`. See `write_session`."""
        self.log_metrics(scores, step)
        tags = [tag_of(name) for name in metrics]
        self._attempt(lambda writer: write_session(writer, options, columns, tags))

    def attempt(self, name: str, *args: object, **options: object) -> object:
        """Calls the writer's method of this name; None where the disk has no room for it."""
        return self._attempt(lambda writer: getattr(writer, name)(*args, **options), flushes=name == "flush")

    def _attempt(self, write: Callable[[SummaryWriter], object], *, flushes: bool = False) -> object:
        if time.monotonic() < self._retry_at_s:
            return None
        try:
            result = write(super().experiment)
        except OSError as error:
            self._report(error)
            return None
        if flushes:  # everything that was buffered is written
            self._reported = False
        return result

    def _report(self, error: OSError) -> None:
        writer = drop_writer(self)
        self._retry_at_s = time.monotonic() + _PATIENCE_S
        if writer is not None:
            with contextlib.suppress(Exception):  # it repeats the error
                writer.close()
        if not self._reported:
            self._reported = True
            say(
                f"No room for TensorBoard's events in {self.log_dir} ({error.strerror}): points are left out until "
                "there is, and training goes on: make room on that disk"
            )


class _WriterMethod(Protocol):
    def __call__(self, *args: object, **options: object) -> object: ...


class _GuardedWriter:
    """Passes each call on to the logger's current writer."""

    def __init__(self, logger: EventFiles) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> _WriterMethod:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: object, **options: object) -> object:
            return self._logger.attempt(name, *args, **options)

        return call


def silence_writer_threads() -> None:
    """Hides the traceback of TensorBoard's writing thread for an OSError: `EventFiles` reports it."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread" or not isinstance(args.exc_value, OSError):
            before(args)

    threading.excepthook = hook
