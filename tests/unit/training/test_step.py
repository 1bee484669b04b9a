"""One `TrainStep`, wherever it runs: its result does not depend on the micro-batches."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from medqlora.config import StepOptions
from medqlora.data.batching.budget import TokenBudget
from medqlora.data.batching.packing import MicroBatch, StepBatch, step_batch
from medqlora.records import Encoded
from medqlora.training.optim import warmup_cosine
from medqlora.training.out_of_memory import BudgetSplitter
from medqlora.training.step import TorchDriver, TrainStep

CPU = torch.device("cpu")
EXAMPLES = [Encoded(str(n), (1 + n, 2, 3 + n), (4 + n, 5)) for n in range(6)]


class Bigrams(nn.Module):
    """A language model that looks at one token; more than `most` tokens at once do not fit in its memory."""

    def __init__(self, most: int = 10**9) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(12, 12)
        self.most = most
        self.passes: list[int] = []

    def loss_sum(self, batch: MicroBatch) -> Tensor:
        logits = self.table(batch.input_ids.flatten()[batch.rows])
        if batch.input_ids.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.passes.append(batch.input_ids.numel())
        return nn.functional.cross_entropy(logits.float(), batch.targets, reduction="sum")


def _tokens(example: Encoded) -> int:
    return len(example.prompt) + len(example.completion)


def trained(
    tokens: int, most: int = 10**9, dtype: torch.dtype = torch.float32
) -> tuple[list[float], Bigrams, TokenBudget]:
    """Losses of three steps, the model after them, and the budget."""
    model, budget = Bigrams(most), TokenBudget(tokens)
    watched: list[tuple[int, int]] = []
    optimizer = AdamW(model.parameters(), lr=0.1, weight_decay=0.0)

    def rebuild(ids: Sequence[str]) -> StepBatch:
        return step_batch([EXAMPLES[int(ident)] for ident in ids], budget.value)

    step = TrainStep(
        model,
        optimizer,
        StepOptions(max_grad_norm=1.0),
        device=CPU,
        scheduler=warmup_cosine(optimizer, warmup_steps=1, total_steps=3),
        driver=TorchDriver(CPU, dtype),
        splitter=BudgetSplitter(budget, rebuild, CPU),
        watch=lambda done, of: watched.append((done, of)),
    )
    results = [step.step(rebuild([one.id for one in EXAMPLES])) for _ in range(3)]
    assert [result.rate for result in results] == pytest.approx([0.05, 0.1, 0.05])
    assert all(result.ids == tuple("012345") and not result.overflow for result in results)
    assert all(parameter.grad is None for parameter in model.parameters())
    # each pass is heard of, and a step ends with all of its tokens
    assert (
        [done for done, _ in watched[-1:]] == [of for _, of in watched[-1:]] == [sum(map(_tokens, EXAMPLES))]
    )
    assert len(watched) == len(model.passes)
    return [float(result.loss) for result in results], model, budget


def test_the_micro_batches_change_no_loss_and_no_weight() -> None:
    losses, model, _ = trained(1000)
    assert losses == sorted(losses, reverse=True)
    for tokens in (1, 10, 17):
        others, other, _ = trained(tokens)
        assert others == pytest.approx(losses, rel=1e-6)
        assert torch.allclose(other.table.weight, model.table.weight, atol=1e-6)
        assert len(other.passes) > len(model.passes) == 3


def test_a_step_out_of_memory_is_repeated_in_smaller_micro_batches_with_the_same_result(
    capsys: pytest.CaptureFixture[str],
) -> None:
    losses, model, _ = trained(1000)
    halved, other, budget = trained(1000, most=10)
    assert halved == pytest.approx(losses, rel=1e-6)
    assert torch.allclose(other.table.weight, model.table.weight, atol=1e-6)
    assert max(other.passes) <= 10
    assert (budget.value, budget.common) == (7, 1000)
    assert capsys.readouterr().out.count("Out of memory: ") == 2


def test_without_a_splitter_and_with_one_example_the_error_reaches_the_caller() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="one example at a time"):
        trained(1000, most=3)
    model = Bigrams(most=3)
    step = TrainStep(model, AdamW(model.parameters()), StepOptions(), device=CPU)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA"):
        step.step(step_batch(EXAMPLES, 1000))


def test_a_step_that_is_not_finite_changes_no_weight() -> None:
    model = Bigrams()
    step = TrainStep(model, AdamW(model.parameters(), lr=0.1, weight_decay=0.0), StepOptions(), device=CPU)
    before = model.table.weight.detach().clone()
    model.register_parameter("factor", nn.Parameter(torch.zeros(1)))
    with torch.no_grad():
        model.table.weight[4] = torch.inf
    broken = before.clone()
    broken[4] = torch.inf
    result = step.step(step_batch(EXAMPLES, 1000)._replace(completion_tokens=1))
    assert not bool(torch.isfinite(result.loss))
    assert torch.equal(model.table.weight, broken)


def test_float16_scales_the_loss_and_unscales_before_clipping() -> None:
    losses, model, _ = trained(17)
    halves, other, _ = trained(17, dtype=torch.float16)
    assert halves == pytest.approx(losses, rel=1e-2)
    assert torch.allclose(other.table.weight, model.table.weight, atol=1e-2)
