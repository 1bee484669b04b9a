"""The interface of an engine: jobs in, events out. The HTTP side and the engines share these types alone.

An engine runs in a process of its own (`medqlora.serving.worker`). It takes jobs from its inbox whenever it has room,
so that it may batch continuously, and emits events as soon as they are known.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from medqlora.inference.answer import Answer
from medqlora.records import Record
from medqlora.utils.types import Json

#: the name of the base model without an adapter
BASE = "base"
#: cancellations that are kept
_MOST_CANCELLED = 10_000


@dataclass(frozen=True)
class ServedModel:
    """One model that requests can name: the base model, or it with an adapter.

    Attributes:
        name: as requests name it.
        base: the base model's name; the last part of a folder's path.
        labels: the decisions for a question without options.
        threshold: least calibrated confidence of an answer; None without a calibration.
        calibrated_on: number of validation questions of the calibration.
        wants_context: whether the adapter was trained with contexts.
        remarks: what a user has to know of it, a line each.
        reads_images: whether questions may have images.
    """

    name: str
    base: str
    labels: tuple[str, ...]
    threshold: float | None = None
    calibrated_on: int | None = None
    wants_context: bool = False
    remarks: tuple[str, ...] = ()
    reads_images: bool = False

    def to_json(self) -> dict[str, Json]:
        """Plain values."""
        return {
            "base": self.base,
            "labels": list(self.labels),
            "threshold": self.threshold,
            "calibrated_on": self.calibrated_on,
            "wants_context": self.wants_context,
            "remarks": list(self.remarks),
            **({"images": True} if self.reads_images else {}),
        }


@dataclass(frozen=True)
class Job:
    """One question to an engine.

    Attributes:
        id: the request's, unique among open jobs.
        model: name of the served model.
        record: the question; its id is the job's.
        write: whether to generate a text; else the labels alone are scored.
        max_new_tokens: length limit of the text.
        temperature: 0 for greedy decoding.
        seed: of the sampling.
        stop: texts that end the generated text; they are left out of it.
        stream: whether to emit `Delta` events.
        top_logprobs: number of likeliest tokens to report at each step; None for no log-probabilities.
    """

    id: str
    model: str
    record: Record
    write: bool = True
    max_new_tokens: int = 96
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    top_logprobs: int | None = None


class TokenLogprob(NamedTuple):
    """A generated token: its text, its log-probability in nats, and the likeliest tokens of its step."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Scores:
    """The labels are scored: `answer` holds the decision, before any text is generated.

    Attributes:
        id, answer, prompt_tokens, sources: as in `Done`.
    """

    id: str
    answer: Answer
    prompt_tokens: int
    sources: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class Delta:
    """More of the generated text; `text` is the whole text so far."""

    id: str
    text: str


@dataclass(frozen=True)
class Done:
    """The complete answer.

    Attributes:
        id: the job's.
        answer: the answer.
        prompt_tokens, completion_tokens: numbers of tokens.
        finish: `stop`, or `length` where the limit ended the text.
        logprobs: of the generated tokens, where they were asked for.
        sources: of the answer, as plain values, where the service has an index.
    """

    id: str
    answer: Answer
    prompt_tokens: int
    completion_tokens: int = 0
    finish: str = "stop"
    logprobs: tuple[TokenLogprob, ...] = ()
    sources: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class Failed:
    """The job can't be answered: an HTTP status, and a message for the client."""

    id: str
    status: int
    message: str


Event = Scores | Delta | Done | Failed
Emit = Callable[[Sequence[Event]], None]


class Inbox:
    """The jobs that wait for an engine, first come, first served; filled by another thread."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[Job, object]] = deque()
        self._cancelled: set[str] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job, prepared: object = None) -> None:
        """`prepared` is what `Engine.prepare` made of the job."""
        self._jobs.append((job, prepared))

    def take(self) -> Job | None:
        """The next job; None where none waits. Cancelled jobs are left out."""
        job, _ = self.take_prepared() or (None, None)
        return job

    def take_prepared(self) -> tuple[Job, object] | None:
        """The next job with what was prepared for it."""
        while self._jobs:
            job, prepared = self._jobs.popleft()
            if job.id not in self._cancelled:
                return job, prepared
            self._cancelled.discard(job.id)
        return None

    def cancel(self, job_id: str) -> None:
        if len(self._cancelled) >= _MOST_CANCELLED:  # of jobs that had ended when the cancellation came
            self._cancelled.clear()
        self._cancelled.add(job_id)

    def cancelled(self, job_id: str) -> bool:
        return job_id in self._cancelled

    def forget(self, job_id: str) -> None:
        """The job has ended; its cancellation need not be kept."""
        self._cancelled.discard(job_id)


class Engine(Protocol):
    """Answers jobs with loaded models. All methods but `prepare` are called by one thread."""

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """Name → model."""

    @property
    def busy(self) -> bool:
        """Whether jobs that were taken from the inbox are not answered yet."""

    def prepare(self, job: Job) -> object:
        """What can be done for a job before its turn, for the inbox; None for nothing. Called by another thread."""

    def work(self, inbox: Inbox, emit: Emit) -> None:
        """Takes jobs as far as there is room, and answers some of them.

        Every job ends with `Done` or `Failed`, except a cancelled one. A continuous engine may take further jobs
        between two tokens.
        """

    def self_test(self) -> dict[str, tuple[float, ...]]:
        """Model → log-probabilities of the labels of a fixed question, in nats."""

    def load(self, name: str, folder: str) -> ServedModel:
        """Loads a further adapter of the same base model.

        Raises:
            InputError: it doesn't fit, or this engine loads none.
        """

    def unload(self, name: str) -> None:
        """Frees an adapter."""


@dataclass(frozen=True)
class EngineSpec:
    """How an inference process builds its engine; plain values that can be sent to it.

    Attributes:
        engine: local, vllm or llama.cpp.
        adapters: name → folder, the first is the default; empty for the base model alone.
        base, backend, device, note, max_new_tokens, batch_tokens, rows, url, gguf: as in `ServeOptions`.
        threads: CPU threads of this process; 0 for the library's choice.
        unsloth: whether Unsloth loads the model: it has to be imported before transformers and PEFT.
    """

    engine: str
    adapters: Mapping[str, str]
    base: str | None
    backend: str | None
    device: str
    note: str
    max_new_tokens: int
    batch_tokens: int
    rows: int
    url: str | None = None
    gguf: str | None = None
    threads: int = 0
    unsloth: bool = False
