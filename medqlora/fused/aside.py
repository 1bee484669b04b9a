"""Small work beside large products, on a stream of its own.

The last blocks of a large product leave many of the GPU's processors idle. LoRA's gradients, which nothing waits for
before the end of the pass, run there.
"""

from collections.abc import Callable
from typing import TypeVar, overload

import torch

First = TypeVar("First")
Second = TypeVar("Second")


class Aside:
    """Runs two operations that don't need each other at the same time.

    Args:
        stream: of the second one; None to run them one after the other.
    """

    def __init__(self, stream: torch.cuda.Stream | None = None) -> None:
        self._stream = stream

    @overload
    def both(self, first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]: ...

    @overload
    def both(
        self, first: Callable[[], First] | None, second: Callable[[], Second]
    ) -> tuple[First | None, Second]: ...

    def both(
        self, first: Callable[[], First] | None, second: Callable[[], Second]
    ) -> tuple[First | None, Second]:
        """Their results. The present stream goes on when both have ended, so that their memory may be freed then."""
        if self._stream is None or first is None:
            return None if first is None else first(), second()
        present = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(present)
        try:
            one = first()
            with torch.cuda.stream(self._stream):
                other = second()
        finally:
            present.wait_stream(self._stream)
        return one, other
