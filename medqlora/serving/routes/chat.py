"""`POST /v1/chat/completions` and `GET /v1/models`, as OpenAI's clients expect them."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from medqlora.inference.answer import Answer
from medqlora.serving.engine import Delta, Done, Failed, Job, Scores, TokenLogprob
from medqlora.serving.errors import ServiceError
from medqlora.serving.question import Call, Question
from medqlora.serving.routes.common import call_of, errors, example, service_of
from medqlora.serving.routes.documented import CHAT
from medqlora.serving.schemas import ChatRequest
from medqlora.serving.service import Service
from medqlora.serving.streaming import Growing, Stream, event, while_connected
from medqlora.utils.types import Json

router = APIRouter()
#: when this service began, for `created` of its models
_STARTED = int(time.time())
_EXAMPLE: Json = {
    "id": "chatcmpl-1f6c0a5e9b3d2740",
    "object": "chat.completion",
    "created": 1796000000,
    "model": "version_0",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Answer: yes\n…", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 93, "completion_tokens": 12, "total_tokens": 105},
    "medqlora": {"decision": "yes", "confidence": 0.87, "ignored_messages": 0},
}


@router.post(
    "/v1/chat/completions", responses={**example(_EXAMPLE, CHAT), **errors()}, summary="OpenAI's chat"
)
async def chat(body: ChatRequest, request: Request) -> Response:
    """Answers the last user message. The model answers one question at a time: other messages are not read.

    The content holds the decision, its confidence, the rationale and the note. `medqlora` holds all that `/v1/answer`
    gives; in a stream it comes with the last piece. Temperature is 0 unless given.
    """
    service, call = service_of(request), call_of(request, "/v1/chat/completions")
    question = await service.with_images(_question(service, body), _images(body))
    job = _job(service, question, body, call)
    if body.stream:
        return Stream(_streamed(service, question, job, body, call))
    done = await while_connected(request, service.answered(question, job, call))
    message: Json = {"role": "assistant", "content": done.answer.text, "refusal": None}
    choice: dict[str, Json] = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(done.logprobs) if body.logprobs else None,
        "finish_reason": done.finish,
    }
    reply = _frame("chat.completion", question, call, [choice])
    return JSONResponse({**reply, "usage": _usage(done), "medqlora": _extra(service, question, done, body)})


@router.get(
    "/v1/models",
    responses={
        **example(
            {
                "object": "list",
                "data": [{"id": "version_0", "object": "model"}],
                "medqlora": {"index": False, "library": False},
            }
        ),
        **errors(413),
    },
    summary="The models that requests can name",
)
async def models(request: Request) -> Response:
    """The adapters, and the base model without one. `medqlora` says whether there is an index, and a library."""
    service = service_of(request)
    served = service.pool.models
    data: list[Json] = [
        {
            "id": model.name,
            "object": "model",
            "created": _STARTED,
            "owned_by": "medqlora",
            "medqlora": model.to_json(),
        }
        for model in served.values()
    ]
    offers: Json = {"index": service.sources is not None, "library": service.options.library is not None}
    return JSONResponse({"object": "list", "data": data, "medqlora": offers})


@router.get("/v1/models/{name}", responses=errors(413), summary="One model")
async def model(name: str, request: Request) -> Response:
    """One entry of `/v1/models`."""
    found = service_of(request).model(name)
    entry = {"id": found.name, "object": "model", "created": _STARTED, "owned_by": "medqlora"}
    return JSONResponse({**entry, "medqlora": found.to_json()})


def _images(body: ChatRequest) -> list[str]:
    return next((message.images for message in reversed(body.messages) if message.role == "user"), [])


def _question(service: Service, body: ChatRequest) -> Question:
    users = [message for message in body.messages if message.role == "user"]
    if not users:
        raise ServiceError(422, "messages: the last user message is the question, and there is none")
    if not users[-1].readable:
        raise ServiceError(422, "messages: only text and images are read, no files")
    earlier = [message.text for message in users[:-1]]
    extra = body.medqlora
    return service.question(
        users[-1].text, extra.contexts, extra.options, body.model, screened=earlier, verify=extra.verify
    )


def _job(service: Service, question: Question, body: ChatRequest, call: Call) -> Job:
    if body.top_logprobs is not None and not body.logprobs:
        raise ServiceError(422, "top_logprobs: set logprobs to true as well")
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return replace(
        service.job(question, call.request_id),
        write=body.medqlora.rationale,
        max_new_tokens=service.text_limit(body.max_completion_tokens or body.max_tokens),
        temperature=body.temperature or 0.0,
        seed=body.seed,
        stop=tuple(stop),
        stream=bool(body.stream),
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )


async def _streamed(
    service: Service, question: Question, job: Job, body: ChatRequest, call: Call
) -> AsyncIterator[bytes]:
    """The same text in pieces: the headline by the scores, the rationale, a doubt that the text raises, the note."""
    content = _Content(job.record.labels, dict(question.options))

    def piece(
        delta: dict[str, Json], finish: str | None = None, logprobs: Json = None, **more: Json
    ) -> bytes:
        choice: dict[str, Json] = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return event(None, {**_frame("chat.completion.chunk", question, call, [choice]), **more})

    try:
        async with aclosing(service.events(question, job, call)) as events:
            yield piece({"role": "assistant", "content": ""})
            async for each in events:
                if not isinstance(each, Failed) and (text := content.more(each)):
                    yield piece({"content": text})
                if isinstance(each, Done):
                    logprobs: Json = _logprobs(each.logprobs) if body.logprobs else None
                    yield piece({}, each.finish, logprobs, medqlora=_extra(service, question, each, body))
                    if body.stream_options is not None and body.stream_options.include_usage:
                        frame = _frame("chat.completion.chunk", question, call, [])
                        yield event(None, {**frame, "usage": _usage(each)})
        yield event(None, "[DONE]")
    except ServiceError as error:
        yield event(None, error.to_json())


class _Content:
    """An answer's text in pieces: the headline by the scores, the rationale, a doubt that the text raises, the note.

    Args:
        labels, options: the question's.
    """

    def __init__(self, labels: tuple[str, ...], options: dict[str, str]) -> None:
        self._growing = Growing(labels, options)
        self._scored: Answer | None = None
        self._rationale = False

    def more(self, event: Scores | Delta | Done) -> str:
        """The piece that an event adds; "" for none. After `Done` the note stands at the end."""
        if isinstance(event, Scores):
            self._scored = event.answer
            return _body(event.answer) if event.answer.decision is not None else ""
        if isinstance(event, Delta):
            return self._led(self._growing.more(event.text))
        answer = event.answer
        if self._scored is None:  # no text was generated: a fixed reply, or a decision alone
            return answer.text
        parts = [self._led(self._growing.rest(answer.rationale))]
        if self._scored.decision is None and not answer.rationale:
            parts.append(_body(answer))
        if answer.kind != self._scored.kind:
            parts.append(f"\n\nUncertain. {answer.reason}")
        return "".join([*parts, f"\n\n{answer.note}"])

    def _led(self, piece: str) -> str:
        """A piece of the rationale, the first one with what stands before it."""
        if self._rationale or not piece or self._scored is None:
            return piece
        self._rationale = True
        if self._scored.decision is None:
            return piece if self._scored.warning is None else f"{self._scored.warning}\n\n{piece}"
        # the text of an uncertain answer must not look like the answer
        return f"\n\nGenerated text: {piece}" if self._scored.kind == "uncertain" else f"\n\n{piece}"


def _body(answer: Answer) -> str:
    """The answer's text before its note."""
    return answer.text.removesuffix(answer.note).rstrip()


def _frame(kind: str, question: Question, call: Call, choices: list[dict[str, Json]]) -> dict[str, Json]:
    return {
        "id": call.request_id.replace("req-", "chatcmpl-"),
        "object": kind,
        "created": int(time.time()),
        "model": question.model,
        "choices": list(choices),
    }


def _usage(done: Done) -> dict[str, Json]:
    total = done.prompt_tokens + done.completion_tokens
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": total,
    }


def _extra(service: Service, question: Question, done: Done, body: ChatRequest) -> dict[str, Json]:
    ignored = len(body.messages) - 1
    return {**service.extra(question, done), "ignored_messages": ignored}


def _logprobs(tokens: tuple[TokenLogprob, ...]) -> dict[str, Json]:
    """The generated tokens with their log-probabilities, as OpenAI writes them."""

    def entry(token: str, logprob: float) -> dict[str, Json]:
        return {
            "token": token,
            "logprob": max(logprob, -9999.0),
            "bytes": list(token.encode("utf-8", "replace")),
        }

    return {
        "content": [
            {**entry(each.token, each.logprob), "top_logprobs": [entry(*pair) for pair in each.top]}
            for each in tokens
        ],
        "refusal": None,
    }
