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
            pipe.send(message)

    engine = _built(spec, send)
    if engine is None:
        return
    inbox, wake = Inbox(), threading.Event()
    orders: list[Load] = []

    def receive() -> None:
        with contextlib.suppress(EOFError, OSError):
            while (message := pipe.recv()) is not None:
                if isinstance(message, Job):
                    inbox.put(message, engine.prepare(message))
                elif isinstance(message, Cancel):
                    inbox.cancel(message.id)
                else:
                    orders.append(message)
                wake.set()
        os._exit(0)  # the service has ended, or wants this process to: a step under way is of no use

    threading.Thread(target=receive, name="inbox", daemon=True).start()

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
