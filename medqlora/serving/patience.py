"""Questions that wait where a client of one question is told to ask again: lines of a batch, claims of an answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from medqlora.serving.errors import ServiceError

T = TypeVar("T")
_FIRST_S, _LONGEST_S = 0.2, 2.0


async def patiently(ask: Callable[[], Awaitable[T]], seconds: float) -> T:
    """What `ask` gives; while the queue is full it is called again, for at most `seconds`.

    Raises:
        ServiceError: of `ask`.
    """
    end = time.monotonic() + seconds
    pause = _FIRST_S
    while True:
        try:
            return await ask()
        except ServiceError as error:
            if error.code != "queue" or time.monotonic() + pause > end:
                raise
        await asyncio.sleep(pause)
        pause = min(_LONGEST_S, 2 * pause)
