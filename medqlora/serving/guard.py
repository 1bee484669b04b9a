"""What every request passes before the application: host, origin, token, rate, size; and what every reply carries."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from medqlora.serving.errors import ServiceError
from medqlora.serving.metrics import Metrics
from medqlora.serving.tokens import ANYBODY, Holder, Rate, Tokens
from medqlora.utils.console import say

Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, object], Receive, Send], Awaitable[None]]

#: paths that need no token: they show nothing of a patient, and load balancers and browsers ask for them
OPEN = ("/", "/healthz", "/readyz", "/favicon.ico")
#: paths whose bodies may be larger
LARGE = ("/v1/batch", "/v1/text", "/v1/image")
#: seconds in which a body has to arrive
BODY_S = 60.0
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), interest-cohort=()"),
    (b"cache-control", b"no-store"),
)
#: of everything but the page, which has a policy of its own
_NO_CONTENT = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


@dataclass(frozen=True)
class Limits:
    """Who may ask what, and how much.

    Attributes:
        tokens: None where none is needed.
        rate: of each token.
        hosts: names that the Host header may hold; empty for any.
        cors: origins of other pages that may ask.
        body_bytes, batch_bytes: largest bodies.
    """

    tokens: Tokens | None
    rate: Rate
    hosts: frozenset[str]
    cors: tuple[str, ...]
    body_bytes: int
    batch_bytes: int


class Guard:
    """ASGI middleware around the application.

    Args:
        app: the application.
        limits: see `Limits`.
        metrics: counts what is refused, and every reply.
        draining: whether the service is about to end.
    """

    def __init__(self, app: App, limits: Limits, metrics: Metrics, draining: Callable[[], bool]) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._draining = draining

    async def __call__(self, scope: MutableMapping[str, object], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req-{secrets.token_hex(8)}"
        state = scope.setdefault("state", {})
        assert isinstance(state, dict)
        state["request_id"] = request_id
        headers = _headers(scope)
        reply = _Reply(send, request_id, self._allowed_origin(headers), str(scope["path"]))
        try:
            if _preflight(scope, headers, reply.origin):
                await reply.preflight()
                return
            state["holder"] = self._checked(scope, headers)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                receive = await self._body(scope, headers, receive)
                _as_json(scope, headers)
            await self._app(scope, receive, reply.send)
        except ServiceError as error:
            await reply.error(error)
        except _ClientGoneError:
            return
        except asyncio.CancelledError:
            if not self._draining():
                raise
            await reply.error(
                ServiceError(503, "the service ended before the answer: ask again", code="draining")
            )
        except Exception as error:
            # the name alone: a message may hold a client's text
            with contextlib.suppress(OSError):  # nobody reads the output any more
                say(f"{request_id}: {type(error).__name__} in {scope['path']}{_where(error)}")
            await reply.error(ServiceError(500, "an error of the service; its log names the request"))
        finally:
            self._metrics.requests.labels(reply.endpoint(scope), str(reply.status)).inc()

    def _checked(self, scope: MutableMapping[str, object], headers: dict[str, str]) -> Holder:
        """Whose request this is. Raises ServiceError for one that is refused."""
        path = str(scope["path"])
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        # else a page of another name that resolves to this machine could ask as if it were this service's own
        if self._limits.hosts and host not in self._limits.hosts and path not in ("/healthz", "/readyz"):
            raise ServiceError(403, "this host name is not served here: see --allowed_hosts", code="host")
        origin = headers.get("origin")
        if (
            origin is not None
            and urlsplit(origin).netloc != headers.get("host")
            and not self._allowed(origin)
        ):
            raise ServiceError(403, "pages of this origin may not ask: see --cors", code="origin")
        if self._draining() and path not in OPEN:
            raise ServiceError(
                503, "the service is about to end: ask again", retry_after_s=5, code="draining"
            )
        if self._limits.tokens is None or path in OPEN:
            holder = ANYBODY
        else:
            kind, _, token = headers.get("authorization", "").partition(" ")
            known = self._limits.tokens.holder(token.strip()) if kind.lower() == "bearer" else None
            if known is None:
                self._metrics.refused.labels("token").inc()
                raise ServiceError(
                    401, "a valid token is needed: send Authorization: Bearer TOKEN", code="token"
                )
            holder = known
        if (
            scope["method"] == "POST"
            and self._limits.tokens is not None
            and not self._limits.rate.taken(holder.name)
        ):
            self._metrics.refused.labels("rate").inc()
            retry = self._limits.rate.retry_after_s
            raise ServiceError(429, "too many requests with this token", retry_after_s=retry, code="rate")
        return holder

    async def _body(
        self, scope: MutableMapping[str, object], headers: dict[str, str], receive: Receive
    ) -> Receive:
        """Reads the body within its limits; the returned `receive` gives it again, and then what follows."""
        most = self._limits.batch_bytes if scope["path"] in LARGE else self._limits.body_bytes
        too_large = ServiceError(413, f"the body is larger than {most:,} bytes", code="body")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            self._metrics.refused.labels("body").inc()
            raise too_large
        try:
            body = await asyncio.wait_for(self._read(receive, most), BODY_S)
        except (TimeoutError, asyncio.TimeoutError):
            raise ServiceError(408, "the body did not arrive in time", code="body") from None
        if body is None:
            self._metrics.refused.labels("body").inc()
            raise too_large
        rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        del body

        async def again() -> Message:
            return rest.pop() if rest else await receive()

        return again

    async def _read(self, receive: Receive, most: int) -> bytes | None:
        """The whole body; None where it is larger than `most` bytes."""
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGoneError
            piece = message.get("body", b"")
            assert isinstance(piece, bytes)
            pieces.append(piece)
            size += len(piece)
            if size > most:
                return None
            if not message.get("more_body"):
                return b"".join(pieces)

    def _allowed(self, origin: str) -> bool:
        return origin in self._limits.cors or "*" in self._limits.cors

    def _allowed_origin(self, headers: dict[str, str]) -> str | None:
        origin = headers.get("origin")
        return origin if origin is not None and self._allowed(origin) else None


class _ClientGoneError(Exception):
    """The client closed the connection before its request was whole."""


class _Reply:
    """Sends the reply with the headers that every reply has."""

    def __init__(self, send: Send, request_id: str, origin: str | None, path: str) -> None:
        self._send = send
        self._id = request_id
        self.origin = origin
        self._path = path
        self.status = 499  # as nginx counts a client that went away
        self._started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            status = message["status"]
            assert isinstance(status, int)
            self.status = status
            headers = message.setdefault("headers", [])
            assert isinstance(headers, list)
            have = {bytes(name).lower() for name, _ in headers}
            wanted = [*_HEADERS, _NO_CONTENT, (b"x-request-id", self._id.encode())]
            if self.origin is not None:
                wanted += [
                    (b"access-control-allow-origin", self.origin.encode("latin-1")),
                    (b"vary", b"Origin"),
                ]
            headers += [pair for pair in wanted if pair[0] not in have]
        await self._send(message)

    async def error(self, error: ServiceError) -> None:
        if self._started:
            return  # a stream that was begun is cut off: its client sees that it has no end
        body = json.dumps(error.to_json()).encode()
        pairs = {"content-type": "application/json", "content-length": str(len(body)), **error.headers()}
        await self._answer(error.status, pairs, body)

    async def preflight(self) -> None:
        pairs = {
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": "authorization, content-type",
            "access-control-max-age": "600",
        }
        await self._answer(204, pairs, b"")

    async def _answer(self, status: int, pairs: dict[str, str], body: bytes) -> None:
        headers: Sequence[tuple[bytes, bytes]] = [
            (name.lower().encode(), value.encode()) for name, value in pairs.items()
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await self.send({"type": "http.response.body", "body": body})

    def endpoint(self, scope: MutableMapping[str, object]) -> str:
        """The path, where it is one of the application's; else clients could make any number of labels."""
        route = scope.get("route")
        return str(getattr(route, "path", "other"))


def _preflight(scope: MutableMapping[str, object], headers: dict[str, str], origin: str | None) -> bool:
    asks = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
    return asks and origin is not None


def _headers(scope: MutableMapping[str, object]) -> dict[str, str]:
    raw = scope["headers"]
    assert isinstance(raw, list)
    return {bytes(name).decode("latin-1").lower(): bytes(value).decode("latin-1") for name, value in raw}


def _as_json(scope: MutableMapping[str, object], headers: dict[str, str]) -> None:
    """curl's -d names its body a form: it is read as JSON here, since no endpoint takes a form."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("", "application/x-www-form-urlencoded", "text/plain"):
        raw = scope["headers"]
        assert isinstance(raw, list)
        others = [pair for pair in raw if bytes(pair[0]).lower() != b"content-type"]
        scope["headers"] = [*others, (b"content-type", b"application/json")]


def _where(error: BaseException) -> str:
    """File and line of an error's origin."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f" ({trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})"
