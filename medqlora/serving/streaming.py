"""Replies that follow their client: server-sent events, and work that ends when the client goes away."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from medqlora.inference.rationale import rationale_in
from medqlora.serving.errors import ServiceError
from medqlora.utils.terminal import printable
from medqlora.utils.types import Json

T = TypeVar("T")
#: seconds that a client may leave one piece of a stream unread
_SLOWEST_S = 60.0
#: words or characters of a text before its beginning is shown: until then its decision may not be read yet
_HELD_WORDS, _HELD_CHARACTERS = 8, 80


#: ends a line for some clients, such as httpx's `iter_lines`, though not by the standard of server-sent events
_LINE_ENDS = str.maketrans({end: f"\\u{ord(end):04x}" for end in "\u0085\u2028\u2029"})


def json_line(data: dict[str, Json]) -> str:
    """JSON in one line, by whatever rule a client ends lines. Raises ValueError for NaN."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS)


def event(name: str | None, data: dict[str, Json] | str) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json_line(data)
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {text}\n\n".encode("utf-8", "replace")


class Stream(Response):
    """Sends the pieces of an iterator; closes it as soon as its client is gone, or reads nothing for a minute.

    Args:
        pieces: bytes to send.
        media_type: of the reply.
    """

    def __init__(self, pieces: AsyncIterator[bytes], media_type: str = "text/event-stream") -> None:
        super().__init__(media_type=media_type, headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not sending.done():
                sending.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            closing = getattr(self._pieces, "aclose", None)
            if closing is not None:
                await closing()
        if not sending.cancelled():
            sending.result()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._pieces:
            await asyncio.wait_for(
                send({"type": "http.response.body", "body": piece, "more_body": True}), _SLOWEST_S
            )
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client goes away.

    Raises:
        ServiceError: the client has gone.
    """
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ServiceError(499, "the client closed the connection")
    finally:
        for task in (doing, gone):
            if not task.done():
                task.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Growing:
    """The rationale of a text that grows, in pieces that are never taken back.

    Args:
        labels: the possible decisions.
        options: label → text of the option.
    """

    def __init__(self, labels: tuple[str, ...], options: dict[str, str]) -> None:
        self._labels = labels
        self._options = options
        self._sent = ""

    def more(self, text: str) -> str:
        """The next piece of the rationale, for the text so far; "" where nothing is certain yet.

        Its beginning is held back until the decision in it can be read, and a letter until it is complete.
        """
        short = len(text.split()) < _HELD_WORDS and len(text) < _HELD_CHARACTERS
        if "<think" in text or short:
            return ""
        rationale = printable(rationale_in(text, self._labels, self._options)).rstrip("\ufffd").rstrip()
        return self._piece(rationale) if rationale.startswith(self._sent) else ""

    def rest(self, rationale: str) -> str:
        """The last piece, for the complete rationale."""
        rationale = printable(rationale)
        if rationale.startswith(self._sent):
            return self._piece(rationale)
        # an end of its reasoning, found late, makes it another text: it is sent as a whole
        self._sent, before = rationale, self._sent
        return f"\n\n{rationale}" if before else rationale

    def _piece(self, rationale: str) -> str:
        piece = rationale[len(self._sent) :]
        self._sent = rationale
        return piece
