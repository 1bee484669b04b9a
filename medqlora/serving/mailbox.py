"""The events of one job on their way to its client."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

from medqlora.serving.engine import Delta

E = TypeVar("E")


class Mailbox(Generic[E]):
    """First in, first out; of a text that grows faster than it is read, the newest state alone is kept."""

    def __init__(self) -> None:
        self._events: deque[E | Delta] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: E | Delta) -> None:
        if isinstance(event, Delta) and self._events and isinstance(self._events[-1], Delta):
            self._events[-1] = event
        else:
            self._events.append(event)
        self._filled.set()

    async def get(self) -> E | Delta:
        """The next event, as soon as there is one."""
        while not self._events:
            self._filled.clear()
            await self._filled.wait()
        return self._events.popleft()
