"""A request inside of the decode engine."""

from dataclasses import dataclass

from medqlora.inference.decoding.requests import Request
from medqlora.inference.decoding.sampling import Chooser


@dataclass(eq=False)
class Row:
    """A request that is waiting or being continued.

    Attributes:
        slot: in the cache; -1 while it waits, and after its end.
        cached: tokens in the cache.
        last: the newest token, which is not in the cache yet.
        count: new tokens so far.
    """

    id: int
    request: Request
    adapter: str | None
    chooser: Chooser
    slot: int = -1
    cached: int = 0
    last: int = 0
    count: int = 0

    @property
    def need(self) -> int:
        """The most tokens that it can take in the cache."""
        return self.request.tokens
