"""Errors as clients get them, in OpenAI's form. None of them repeats a client's text."""

from collections.abc import Mapping

from medqlora.utils.types import Json

#: HTTP status → OpenAI's type of error
_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ServiceError(Exception):
    """A request that is not answered.

    Attributes:
        status: HTTP status.
        message: what is wrong and the fix, in a sentence.
        retry_after_s: for 429 and 503.
        code: a short name of the fault, for programs.
    """

    def __init__(
        self, status: int, message: str, *, retry_after_s: int | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = 5 if status == 503 and retry_after_s is None else retry_after_s
        self.code = code

    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after_s is None else {"Retry-After": str(max(1, self.retry_after_s))}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    def to_json(self) -> dict[str, Json]:
        return error_body(self.status, self.message, self.code)


def error_body(status: int, message: str, code: str | None = None) -> dict[str, Json]:
    """The body of an error."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": whole(message), "type": kind, "code": code, "param": None}}


def whole(text: str) -> str:
    """The text with a question mark in place of each half of a character, which UTF-8 can't hold."""
    return text.encode("utf-8", "replace").decode()
