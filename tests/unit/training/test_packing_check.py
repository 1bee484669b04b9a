"""Before the first step: the loss of a pack is that of its examples, as far as rounding goes."""

import pytest
import torch
from torch import Tensor

from medqlora.data.batching.packing import MicroBatch
from medqlora.errors import InputError
from medqlora.records import Encoded, Record
from medqlora.training.checks.packing import compare_losses

EXAMPLES = [Encoded(str(size), tuple(range(size)), (1, 2, 3)) for size in (5, 7, 9)]
RECORDS = {one.id: Record(one.id, "Does it help?", labels=("yes", "no")) for one in EXAMPLES}


class Losses:
    """A decoder whose loss is 2 nats a completion token, times `rounded`; in packs of several also times `leaking`."""

    def __init__(self, rounded: float = 1.0, leaking: float = 1.0) -> None:
        self.rounded, self.leaking = rounded, leaking

    def loss_sum(self, batch: MicroBatch) -> Tensor:
        several = len(batch.lengths) > 1
        return torch.tensor(2.0 * len(batch.targets) * self.rounded * (self.leaking if several else 1.0))

    def hidden(self, batch: MicroBatch, rows: Tensor) -> Tensor:
        return torch.ones(len(rows), 4)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden


def compared(decoder: Losses, plain: Losses, dtype: torch.dtype) -> None:
    compare_losses(decoder, plain, EXAMPLES, RECORDS, dtype, torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equal_losses_pass(dtype: torch.dtype) -> None:
    compared(Losses(), Losses(), dtype)


def test_another_implementation_may_round_more_than_packing_does() -> None:
    compared(Losses(), Losses(rounded=1.017), torch.bfloat16)
    with pytest.raises(InputError, match=r"--data\.packing"):
        compared(Losses(), Losses(rounded=1.017), torch.float32)


@pytest.mark.parametrize("rounded", [1.0, 1.017, 0.99])
def test_a_leak_is_found_however_the_other_implementation_rounds(rounded: float) -> None:
    with pytest.raises(InputError, match=r"3 examples, is .* together and .* one by one"):
        compared(Losses(leaking=0.98), Losses(rounded=rounded), torch.bfloat16)


@pytest.mark.parametrize("wrong", [0.5, 1.2, float("nan")])
def test_an_implementation_that_is_wrong_for_single_examples_too_is_found(wrong: float) -> None:
    with pytest.raises(InputError, match=r"--data\.packing"):
        compared(Losses(rounded=wrong), Losses(), torch.bfloat16)
