"""What the decode engine takes and gives: requests, and their new tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

#: the adapter that the model has active when the request is added, or none where it is disabled
ACTIVE = "*"
#: why a text ended: an end token, the length limit, or `cancel`
Finished = Literal["end", "length", "cancelled"]


@dataclass(frozen=True)
class Sampling:
    """Random choice of each token.

    The numbers drawn depend on the seed and on the number of tokens before, and on nothing else: a request's text is
    the same in any company, up to the rounding of the logits.

    Attributes:
        temperature: divides the logits; above 0.
        top_p: the likeliest tokens that together have this probability are drawn from, 0 to 1 (nucleus sampling,
            Holtzman et al., 2020, https://arxiv.org/abs/1904.09751).
        seed: of the random numbers, 0 to 2**63 - 1.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for values out of range."""
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"temperature is {self.temperature}: it has to be above 0; greedy is no sampling"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it has to be above 0 and at most 1")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: it has to be from 0 to 2**63 - 1")


@dataclass(frozen=True)
class Request:
    """A prompt to continue.

    Attributes:
        prompt: token ids, at least one.
        max_new_tokens: length limit, at least 1.
        end_token_ids: each of them ends the text, and is no part of it.
        adapter: the name of an adapter that the model holds; None for the bare base model.
        sampling: None takes the likeliest token (greedy).
    """

    prompt: Sequence[int]
    max_new_tokens: int
    end_token_ids: Sequence[int] = ()
    adapter: str | None = ACTIVE
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for an empty prompt or a limit below 1."""
        if not len(self.prompt):
            raise ValueError("the prompt is empty: it needs a token to continue")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}: it has to be at least 1")

    @property
    def tokens(self) -> int:
        """Tokens of the longest text, with its prompt."""
        return len(self.prompt) + self.max_new_tokens


class NewTokens(NamedTuple):
    """New tokens of a request.

    Attributes:
        id: the request's number, from `DecodeEngine.add`.
        tokens: in order; none where an end token or `cancel` ended the text.
        finished: why the text ended; None while it goes on.
    """

    id: int
    tokens: tuple[int, ...]
    finished: Finished | None
