"""The largest training, scoring and writing that a fit will do, done once before its first step.

What doesn't fit is found in the first seconds instead of in the second hour, kernels are compiled, and the
plan is compared with what was allocated. The run itself is not changed by it.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from medqlora.data.batching.packing import MicroBatch
from medqlora.planner.fitting import largest_micro_batch
from medqlora.training.fit_plan import FitPlan, size
from medqlora.utils.console import say
from medqlora.utils.random_state import random_state, restore_random_state


def preflight(module: Any, data: Any, planned: FitPlan) -> dict[str, float]:
    """Runs the largest micro-batch and the longest questions; says what they took beside the plan.

    Args:
        module: the QLoRAModule, on a GPU, its optimizer made and its engine chosen.
        data: its datamodule.
        planned: what the fit was planned to take.

    Returns:
        Peaks in bytes by phase ("fit", "validate"), and "seconds" that all took.

    Raises:
        torch.OutOfMemoryError: an example alone is too much.
    """
    device = module.device
    before = random_state(device)
    begun = time.monotonic()
    found: dict[str, float] = {}
    peak, tokens = None, 0
    while peak is None:
        old = data.token_budget
        tokens, indices = largest_micro_batch(planned.work, old)
        batch = data.alone([data.train[index].id for index in indices])
        # padded rows are grouped otherwise: the largest of the groups that these examples make
        micro = max(batch.micro_batches, key=lambda one: one.input_ids.numel())
        peak = _peak(partial(_step, module, micro), device)
        if peak is None:
            if len(indices) == 1:
                raise torch.OutOfMemoryError(
                    f"out of memory with one example of {tokens} tokens: lower --data.max_prompt_tokens, or see "
                    "what takes less with `medqlora plan`"
                )
            data.budget.lower()
            say(
                f"Preflight: {tokens} tokens at once are too many: micro-batches of {data.token_budget} tokens "
                f"instead of {old}"
            )
    module.join()
    found["fit"] = peak
    written = _peak(partial(_evaluation, module, data), device)
    module.join()
    if written is None:
        raise torch.OutOfMemoryError(
            "out of memory in validation: lower --data.eval_batch_size or --data.micro_batch_tokens, or pass "
            "--model.generate false"
        )
    found["validate"] = written
    found["seconds"] = time.monotonic() - begun
    restore_random_state(before)
    # the optimizer's state comes with the first step
    state = planned.plan.phases["fit"].get("optimizer", 0)
    expected = planned.plan.total("fit") - state
    say(
        f"Preflight: {tokens} tokens at once take {size(peak)} and {size(state)} for the optimizer, planned "
        f"{size(expected)} ({expected / peak - 1:+.1%}); the longest questions {size(written)}; "
        f"{found['seconds']:.0f} s with the kernels' compilation, which is kept for the next run"
    )
    return found


def _step(module: Any, micro: MicroBatch) -> None:
    """Forward and backward that leave nothing behind, not even what an exception would hold on to."""
    module.optimizers().zero_grad()
    try:
        with module.trainer.precision_plugin.train_step_context():
            loss = module.chosen.decoder.loss_sum(micro.to(module.device)) / max(1, len(micro.targets))
        loss.backward()
    finally:
        module.optimizers().zero_grad()


def _evaluation(module: Any, data: Any) -> None:
    """One pass over the longest validation questions: as many as are scored and written at once."""
    if not data.dev:
        return
    examples = sorted(data.dev, key=lambda one: -len(one.prompt))
    rows = max(1, min(data.eval_batch_size, data.token_budget // len(examples[0].prompt)))
    module.eval()
    try:
        with torch.no_grad(), module.trainer.precision_plugin.val_step_context():
            module.evaluator().evaluate(examples[:rows], data.records, completions=True)
    finally:
        module.train()


def _peak(run: Callable[[], Any], device: torch.device) -> int | None:
    """The most bytes allocated while it runs; None where that was more than there is."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        run()
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        return None
    return int(torch.cuda.max_memory_allocated(device))
