"""The inference process: builds an engine, and carries jobs and events over a pipe."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from medqlora.errors import InputError
from medqlora.serving.engine import Engine, EngineSpec, Event, Failed, Inbox, Job, ServedModel
from medqlora.utils.libraries import quiet_libraries

#: seconds for which one thread may keep Python from the others
_SWITCH_S = 0.0005


@dataclass(frozen=True)
class Ready:
    """The process has loaded its models; the self-test's log-probabilities, by model."""

    models: dict[str, ServedModel]
    self_test: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class NotReady:
    """The process can't load its models: the message, and whether it is the user's to put right."""

    message: str
    input_error: bool


@dataclass(frozen=True)
class Cancel:
    """The client of this job has gone."""

    id: str


@dataclass(frozen=True)
class Load:
    """Load an adapter; `folder` None unloads it."""

    id: str
    name: str
    folder: str | None


@dataclass(frozen=True)
class Changed:
    """The answer to `Load`: the models that are now served."""

    id: str
    models: dict[str, ServedModel]
    self_test: dict[str, tuple[float, ...]]


ToWorker = Job | Cancel | Load | None
FromWorker = Ready | NotReady | Changed | list[Event]


def main(spec: EngineSpec, pipe: Connection) -> None:
    """Runs until the pipe ends or sends None; the service's own end closes the pipe.

    Signals to the process group are the service's business: it drains, and then ends this process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    quiet_libraries()
    if not spec.unsloth:
        _quiet()
    # the thread that runs the model has to have Python back as soon as a pass ends
    sys.setswitchinterval(_SWITCH_S)
    if spec.threads:
        import torch

        torch.set_num_threads(spec.threads)
    sending = threading.Lock()

    def send(message: FromWorker) -> None:
        with sending:
            try:
                pipe.send(message)
            except OSError:
                os._exit(0)  # the service has ended

    work = _Work()
    threading.Thread(target=work.receive, args=(pipe,), name="inbox", daemon=True).start()
    engine = _built(spec, send)
    if engine is None:
        return
    work.begin(engine)
    inbox, orders, wake = work.inbox, work.orders, work.wake

    def emit(events: Sequence[Event]) -> None:
        if events:
            send(list(events))

    while True:
        wake.wait()
        wake.clear()
        while orders or len(inbox) or engine.busy:
            if orders:
                send(_obeyed(orders.pop(0), engine))
                continue
            try:
                engine.work(inbox, emit)
            except Exception as error:
                # which jobs were under way is not known for sure: a fresh process is, and its jobs get 503
                send(NotReady(f"{type(error).__name__} in the engine", False))
                os._exit(1)


class _Work:
    """What the service sends, taken in by a thread of its own."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.orders: list[Load] = []
        self.wake = threading.Event()
        self._begun = threading.Event()
        self._engine: Engine | None = None

    def begin(self, engine: Engine) -> None:
        """The engine is loaded."""
        self._engine = engine
        self._begun.set()

    def receive(self, pipe: Connection) -> None:
        """Ends this process when the service has ended, or wants it to: loading, or a step, is of no use then."""
        with contextlib.suppress(EOFError, OSError):
            while (message := pipe.recv()) is not None:
                self._begun.wait()
                assert self._engine is not None
                if isinstance(message, Job):
                    self.inbox.put(message, self._engine.prepare(message))
                elif isinstance(message, Cancel):
                    self.inbox.cancel(message.id)
                else:
                    self.orders.append(message)
                self.wake.set()
        os._exit(0)


def _quiet() -> None:
    """No progress bars; tqdm's lock between processes would outlive this one."""
    import tqdm
    from transformers.utils import logging

    tqdm.tqdm.set_lock(threading.RLock())
    logging.disable_progress_bar()


def _built(spec: EngineSpec, send: Callable[[FromWorker], None]) -> Engine | None:
    """The engine, whose models and self-test are sent; None where it can't be built, which is sent too."""
    from medqlora.serving.engines import build_engine

    try:
        engine = build_engine(spec)
        send(Ready(dict(engine.models), engine.self_test()))
    except InputError as error:
        send(NotReady(str(error), True))
    except Exception as error:
        send(NotReady(f"{type(error).__name__}: {error}", False))
    else:
        return engine
    return None


def _obeyed(order: Load, engine: Engine) -> FromWorker:
    """Loads or unloads an adapter between two batches."""
    try:
        if order.folder is None:
            engine.unload(order.name)
        else:
            engine.load(order.name, order.folder)
    except InputError as error:
        return [Failed(order.id, 400, str(error))]
    return Changed(order.id, dict(engine.models), engine.self_test())
