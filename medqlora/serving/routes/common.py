"""What the endpoints share."""

from collections.abc import Mapping
from typing import Any, cast

from fastapi import Request

from medqlora.serving.question import Call
from medqlora.serving.service import Service
from medqlora.serving.tokens import Holder
from medqlora.utils.types import Json

#: what an endpoint may reply besides its answer, for the OpenAPI document
_ERROR = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["message", "type"],
                    "properties": {
                        "message": {"type": "string"},
                        "type": {"type": "string"},
                        "code": {"type": ["string", "null"]},
                        "param": {"type": ["string", "null"]},
                    },
                }
            },
        }
    }
}
_MEANING = {
    400: "the body is no JSON, or the question can't be encoded",
    401: "no valid token",
    403: "the host, the page's origin or the token is not allowed",
    404: "no such model",
    408: "the body did not arrive in time",
    413: "the body or the question is too long",
    422: "a field is missing, unknown or out of its range",
    429: "too many requests with this token",
    503: "full, about to end, loading, or the inference process ended; Retry-After says when to ask again",
}


def errors(*without: int) -> dict[int | str, dict[str, Any]]:
    """The errors of an endpoint, for its documentation."""
    return {
        status: {"description": text, "content": _ERROR}
        for status, text in _MEANING.items()
        if status not in without
    }


def example(value: Json, schema: Mapping[str, object] | None = None) -> dict[int | str, dict[str, Any]]:
    """The documented reply of an endpoint."""
    content = {"example": value} if schema is None else {"example": value, "schema": schema}
    return {200: {"description": "the answer", "content": {"application/json": content}}}


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def call_of(request: Request, endpoint: str) -> Call:
    """The request, as it is counted and recorded."""
    return Call(str(request.state.request_id), cast(Holder, request.state.holder), endpoint)
