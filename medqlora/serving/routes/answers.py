"""`POST /v1/answer` and `POST /v1/batch`: a decision with its probability, and everything that is known of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from medqlora.safety import screen
from medqlora.serving.engine import Delta, Done, Scores
from medqlora.serving.errors import ServiceError, whole
from medqlora.serving.image import clean_image
from medqlora.serving.pdf import text_of
from medqlora.serving.question import Call, Question
from medqlora.serving.routes.common import call_of, errors, example, service_of
from medqlora.serving.routes.documented import ANSWER
from medqlora.serving.schemas import QUESTION, AnswerRequest, echoed
from medqlora.serving.service import Service
from medqlora.serving.streaming import Growing, Stream, event, json_line, while_connected
from medqlora.utils.types import Json

router = APIRouter()
#: lines of a batch that are asked at once
_AT_ONCE = 32
_EXAMPLE: Json = {
    "id": "req-1f6c0a5e9b3d2740",
    "question": QUESTION,
    "kind": "answer",
    "decision": "yes",
    "leaning": None,
    "option_text": None,
    "confidence": 0.87,
    "probabilities": {"yes": 0.87, "no": 0.09, "maybe": 0.04},
    "calibrated": True,
    "calibrated_on": 50,
    "caution": None,
    "warning": None,
    "rationale": "Recurrence was lower with metformin.",
    "reason": None,
    "reply": None,
    "note": "Not medical advice; consult a healthcare professional.",
    "text": "Answer: yes\nConfidence 87%, calibrated on 50 questions\n\nRecurrence …\n\nNot medical advice; …",
    "model": "version_0",
    "threshold": 0.71,
    "sources": [],
    "warnings": [],
    "usage": {"prompt_tokens": 93, "completion_tokens": 12},
}


@router.post("/v1/answer", responses={**example(_EXAMPLE, ANSWER), **errors()}, summary="One question")
async def answer(body: AnswerRequest, request: Request) -> Response:
    """A decision, its probability, whether that is enough to answer, and a rationale.

    With `stream` it sends events: `scores` (the answer by the labels' scores, before any text), `text` (more of the
    rationale), and `answer` (the complete answer, which alone counts). The note is in each of `scores` and `answer`.
    """
    service, call = service_of(request), call_of(request, "/v1/answer")
    question = await _question(service, body)
    if body.stream:
        return Stream(_streamed(service, question, body, call))
    done = await while_connected(request, _answered(service, question, body, call, call.request_id))
    return JSONResponse(service.extra(question, done))


async def _question(service: Service, body: AnswerRequest) -> Question:
    asked = service.question(body.question, body.contexts, body.options, body.model, verify=body.verify)
    return await service.with_images(asked, body.images)


async def _answered(
    service: Service,
    question: Question,
    body: AnswerRequest,
    call: Call,
    job_id: str,
    *,
    patient: bool = False,
) -> Done:
    job = replace(
        service.job(question, job_id),
        write=body.rationale,
        max_new_tokens=service.text_limit(body.max_new_tokens),
    )
    return await service.answered(question, job, call, patient=patient)


async def _streamed(
    service: Service, question: Question, body: AnswerRequest, call: Call
) -> AsyncIterator[bytes]:
    job = service.job(question, call.request_id)
    growing = Growing(job.record.labels, dict(question.options))
    job = replace(
        job, write=body.rationale, max_new_tokens=service.text_limit(body.max_new_tokens), stream=True
    )
    try:
        async with aclosing(service.events(question, job, call)) as events:
            async for each in events:
                if isinstance(each, Scores):
                    scored = Done(job.id, each.answer, each.prompt_tokens, sources=each.sources)
                    yield event("scores", service.extra(question, scored))
                elif isinstance(each, Delta):
                    if piece := growing.more(each.text):
                        yield event("text", {"text": piece})
                elif isinstance(each, Done):
                    yield event("answer", service.extra(question, each))
    except ServiceError as error:
        yield event("error", {"status": error.status, **error.to_json()})


_BATCH = {
    "requestBody": {
        "required": True,
        "content": {
            "application/jsonl": {"schema": {"type": "string"}, "example": f'{{"question": "{QUESTION}"}}'}
        },
    }
}
_BATCH_REPLY = {
    200: {
        "description": "a line per line of the body, in order: the answer, or an error",
        "content": {"application/jsonl": {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/v1/batch",
    responses={**_BATCH_REPLY, **errors(404)},  # type: ignore[dict-item]
    openapi_extra=_BATCH,
    summary="Many questions, as JSON lines",
)
async def batch(request: Request) -> Response:
    """Each line is a body of `/v1/answer`, or of that and a `line_id`; the answers come in the lines' order.

    A line that is wrong is answered by `{"line": N, "status": …, "error": …}`, and the others go on.
    """
    service, call = service_of(request), call_of(request, "/v1/batch")
    lines = (await request.body()).split(b"\n")
    if not any(line.strip() for line in lines):
        raise ServiceError(422, "the body is empty: send a JSON object per line")
    service.model(None)  # raises where nothing is loaded
    return Stream(_lines(service, lines, call), "application/jsonl")


_PDF = {
    "requestBody": {
        "required": True,
        "content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/v1/text",
    responses={**example({"text": "BACKGROUND: …", "pages": 1}), **errors(404)},
    openapi_extra=_PDF,
    summary="The text of a PDF",
)
async def pdf_text(request: Request) -> Response:
    """Reads a PDF in a process of its own, for the page; nothing is kept."""
    data = await request.body()
    return JSONResponse(await while_connected(request, text_of(data)))


_IMAGE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/v1/image",
    responses={**example({"image": "data:image/png;base64,…", "width": 512, "height": 512}), **errors(404)},
    openapi_extra=_IMAGE,
    summary="The pixels of an image",
)
async def image_pixels(request: Request) -> Response:
    """Reads an image in a process of its own, and gives its pixels alone for `images`; nothing is kept.

    EXIF, comments and every field of a DICOM file are left out. Text that is drawn into the pixels stays.
    """
    data = await request.body()
    return JSONResponse(await while_connected(request, clean_image(data)))


async def _lines(service: Service, lines: list[bytes], call: Call) -> AsyncIterator[bytes]:
    """The answers in order; some lines ahead are asked already, so that the model gets batches."""
    asked: list[asyncio.Task[dict[str, Json]]] = []
    numbered = iter([(number, line) for number, line in enumerate(lines, 1) if line.strip()])
    at_once = max(1, min(_AT_ONCE, service.options.queue // 2))
    try:
        while True:
            while len(asked) < at_once and (following := next(numbered, None)) is not None:
                asked.append(asyncio.ensure_future(_line(service, *following, call)))
            if not asked:
                return
            answered = await asked[0]
            asked.pop(0)
            yield json_line(answered).encode("utf-8", "replace") + b"\n"
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _line(service: Service, number: int, line: bytes, call: Call) -> dict[str, Json]:
    own = Call(f"{call.request_id}-{number}", call.holder, call.endpoint)
    line_id: Json = None
    try:
        try:
            given = json.loads(line)
            if isinstance(given, dict):
                line_id = echoed(given.pop("line_id", None))
            body = _valid(given)
        except ValidationError as error:
            raise ServiceError(422, f"line {number}: {told(error.errors(include_input=False)[0])}") from None
        except (ValueError, RecursionError):
            raise ServiceError(400, f"line {number}: no JSON in UTF-8") from None
        question = await _question(service, body)
        # a client of one question is told to ask again where the queue is full; a line waits
        done = await _answered(service, question, body, own, own.request_id, patient=True)
        found = {"line": number, **service.extra(question, done)}
    except ServiceError as error:
        found = {"line": number, "status": error.status, **error.to_json()}
    return found if line_id is None else {"line_id": line_id, **found}


def _valid(given: object) -> AnswerRequest:
    """The body of a line; one that is wrong is its question alone, where that calls for a fixed reply.

    Raises:
        ValidationError: it is wrong.
    """
    try:
        return AnswerRequest.model_validate(given)
    except ValidationError:
        text = given.get("question") if isinstance(given, dict) else None
        if not isinstance(text, str) or screen(text) is None:
            raise
        return AnswerRequest(question=whole(text))


def told(error: object) -> str:
    """One of pydantic's errors as a sentence, without the value."""
    assert isinstance(error, dict)
    if "options" in error["loc"]:  # of a union pydantic names a form, which is not what is wrong
        return (
            "options: give a list of 2 to 26 texts, or label → text with 2 to 26 labels of 1 to 40 characters"
        )
    place = ".".join(str(part)[:40] for part in error["loc"] if part != "body")
    return f"{place}: {error['msg']}" if place else str(error["msg"])
