"""The largest training micro-batch and the largest validation batch of a fit, run once before its first step.

Too large options fail within seconds instead of hours, kernels are compiled, and the plan is compared with the
allocated memory. Weights, optimizer and random state stay as they were.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch

from medqlora.config.data import EVAL_ROWS
from medqlora.data.batching.packing import MicroBatch
from medqlora.data.stage_data import StageData
from medqlora.inference.evaluator import Evaluator
from medqlora.planner.fitting import largest_micro_batch
from medqlora.training.fit_plan import FitPlan, size
from medqlora.utils.console import say
from medqlora.utils.progress import phase
from medqlora.utils.random_state import random_state, restore_random_state


class FitTrial(Protocol):
    """The parts of a fit that preflight runs."""

    def train(self, micro: MicroBatch) -> None:
        """Runs forward and backward, and removes the gradients."""

    def evaluate(self, run: Callable[[Evaluator], object]) -> None:
        """Calls `run` with the evaluator, in eval mode and without gradients."""

    def join(self) -> None:
        """Waits for processes that share the base model."""


def preflight(trial: FitTrial, data: StageData, planned: FitPlan, device: torch.device) -> dict[str, float]:
    """Runs the largest micro-batch and the longest questions, and tells the user their memory beside the plan.

    Args:
        trial: the fit, its optimizer and engine prepared.
        data: with training and validation set; its token budget is lowered where the micro-batch does not fit.
        planned: the plan.
        device: a GPU.

    Returns:
        Peaks in bytes by phase ("fit", "validate"), and "seconds" of the whole preflight.

    Raises:
        torch.OutOfMemoryError: one example alone, or the validation, does not fit.
    """
    before = random_state(device)
    begun = time.monotonic()
    with phase("Preflight, the largest training batch"):
        tokens, fit_peak = _largest_training(trial, data, planned, device)
        trial.join()
    with phase("Preflight, the longest questions"):
        evaluation_peak = _peak(partial(_evaluate, trial, data), device)
        trial.join()
    if evaluation_peak is None:
        raise torch.OutOfMemoryError(
            "out of memory in validation: lower --data.eval_batch_size or --data.micro_batch_tokens, or pass "
            "--model.generate false"
        )
    seconds = time.monotonic() - begun
    restore_random_state(before)
    # the optimizer allocates its state in the first step
    state = planned.plan.phases["fit"].get("optimizer", 0)
    expected = planned.plan.total("fit") - state
    say(
        f"Preflight: {tokens} tokens at once take {size(fit_peak)} and {size(state)} for the optimizer, planned "
        f"{size(expected)} ({expected / fit_peak - 1:+.1%}); the longest questions {size(evaluation_peak)}; "
        f"{seconds:.0f} s with the kernels' compilation, which is kept for the next run"
    )
    return {"fit": fit_peak, "validate": evaluation_peak, "seconds": seconds}


def _largest_training(
    trial: FitTrial, data: StageData, planned: FitPlan, device: torch.device
) -> tuple[int, int]:
    """Tokens of the largest micro-batch that fits, and its peak in bytes; lowers the budget until one does."""
    while True:
        budget = data.budget.value
        tokens, indices = largest_micro_batch(planned.work, budget)
        batch = data.alone([data.train[index].id for index in indices])
        # padded rows are grouped differently: the largest group of these examples counts
        micro = max(batch.micro_batches, key=lambda micro: micro.input_ids.numel())
        peak = _peak(partial(trial.train, micro), device)
        if peak is not None:
            return tokens, peak
        if len(indices) == 1:
            raise torch.OutOfMemoryError(
                f"out of memory with one example of {tokens} tokens: lower --data.max_prompt_tokens, or see "
                "what takes less with `medqlora plan`"
            )
        data.budget.lower()
        say(
            f"Preflight: {tokens} tokens at once are too many: micro-batches of {data.budget.value} tokens "
            f"instead of {budget}"
        )


def _evaluate(trial: FitTrial, data: StageData) -> None:
    """Evaluates the longest validation questions: as many as are scored and generated at once."""
    if not data.dev:
        return
    examples = sorted(data.dev, key=lambda example: -len(example.prompt))
    rows = max(1, min(data.eval_rows or EVAL_ROWS, data.token_budget // len(examples[0].prompt)))
    trial.evaluate(lambda evaluator: evaluator.evaluate(examples[:rows], data.records, completions=True))


def _peak(run: Callable[[], object], device: torch.device) -> int | None:
    """Most bytes allocated while `run` runs; None where memory ran out."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        run()
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        return None
    return int(torch.cuda.max_memory_allocated(device))
