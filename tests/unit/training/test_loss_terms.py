"""Weighted and smoothed loss: both engines and every layout give the sum that torch gives term by term."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fused_models import assert_same, examples, gradients, load
from torch import Tensor
from torch.nn import functional as F

from medqlora.data.batching.loss_terms import loss_terms
from medqlora.data.batching.packing import micro_batch, step_batch
from medqlora.fused import FusedDecoder
from medqlora.fused.head import HostHeadLoss
from medqlora.models import Decoder
from medqlora.models.host_weights import HostHead
from medqlora.records import Encoded

LABELS = ((7,), (8,), (9,))


def weighted() -> list[Encoded]:
    """Examples of different weights; the third has its label second, and the last has no labels."""
    first, second, third, fourth, _ = examples()
    return [
        first._replace(completion=[8, *first.completion[1:]], labels=LABELS, weight=0.5, smoothing=0.3),
        second._replace(completion=[7], labels=LABELS, weight=2.5, smoothing=0.3),
        third._replace(completion=[5, 9, 6], labels=LABELS, smoothing=0.3, label_at=1),
        fourth._replace(weight=1.5),
    ]


def by_hand(model: Any, chosen: list[Encoded]) -> Tensor:
    """Σ w · cross-entropy against the full target distribution, over the model's own logits."""
    total = torch.zeros(())
    for example in chosen:
        ids = [*example.prompt, *example.completion]
        logits = model(input_ids=torch.tensor([ids])).logits[0, len(example.prompt) - 1 : -1].float()
        target = F.one_hot(torch.tensor(list(example.completion)), logits.shape[1]).float()
        if example.smoothing:
            row = target[example.label_at]
            row *= 1 - example.smoothing
            for (token,) in example.labels:
                row[token] += example.smoothing / len(example.labels)
        total = total + example.weight * F.cross_entropy(logits, target, reduction="sum")
    return total


@pytest.mark.parametrize("layout", ["packed", "padded", "fused"])
def test_the_loss_and_its_gradients_are_those_of_the_full_target_distribution(
    tiny_bases: dict[str, Path], layout: str
) -> None:
    model = load(tiny_bases["llama"])
    chosen = weighted()
    expected = by_hand(model, chosen)
    wanted = gradients(model, expected)
    batch = micro_batch(chosen, packed=layout != "padded", pad_token_id=2)
    decoder = FusedDecoder(model, checkpointing=1) if layout == "fused" else Decoder(model)
    loss = decoder.loss_sum(batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same(gradients(model, loss), wanted)


def test_a_head_on_the_host_weighs_as_one_on_the_device() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 8, requires_grad=True), torch.randn(40, 8)
    targets, weights = torch.randint(40, (5,)), torch.rand(5)
    head = torch.nn.Linear(8, 40, bias=False)
    del head._parameters["weight"]
    head.__class__ = HostHead
    object.__setattr__(head, "weight", weight)
    loss = HostHeadLoss.apply(hidden, head, targets, weights)
    (found,) = torch.autograd.grad(loss, hidden)
    expected = F.cross_entropy(hidden @ weight.t(), targets, reduction="none") @ weights
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(found, torch.autograd.grad(expected, hidden)[0], atol=1e-5)


def test_weights_enter_the_steps_divisor_as_its_sum() -> None:
    chosen = weighted()
    batch = step_batch(chosen, 15)
    terms = [micro.terms for micro in batch.micro_batches if micro.terms is not None]
    assert len(batch.micro_batches) > 1
    assert batch.divisor == pytest.approx(sum(float(term.weights.sum()) for term in terms))
    assert batch.divisor == pytest.approx(sum(one.weight * len(one.completion) for one in chosen))
    plain = step_batch(examples(), 15)
    assert plain.divisor == plain.completion_tokens == 13
    assert all(micro.terms is None for micro in plain.micro_batches)


def test_only_the_token_that_tells_the_labels_apart_is_smoothed() -> None:
    labels = ((5, 6), (5, 7))
    terms = loss_terms([Encoded("q", (1,), (5, 7, 2), labels, smoothing=0.2)])
    assert terms is not None
    assert list(zip(terms.places.tolist(), terms.targets.tolist(), strict=True)) == [
        (0, 5),
        (1, 7),
        (1, 6),
        (2, 2),
    ]
    assert terms.weights.tolist() == pytest.approx([1, 0.9, 0.1, 1])
