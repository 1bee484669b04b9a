"""From a question of a client to events: screening, limits, the job, and what is counted and recorded of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from medqlora.config.serving import ServeOptions
from medqlora.inference.answer import Answer, safe_answer
from medqlora.records import LETTERS, Record, lettered
from medqlora.retrieval.citations import CitedAnswer, cited_answer
from medqlora.retrieval.verification import unfit_labels
from medqlora.safety import SafeReply
from medqlora.serving.audit import AuditLog
from medqlora.serving.claims import verified
from medqlora.serving.engine import BASE, Delta, Done, Event, Failed, Job, Scores, ServedModel
from medqlora.serving.engines.names import unknown_model
from medqlora.serving.errors import ServiceError
from medqlora.serving.image import MOST_IMAGES, clean_images
from medqlora.serving.metrics import Metrics
from medqlora.serving.patience import patiently
from medqlora.serving.pool import Pool, UnavailableError
from medqlora.serving.question import Call, Question
from medqlora.serving.sources import Sources
from medqlora.utils.types import Json

if TYPE_CHECKING:
    from medqlora.inference.topic_router import TopicRouter

#: the name by which a request asks a library
LIBRARY = "library"


class Service:
    """What the endpoints share.

    Args:
        options: the service's options.
        pool: its inference processes.
        metrics: its figures.
        audit: its log.
        adapters: name → folder of the adapters that it was started with.
        sources: an index, from which questions without a context get theirs.
        router: of a library, which chooses the adapter where a request names none.
    """

    def __init__(
        self,
        options: ServeOptions,
        pool: Pool,
        metrics: Metrics,
        audit: AuditLog,
        adapters: Mapping[str, str],
        sources: Sources | None = None,
        router: "TopicRouter | None" = None,
    ) -> None:
        self.options = options
        self.pool = pool
        self.metrics = metrics
        self.audit = audit
        self.adapters = adapters
        self.sources = sources
        self.router = router
        #: whether it is about to end: open requests are answered, new ones refused
        self.draining = False
        #: requests that were open when the time to drain was over
        self.given_up = 0
        #: held while an adapter is loaded or unloaded
        self.changing = asyncio.Lock()

    def model(self, name: str | None) -> ServedModel:
        """The model that a request names, or the first.

        Raises:
            ServiceError: there is none of that name.
        """
        models = self.pool.models
        if not models:
            raise ServiceError(503, "the model is being loaded: ask again", code="loading")
        found = models.get(name) if name else next(iter(models.values()))
        if found is None:
            raise ServiceError(404, unknown_model(str(name), models), code="model_not_found")
        return found

    def question(
        self,
        text: str,
        contexts: str | Sequence[str],
        options: Sequence[str] | Mapping[str, str] | None,
        model: str | None,
        *,
        screened: Sequence[str] = (),
        verify: bool = False,
    ) -> Question:
        """A question within the limits.

        Raises:
            ServiceError: it is empty or too long, or names no served model.
        """
        passages = (contexts,) if isinstance(contexts, str) else tuple(contexts)
        choices = options if isinstance(options, Mapping) else lettered(options or ())
        if not text.strip():
            raise ServiceError(422, "the question is empty")
        made = Question(
            text,
            tuple(passage for passage in passages if passage.strip()),
            dict(choices),
            "",
            screened=tuple(screened),
            verify=verify,
        )
        # a fixed reply must wait for no model, and for no question that is asked in the right way
        reply = made.reply()
        if reply is None and verify and (self.sources is None or made.contexts):
            raise ServiceError(
                422,
                "verify: claims are checked against retrieved sources: serve with --index, and give no contexts",
            )
        model = self._routed(made, model)
        if reply is None:
            made = replace(made, model=self.model(model).name)
        else:
            made = replace(
                made, model=model if model in self.pool.models else next(iter(self.pool.models), BASE)
            )
        labels = self._labels(made.model)
        if reply is None and verify and (named := unfit_labels(labels)) is not None:
            raise ServiceError(422, f"verify: the labels of {made.model} say nothing of a claim ({named})")
        length = sum(map(len, made.texts))
        if reply is None and length > self.options.context_chars:
            self.metrics.refused.labels("context").inc()
            most = self.options.context_chars
            raise ServiceError(
                413,
                f"question, contexts and options have {length:,} characters, {most:,} are allowed",
                code="context",
            )
        return made

    def _routed(self, question: Question, model: str | None) -> str | None:
        """The adapter of the question's topic, where the request names no model or the library."""
        if self.options.library is None or model not in (None, "", LIBRARY):
            return model
        if self.router is None:
            return None
        record = Record("routed", question.text, question.contexts, options=question.options)
        name = self.router.route(record).name
        return name if name in self.pool.models or not self.pool.models else None

    async def with_images(self, question: Question, images: Sequence[str]) -> Question:
        """The question with its images, their pixels alone.

        Raises:
            ServiceError: the model reads text alone, or an image can't be read.
        """
        if not images or question.reply() is not None:
            return question
        model = self.model(question.model)
        if not model.reads_images:
            raise ServiceError(422, f"{model.name} reads text alone: leave the images out")
        if len(images) > MOST_IMAGES:
            raise ServiceError(422, f"{len(images)} images, {MOST_IMAGES} are allowed")
        return replace(question, images=await clean_images(images))

    def job(self, question: Question, job_id: str) -> Job:
        """The question as a job, without a text."""
        record = Record(
            job_id,
            question.text,
            question.contexts,
            options=question.options,
            labels=question.labels or tuple(question.options) or self._labels(question.model),
            images=question.images,
        )
        return Job(job_id, question.model, record, write=False)

    def _labels(self, name: str) -> tuple[str, ...]:
        model = self.pool.models.get(name)
        return () if model is None else model.labels

    def text_limit(self, asked: int | None) -> int:
        """Length limit of a text, in tokens: what was asked for, within the service's own."""
        most = self.options.max_new_tokens
        return most if asked is None else min(asked, most)

    async def events(
        self, question: Question, job: Job, call: Call, *, patient: bool = False
    ) -> AsyncGenerator[Event, None]:
        """The events of one question; the last is `Done`.

        A question that calls for a fixed reply reaches no model, and is answered also where none is ready.

        Args:
            patient: where the queue is full, wait for a place until the request's time is up.

        Raises:
            ServiceError: it could not be answered.
        """
        reply = question.reply()
        if reply is not None:
            yield Done(job.id, self.refused(question, reply, call), 0)
            return
        status, first = 499, True
        answer: Answer | None = None
        found = None
        if self.sources is not None and not question.contexts:
            found = await self.sources.retrieved(job.record)
            job = replace(job, record=found.record)
        begun: AsyncGenerator[Event, None] | None = None
        try:
            events, event = await patiently(
                lambda: self._begun(job, call), self.patience(call) if patient else 0
            )
            begun = events
            while True:
                if isinstance(event, Failed):
                    raise ServiceError(event.status, event.message)
                if isinstance(event, Scores) and found is not None:
                    event = replace(event, sources=cited_answer(event.answer, found.hits).to_json())
                if isinstance(event, Delta) and first:
                    first = False
                    self.metrics.first_token.observe(call.seconds)
                if isinstance(event, Done):
                    if found is not None:
                        named = cited_answer(event.answer, found.hits)
                        if question.verify:
                            await events.aclose()  # its place in the queue is free for the claims
                            named = await self._verified(named, question, job.id, call)
                        event = replace(event, answer=named.answer, sources=named.to_json())
                    status, answer = 200, event.answer
                    self.metrics.tokens.labels("prompt").inc(event.prompt_tokens)
                    self.metrics.tokens.labels("completion").inc(event.completion_tokens)
                yield event
                if answer is not None:
                    return
                event = await self._next(events, call)
        except ServiceError as error:
            status = error.status
            if error.code == "queue":
                self.metrics.refused.labels("queue").inc()
            raise
        finally:
            if begun is not None:
                await begun.aclose()
            self._record(question, call, status, answer)

    def refused(self, question: Question, reply: SafeReply, call: Call, status: int = 200) -> Answer:
        """The answer that is a fixed reply, counted and recorded."""
        self.metrics.refusals.labels(reply.kind).inc()
        refusal = safe_answer(Record(call.request_id, question.text), reply, self.options.note)
        self._record(question, call, status, refusal)
        return refusal

    async def _verified(self, cited: CitedAnswer, question: Question, job_id: str, call: Call) -> CitedAnswer:
        """The answer with the verdicts of its own sources. Raises ServiceError as `events` does."""

        async def score(record: Record) -> Answer:
            events, event = await self._begun(Job(record.id, question.model, record, write=False), call)
            try:
                while not isinstance(event, Done):
                    if isinstance(event, Failed):
                        raise ServiceError(event.status, f"verify: {event.message}")
                    event = await self._next(events, call)
            finally:
                await events.aclose()
            self.metrics.tokens.labels("prompt").inc(event.prompt_tokens)
            return event.answer

        made = await verified(
            cited,
            self._labels(question.model),
            f"{job_id}-claim",
            lambda record: patiently(lambda: score(record), self.patience(call)),
            at_once=max(1, min(8, self.options.queue // 2)),
        )
        for claim in made.claims or ():
            self.metrics.claims.labels(str(claim["verdict"])).inc()
        return made

    def patience(self, call: Call) -> float:
        """Seconds until a request is given up."""
        return self.options.timeout_s - call.seconds

    async def _begun(self, job: Job, call: Call) -> tuple[AsyncGenerator[Event, None], Event]:
        """The events of a job, and the first of them. Raises ServiceError as `_next` does."""
        events = self.pool.run(job)
        try:
            return events, await self._next(events, call)
        except BaseException:
            await events.aclose()
            raise

    async def _next(self, events: AsyncIterator[Event], call: Call) -> Event:
        """The next event. Raises ServiceError when the time is up, no process takes the job, or there is none."""
        left = self.options.timeout_s - call.seconds
        try:
            return await asyncio.wait_for(anext(events), max(0.001, left))
        except StopAsyncIteration:
            raise ServiceError(503, "no answer: the inference process gave none", code="lost") from None
        except (TimeoutError, asyncio.TimeoutError):
            self.metrics.refused.labels("time").inc()
            raise ServiceError(
                503,
                f"no answer within {self.options.timeout_s:g} s: ask again later",
                retry_after_s=10,
                code="time",
            ) from None
        except UnavailableError as error:
            raise ServiceError(503, str(error), retry_after_s=error.retry_after_s, code="queue") from None

    async def answered(self, question: Question, job: Job, call: Call, *, patient: bool = False) -> Done:
        """The complete answer. Raises ServiceError as `events` does."""
        last: Event | None = None
        async for event in self.events(question, job, call, patient=patient):
            last = event
        assert isinstance(last, Done)
        return last

    def warnings(self, question: Question, done: Done) -> list[Json]:
        """What the client has to know of this answer, a sentence each."""
        model, sources = self.pool.models.get(question.model), done.sources or {}
        found: list[Json] = []
        if sources.get("contradicted"):
            found.append("The answer's own sources contradict a part of it.")
        bare = done.answer.reply is None and not question.contexts and not sources.get("sources")
        if bare and model is not None and model.wants_context:
            none = "none was found" if done.sources is not None else "none was given"
            found.append(f"This adapter was trained with a context, and {none}; answers are less reliable.")
        return found

    def extra(self, question: Question, done: Done) -> dict[str, Json]:
        """The answer with what this service knows beyond the model, as plain values."""
        model = self.pool.models.get(question.model)
        return {
            "sources": [],
            **(done.sources or done.answer.to_json()),
            "model": question.model,
            "threshold": None if model is None else model.threshold,
            "warnings": self.warnings(question, done),
            "usage": {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.completion_tokens},
        }

    def _record(self, question: Question, call: Call, status: int, answer: Answer | None) -> None:
        """Counts a question that ended, and writes its line of the audit log, without its text."""
        self.given_up += self.draining and status == 499
        decided = None
        if answer is not None:
            self.metrics.seconds.labels(call.endpoint).observe(call.seconds)
            if answer.reply is None:
                # a client chooses the labels of its options: as a metric's label they would be without number
                known = answer.decision in (*self._labels(question.model), "uncertain", *LETTERS)
                decided = (answer.decision if known else "other") or "free"
                self.metrics.decisions.labels(question.model, decided).inc()
        self.audit.write(
            {
                "request_id": call.request_id,
                "token": call.holder.name,
                "endpoint": call.endpoint,
                "adapter": question.model,
                "prompt_hash": self.audit.prompt_hash(question.texts),
                "status": status,
                "kind": None if answer is None else answer.kind,
                "decision": decided,
                "confidence": None if answer is None else answer.confidence,
                "ms": round(1000 * call.seconds, 1),
            }
        )
