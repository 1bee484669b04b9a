"""A step that takes more memory than there is, is done again in smaller pieces: the same step."""

from typing import Any

import torch

from medqlora.data.batching.packing import StepBatch
from medqlora.utils.console import say


def split_further(batch: StepBatch, data: Any, device: torch.device) -> StepBatch:
    """The same step in more micro-batches, and a smaller budget for those that come; says so.

    Args:
        batch: what was too much.
        data: the datamodule that it is of.
        device: where the pieces go.

    Raises:
        torch.OutOfMemoryError: each example went through alone already.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if len(batch.micro_batches) == sum(len(micro.lengths) for micro in batch.micro_batches):
        longest = max(int(micro.lengths.max()) for micro in batch.micro_batches)
        raise torch.OutOfMemoryError(
            f"out of memory with one example at a time ({longest} tokens): lower --data.max_prompt_tokens, or see the "
            "docs/memory-and-speed.md for what takes less"
        )
    before = data.token_budget
    smaller = data.step_of(batch.ids)  # of a batch that was made before the budget was lowered
    while len(smaller.micro_batches) <= len(batch.micro_batches):
        data.lower_micro_batch_tokens()
        smaller = data.step_of(batch.ids)
    if data.token_budget < before:
        say(
            f"Out of memory: the step is done again, and the next ones, with --data.micro_batch_tokens "
            f"{data.token_budget} instead of {before}; the result is the same"
        )
    pieces = tuple(micro.to(device) for micro in smaller.micro_batches)
    return smaller._replace(micro_batches=pieces)
