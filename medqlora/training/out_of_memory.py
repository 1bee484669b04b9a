"""A step that runs out of memory is repeated in smaller micro-batches, with the same result."""

from collections.abc import Callable, Sequence

import torch

from medqlora.data.batching.budget import TokenBudget
from medqlora.data.batching.packing import StepBatch
from medqlora.utils.console import say


class BudgetSplitter:
    """Halves the token budget until a step has more micro-batches than before; a `Splitter` of `TrainStep`.

    Args:
        budget: token budget of this process; later steps keep the lower value.
        rebuild: makes the step of these record ids under the present budget.
        device: device of the micro-batches.
    """

    def __init__(
        self, budget: TokenBudget, rebuild: Callable[[Sequence[str]], StepBatch], device: torch.device
    ) -> None:
        self._budget = budget
        self._rebuild = rebuild
        self._device = device

    def split(self, batch: StepBatch) -> StepBatch:
        """Returns the same step in more micro-batches, and tells the user the new budget.

        Raises:
            torch.OutOfMemoryError: each micro-batch held one example already.
        """
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch.micro_batches) == sum(len(micro.lengths) for micro in batch.micro_batches):
            longest = max(int(micro.lengths.max()) for micro in batch.micro_batches)
            raise torch.OutOfMemoryError(
                f"out of memory with one example at a time ({longest} tokens): lower --data.max_prompt_tokens, or see "
                "docs/memory-and-speed.md for options that need less"
            )
        before = self._budget.value
        smaller = self._rebuild(batch.ids)  # `batch` may be older than the present budget
        while len(smaller.micro_batches) <= len(batch.micro_batches):
            self._budget.lower()
            smaller = self._rebuild(batch.ids)
        if self._budget.value < before:
            say(
                f"Out of memory: the step is repeated, and the next ones run, with --data.micro_batch_tokens "
                f"{self._budget.value} instead of {before}; the result is the same"
            )
        return smaller._replace(
            micro_batches=tuple(micro.to(self._device) for micro in smaller.micro_batches)
        )
