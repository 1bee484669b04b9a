"""Signals and errors that end a command after work was done; the command line reports them."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupted(BaseException):
    """A signal ended the run after a complete step; the command line turns it into the exit code.

    Not an Exception, so that no handler of errors takes it for a failure.

    Attributes:
        signal: the signal.
        step: the optimizer step of the newest checkpoint; None without a checkpoint.
    """

    def __init__(self, number: int, step: int | None) -> None:
        self.signal = signal.Signals(number)
        self.step = step
        super().__init__(f"{self.signal.name} after step {step}")

    @property
    def exit_code(self) -> int:
        """The shell's code: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.signal.value


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """A block in which SIGTERM and SIGINT raise `Interrupted`; a second signal meets the earlier handler.

    Python by itself handles SIGINT alone, with a traceback. Lightning, outside training, notes a SIGTERM and goes on.
    A process that another one started keeps its handlers.
    """
    if threading.current_thread() is not threading.main_thread() or "LOCAL_RANK" in os.environ:
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    # an ignored signal stays ignored: a shell sets that for background processes
    before = {
        number: signal.getsignal(number)
        for number in numbers
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }

    def end(number: int, frame: FrameType | None) -> None:
        put_back()
        raise Interrupted(number, None)

    def put_back() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is end:
                signal.signal(number, handler)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        put_back()


class FitError(Exception):
    """An error ended a fit that had written a checkpoint; the command line reports both.

    Attributes:
        error: the error.
        step: the optimizer step of the newest checkpoint.
    """

    def __init__(self, error: Exception, step: int) -> None:
        self.error = error
        self.step = step
        super().__init__(f"{type(error).__name__} after step {step}")
