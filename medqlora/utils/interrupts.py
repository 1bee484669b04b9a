"""Signals and errors that end a command after work was done: what the command line says of them."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Interrupted(BaseException):
    """A signal ended the run after a whole step; the command line turns it into the exit code.

    Not an Exception, so that nothing on the way takes it for a failure.

    Attributes:
        signal: which.
        step: the optimizer step of the newest checkpoint; None where there is none.
    """

    def __init__(self, number: int, step: int | None) -> None:
        self.signal = signal.Signals(number)
        self.step = step
        super().__init__(f"{self.signal.name} after step {step}")

    @property
    def exit_code(self) -> int:
        """As a shell names it: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.signal.value


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """SIGTERM and SIGINT raise `Interrupted` within; a second one is as it was before.

    By itself Python knows the second alone, with a traceback, and Lightning, where it is not training, takes notice
    of a SIGTERM and goes on. A process that another one began is left to that.
    """
    if threading.current_thread() is not threading.main_thread() or "LOCAL_RANK" in os.environ:
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    # what was told to ignore it, as a shell does for what runs in the background, goes on doing so
    before = {
        one: signal.getsignal(one) for one in numbers if signal.getsignal(one) not in (signal.SIG_IGN, None)
    }

    def end(number: int, frame: Any) -> None:
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
    """An error ended a fit that had left a checkpoint; the command line says both.

    Attributes:
        error: what ended it.
        step: the optimizer step of the newest checkpoint.
    """

    def __init__(self, error: Exception, step: int) -> None:
        self.error = error
        self.step = step
        super().__init__(f"{type(error).__name__} after step {step}")
