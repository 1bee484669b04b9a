"""One inference process, with a thread for each direction of its pipe: the event loop never waits for either."""

import contextlib
import queue
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext

from medqlora.serving.engine import EngineSpec
from medqlora.serving.worker import FromWorker, ToWorker, main

#: gets the process and its message; None when it has ended
Received = Callable[["InferenceProcess", FromWorker | None], None]


class InferenceProcess:
    """A running inference process.

    Args:
        spec: its engine.
        context: how it is started.
        received: called by a thread of its own.
    """

    def __init__(self, spec: EngineSpec, context: BaseContext, received: Received) -> None:
        #: whether it takes jobs
        self.ready = False
        self._received = received
        self._pipe, theirs = context.Pipe()
        # daemon: it ends with this process, also where nobody calls `stop`
        self._process = context.Process(  # type: ignore[attr-defined]
            target=main, args=(spec, theirs), name="medqlora inference", daemon=True
        )
        self._outbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        threading.Thread(target=self._start, args=(theirs,), name="inference", daemon=True).start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, message: ToWorker) -> None:
        """Never waits; a message to a process that has ended is lost, and its end is reported."""
        self._outbox.put(message)

    def stop(self) -> None:
        """Ends it; what it does is given up."""
        self.ready = False
        self._outbox.put(None)

    def join(self, timeout_s: float) -> None:
        """Waits for its end, and kills it after that time."""
        with contextlib.suppress(AssertionError, ValueError):  # it was never started
            self._process.join(timeout_s)
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join(timeout_s)

    def kill(self) -> None:
        """Ends it at once."""
        with contextlib.suppress(AssertionError, ValueError, OSError, AttributeError):  # it was never started
            self._process.kill()

    def _start(self, theirs: Connection) -> None:
        """Starts the process: with a fork server that takes seconds, in which it imports torch."""
        try:
            self._process.start()
        except (OSError, EOFError):
            self._received(self, None)
            return
        theirs.close()
        threading.Thread(target=self._write, name="outbox", daemon=True).start()
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._received(self, self._pipe.recv())
        self._outbox.put(None)
        self._process.join()  # no zombie is left
        self._received(self, None)

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                message = self._outbox.get()
                self._pipe.send(message)
                if message is None:
                    return
