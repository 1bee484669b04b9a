"""The inference processes as the HTTP side sees them: jobs in, events out, crashed processes replaced."""

import asyncio
import contextlib
import multiprocessing
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

from medqlora.errors import InputError
from medqlora.serving.engine import Done, EngineSpec, Event, Failed, Job, ServedModel
from medqlora.serving.mailbox import Mailbox
from medqlora.serving.process import InferenceProcess
from medqlora.serving.self_test import SelfTest
from medqlora.serving.worker import Cancel, Changed, FromWorker, Load, NotReady, Ready
from medqlora.utils.console import say

#: seconds before a crashed process is replaced; doubled with every crash that follows before it was ready
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_GONE = "the inference process ended while it answered; the question was not answered: ask again"


class UnavailableError(Exception):
    """No process can take the job now: 503.

    Attributes:
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Pool:
    """One inference process per device, supervised.

    Args:
        specs: one per process; all serve the same models.
        queue: most open jobs.
        self_test: compares the answers of every process with the stored ones.
        on_restart: called when a process has crashed.
    """

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        queue: int,
        self_test: SelfTest,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self._specs = list(specs)
        self._queue = queue
        self._self_test = self_test
        self.on_restart = on_restart
        self._processes: list[InferenceProcess | None] = [None] * len(specs)
        self._events: dict[str, Mailbox[Event | Changed]] = {}
        self._place: dict[str, int] = {}
        self._failures = [0] * len(specs)
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = [asyncio.Event() for _ in specs]
        self._stopping = False
        self.models: dict[str, ServedModel] = {}
        #: why a process can't serve, by its number
        self.problems: dict[int, str] = {}
        self.fatal: InputError | None = None
        #: whether a process gave other log-probabilities than the stored ones
        self._differing = False

    @property
    def open_jobs(self) -> int:
        return len(self._events)

    @property
    def ready(self) -> int:
        """Number of processes that take jobs."""
        return sum(process is not None and process.ready for process in self._processes)

    @property
    def pids(self) -> list[int]:
        """Process ids of those that run."""
        return [process.pid for process in self._processes if process is not None and process.pid]

    async def start(self) -> None:
        """Starts all processes, and waits until each is ready or has failed.

        Raises:
            InputError: a model can't be loaded.
            RuntimeError: a process failed before it was ready.
        """
        for number in range(len(self._specs)):
            self._launch(number)
        await asyncio.gather(*(event.wait() for event in self._started))
        if self.fatal is not None:
            raise self.fatal
        if not self.ready and self._differing:
            raise InputError("; ".join(self.problems.values()))
        if not self.ready:
            raise RuntimeError("; ".join(self.problems.values()) or "no inference process started")

    async def stop(self) -> None:
        """Ends all processes."""
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        running = [process for process in self._processes if process is not None]
        for process in running:
            process.stop()
        await asyncio.gather(*(asyncio.to_thread(process.join, 5.0) for process in running))

    def kill(self) -> None:
        """Ends what `stop` has not: processes ignore SIGTERM, and Python would wait for them as it exits."""
        self._stopping = True
        for process in self._processes:
            if process is not None:
                process.kill()

    async def run(self, job: Job) -> AsyncGenerator[Event, None]:
        """The events of one job, the last one `Done` or `Failed`. Closing the iterator cancels the job.

        Raises:
            UnavailableError: the queue is full, or no process is ready.
        """
        if len(self._events) >= self._queue:
            raise UnavailableError(f"{self._queue} questions wait already: ask again later", 2)
        number = self._least_busy()
        process = self._processes[number]
        assert process is not None
        events: Mailbox[Event | Changed] = Mailbox()
        self._events[job.id] = events
        self._place[job.id] = number
        ended = False
        try:
            process.send(job)
            while not ended:
                event = await events.get()
                if isinstance(event, Changed):
                    continue
                ended = isinstance(event, (Done, Failed))
                yield event
        finally:
            del self._events[job.id], self._place[job.id]
            if not ended and self._processes[number] is process:
                process.send(Cancel(job.id))

    async def change(self, order: Load) -> None:
        """Loads or unloads an adapter in every process; a process that is replaced later has it too.

        Raises:
            InputError: a process refuses it.
            UnavailableError: a process is not ready.
        """
        if self.ready < len(self._specs):
            raise UnavailableError("an inference process is not ready yet")
        for number, process in enumerate(self._processes):
            assert process is not None
            own = replace(order, id=f"{order.id}-{number}")
            events: Mailbox[Event | Changed] = Mailbox()
            self._events[own.id], self._place[own.id] = events, number
            try:
                process.send(own)
                answer = await events.get()
            finally:
                del self._events[own.id], self._place[own.id]
            if isinstance(answer, Failed):
                if answer.status == 503:
                    raise UnavailableError(answer.message)
                raise InputError(answer.message)
            if isinstance(answer, Changed):
                if order.folder is not None:
                    self._self_test.add(order.name, order.folder)
                self._self_test.checked(answer.self_test)
            self._specs[number] = _with_adapter(self._specs[number], order)
            if isinstance(answer, Changed):
                self.models = answer.models

    def _least_busy(self) -> int:
        ready = [number for number, process in enumerate(self._processes) if process and process.ready]
        if not ready:
            raise UnavailableError("no inference process is ready: the model is being loaded")
        loads = dict.fromkeys(ready, 0)
        for number in self._place.values():
            if number in loads:
                loads[number] += 1
        return min(ready, key=lambda number: (loads[number], number))

    def _launch(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        started = context(unsloth=self._specs[number].unsloth)

        def received(process: InferenceProcess, message: FromWorker | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._received, number, process, message)

        self._processes[number] = InferenceProcess(self._specs[number], started, received)

    def _received(self, number: int, process: InferenceProcess, message: FromWorker | None) -> None:
        """One message of a process; None when it has ended."""
        if self._processes[number] is not process:
            return
        if message is None:
            self._ended(number, process)
        elif isinstance(message, Ready):
            problem = self._self_test.checked(message.self_test)
            self.models = message.models
            if problem is None:
                process.ready = True
                self._failures[number] = 0
                self.problems.pop(number, None)
            else:
                self.problems[number] = problem
                self._differing = True
            self._started[number].set()
        elif isinstance(message, NotReady):
            self.problems[number] = message.message
            if message.input_error:
                self.fatal = InputError(message.message)
        elif isinstance(message, Changed):
            self._deliver(message.id, message)
        else:
            for event in message:
                self._deliver(event.id, event)

    def _deliver(self, job_id: str, event: Event | Changed) -> None:
        events = self._events.get(job_id)
        if events is not None:
            events.put(event)

    def _ended(self, number: int, process: InferenceProcess) -> None:
        """A process has ended: its jobs fail at once, and another one is started."""
        self._processes[number] = None
        process.ready = False
        for job_id, place in list(self._place.items()):
            if place == number:
                self._deliver(job_id, Failed(job_id, 503, _GONE))
        if self._stopping:
            return
        first_start = not self._started[number].is_set()
        self.problems.setdefault(number, "an inference process ended by itself")
        self._started[number].set()
        if first_start and self.fatal is None and self._failures[number] == 0:
            return  # it never worked: `start` reports it
        if self.fatal is not None:
            return
        self.on_restart()
        self._failures[number] += 1
        pause = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** (self._failures[number] - 1))
        task = asyncio.get_running_loop().create_task(self._relaunch(number, pause))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError):  # nobody reads the output any more
            say(f"Inference process {number} ended by itself; another one starts in {pause:g} s")

    async def _relaunch(self, number: int, pause: float) -> None:
        await asyncio.sleep(pause)
        if not self._stopping:
            self._launch(number)


def context(*, unsloth: bool = False) -> "multiprocessing.context.BaseContext":
    """How processes are started: from a server process that has imported torch, or anew where there is none.

    A crashed process is then replaced without importing torch again. Neither way copies the service's own state.

    Args:
        unsloth: whether Unsloth loads the model; it has to be imported before transformers and PEFT.
    """
    if sys.platform == "win32" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["torch" if unsloth else "medqlora.serving.preload"])
    return made


def _with_adapter(spec: EngineSpec, order: Load) -> EngineSpec:
    adapters = dict(spec.adapters)
    if order.folder is None:
        adapters.pop(order.name, None)
    else:
        adapters[order.name] = order.folder
    return replace(spec, adapters=adapters)
