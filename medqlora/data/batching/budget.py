"""The token budget of micro-batches, which a process may lower while it trains."""

from typing import Literal

#: tokens of a micro-batch where neither an option nor the memory decides
DEFAULT_TOKENS = 2048


class TokenBudget:
    """Tokens that go through the model at once; changes memory and speed, never the result.

    Loader, training step, preflight and evaluation share one object, so a lower budget reaches all of them.

    Args:
        option: `--data.micro_batch_tokens`; "auto" until `settle`.
    """

    def __init__(self, option: int | Literal["auto"] = DEFAULT_TOKENS) -> None:
        self.option = option
        self._common: int | None = None

    @property
    def value(self) -> int:
        """Budget of this process, in tokens."""
        return DEFAULT_TOKENS if isinstance(self.option, str) else self.option

    @property
    def common(self) -> int:
        """Budget that all processes started with, in tokens: questions are dealt out to processes by it."""
        return self.value if self._common is None else self._common

    def settle(self, value: int) -> None:
        """Sets the budget that the plan of the fit chose."""
        self.option = value

    def lower(self) -> None:
        """Halves the budget of this process; `common` stays."""
        self._common = self.common
        self.option = max(1, self.value // 2)
