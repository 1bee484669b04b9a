"""The jobs that wait for the local engine, and which of them go through the model together."""

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from medqlora.records import Encoded
from medqlora.serving.engine import Job
from medqlora.serving.engines.answering import Spoken
from medqlora.serving.engines.rows import Row


@dataclass(frozen=True)
class Loaded:
    """A served model.

    Attributes:
        spoken: how it is asked.
        adapter: PEFT's name of its adapter; `NO_ADAPTER` for the base model.
        ends: token ids that end a text.
        mixes: whether a batch may hold its rows beside those of other adapters.
    """

    spoken: Spoken
    adapter: str
    ends: tuple[int, ...]
    mixes: bool


@dataclass(frozen=True, eq=False)
class Waiting:
    """A job whose question is encoded; `row` is its text's."""

    job: Job
    loaded: Loaded
    encoded: Encoded
    row: Row = field(init=False)

    def __post_init__(self) -> None:
        job, encoded = self.job, self.encoded
        row = Row(
            encoded.prompt,
            job.max_new_tokens,
            job.temperature,
            secrets.randbits(63) if job.seed is None else job.seed,
            job.stop,
            job.top_logprobs,
            self.loaded.adapter,
            job.stream,
            encoded.images,
            self.loaded.ends,
        )
        object.__setattr__(self, "row", row)

    @property
    def patient(self) -> bool:
        """Whether nobody sees its scores before its text."""
        return self.job.write and not self.job.stream

    @property
    def tokens(self) -> int:
        return len(self.encoded.prompt) + (self.job.max_new_tokens if self.job.write else 0)


class LabelScores(NamedTuple):
    """The labels' log-likelihoods in nats, and their numbers of tokens."""

    logprobs: tuple[float, ...]
    lengths: tuple[int, ...]


class Limit(Protocol):
    """Which jobs go through the model together."""

    def full(self, batch: list[Waiting], following: Waiting) -> bool:
        """Whether the batch has no place for one more, and is to be answered first."""

    def held(self, batch: list[Waiting], following: Waiting) -> bool:
        """Whether a patient job had better wait for a later batch, while others behind it may go."""


@dataclass(frozen=True)
class PaddedLimit:
    """Batches of padded rows.

    Attributes:
        rows: most jobs.
        tokens: most tokens with the padding and the texts to come.
    """

    rows: int
    tokens: int

    def full(self, batch: list[Waiting], following: Waiting) -> bool:
        longest = max(one.tokens for one in (*batch, following))
        return len(batch) >= self.rows or longest * (len(batch) + 1) > self.tokens

    def held(self, batch: list[Waiting], following: Waiting) -> bool:
        return False


class Line:
    """Jobs, first come, first served."""

    def __init__(self) -> None:
        self._jobs: deque[Waiting] = deque()
        self._waited = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Waiting) -> None:
        self._jobs.append(job)

    def due(self, steps: int, tokens: int) -> bool:
        """Whether a batch is formed now, beside texts under way; asked once a step.

        A pass over few prompts takes nearly the time of one over many, and the texts under way wait for it.

        Args:
            steps: for which the first job waits for others.
            tokens: of prompts that are worth a pass at once.
        """
        if not self._jobs:
            return False
        self._waited += 1
        if self._waited <= steps and sum(len(one.encoded.prompt) for one in self._jobs) < tokens:
            return False
        self._waited = 0
        return True

    def batch(self, limit: Limit, left: Callable[[Waiting], bool]) -> list[Waiting]:
        """The next jobs that go through the model together.

        Args:
            limit: of the batch; the first of its jobs may exceed it.
            left: whether a job is no longer to be answered; asked once, and the job is dropped then.
        """
        batch: list[Waiting] = []
        held: list[Waiting] = []
        while self._jobs:
            following = self._jobs[0]
            if left(following):
                self._jobs.popleft()
            elif following.patient and (held or limit.held(batch, following)):
                held.append(self._jobs.popleft())
            elif batch and limit.full(batch, following):
                break
            else:
                batch.append(self._jobs.popleft())
        self._jobs.extendleft(reversed(held))
        return batch
