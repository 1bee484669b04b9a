"""A wrong request that calls for a fixed safety reply gets it: what is wrong with it matters less.

The request is reduced to its user's texts, and asked again in the right way.
"""

import json
from collections.abc import Mapping

from fastapi import Request
from fastapi.responses import Response

from medqlora.safety import screen
from medqlora.serving.errors import ServiceError, whole
from medqlora.serving.routes import answers, chat, typed
from medqlora.serving.schemas import AnswerRequest, ChatMessage, ChatRequest, SystemOneRequest


async def safe_response(request: Request) -> Response | None:
    """The reply to a request that was refused as wrong; None where it calls for no fixed reply.

    Raises:
        ServiceError: it is the reply of an endpoint that has no other form for it.
    """
    path = request.url.path
    if request.method != "POST" or path not in _TEXTS:
        return None
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    found = [text for text in _TEXTS[path](body) if screen(text) is not None]
    if not found:
        return None
    stream = body.get("stream") is True
    if path == "/v1/answer":
        return await answers.answer(AnswerRequest(question=found[0], stream=stream), request)
    if path == "/v1/systemone":
        questions = {"question": {"type": "noul", "instructions": found[0]}}
        return await typed.systemone(SystemOneRequest(state="", questions=questions), request)
    messages = [ChatMessage(role="user", content=found[0])]
    return await chat.chat(ChatRequest(messages=messages, stream=stream), request)


def worth_a_look(error: ServiceError) -> bool:
    """Whether this refusal may be of a request that calls for a fixed reply, and has none yet."""
    given = (error.code or "").startswith(typed.SAFE_REPLY)
    return 400 <= error.status < 499 and not given


def _question(body: Mapping[str, object]) -> list[str]:
    return _strings(body.get("question"))


def _messages(body: Mapping[str, object]) -> list[str]:
    """Texts that are not known to be another's than the user's."""
    found = []
    for message in _objects(body.get("messages")):
        if message.get("role", "user") == "user":
            content = message.get("content")
            found += _strings(content, *(part.get("text") for part in _objects(content)))
    return found


def _instructions(body: Mapping[str, object]) -> list[str]:
    questions = body.get("questions")
    return _strings(
        *(
            each.get("instructions")
            for each in _objects(list(questions.values()) if isinstance(questions, dict) else None)
        )
    )


def _objects(value: object) -> list[dict[str, object]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _strings(*values: object) -> list[str]:
    return [whole(value) for value in values if isinstance(value, str)]


#: endpoint → the texts of a body that a user may have written
_TEXTS = {"/v1/answer": _question, "/v1/chat/completions": _messages, "/v1/systemone": _instructions}
