"""LoRA dropout in the fused decoder: PEFT's, with masks that come back when a layer runs again."""

import math
from typing import Any

import pytest
import torch
from fused_models import LAYERS, SETTINGS, assert_same, examples, gradients, load
from tiny import build_base
from torch import Tensor, nn

from medqlora.data.batching.packing import pack
from medqlora.fused import FusedDecoder
from medqlora.fused.group import Adapter, _drop
from medqlora.models import Decoder, LoRA
from medqlora.models.lora import SEVEN_PROJECTIONS

RATE = 0.3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = build_base(tmp_path_factory.mktemp("dropout"), layers=LAYERS)
    return load(folder, LoRA(r=5, alpha=9, dropout=RATE)).train()


def adapter(rate: float, training: bool = True) -> Adapter:
    weight = nn.Parameter(torch.zeros(2, 2))
    return Adapter(weight, weight, 1.0, nn.Dropout(rate).train(training))


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_an_input_is_dropped_with_the_asked_probability_and_kept_ones_are_scaled(rate: float) -> None:
    ones = torch.ones(500, 400)
    dropped = _drop(ones, adapter(rate), 7, 0)
    kept = dropped != 0
    assert torch.allclose(dropped[kept], torch.tensor(1 / (1 - rate)))
    deviation = math.sqrt(rate * (1 - rate) / ones.numel())
    assert abs(kept.float().mean().item() - (1 - rate)) < 4 * deviation
    again, other, later = (_drop(ones, adapter(rate), *key) for key in ((7, 0), (7, 1), (15, 0)))
    assert torch.equal(again, dropped)
    for different in (other, later):  # as often equal as chance has it
        agreement = ((different != 0) == kept).float().mean().item()
        assert agreement == pytest.approx(rate**2 + (1 - rate) ** 2, abs=0.01)
    assert torch.equal(_drop(ones, adapter(rate, training=False), 7, 0), ones)


def test_recomputed_layers_drop_what_they_dropped_before(model: Any) -> None:
    found: list[dict[str, Tensor]] = []
    for checkpointing in SETTINGS:
        fused = FusedDecoder(model, checkpointing=checkpointing)
        torch.manual_seed(3)
        found.append(gradients(model, fused.loss_sum(pack(examples()))))
    for other in found[1:]:
        assert_same(other, found[0], 1e-6)
    second = gradients(model, fused.loss_sum(pack(examples())))  # the random numbers have gone on
    assert all((second[name] - value).norm() > 1e-2 * value.norm() for name, value in found[0].items())


class Masked(nn.Module):
    """Stands in for PEFT's dropout: the mask that a seed gives."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        keep = torch.empty(x.shape[-2:], dtype=torch.bool).bernoulli_(1 - RATE, generator=generator)
        return x * keep / (1 - RATE)


def test_with_the_same_masks_gradients_are_pefts(model: Any) -> None:
    batch = pack(examples((11, 4)))
    rows, weight = torch.arange(15), torch.randn(15, 64, generator=torch.Generator().manual_seed(4))
    fused = FusedDecoder(model, checkpointing=1)
    torch.manual_seed(5)
    hidden = fused.hidden(batch, rows)
    ours = gradients(model, (hidden * weight).sum())
    torch.manual_seed(5)
    seed = int(torch.randint(1 << 62, ()))
    replaced = []
    for number, layer in enumerate(model.get_base_model().model.layers):
        for place, name in enumerate(SEVEN_PROJECTIONS):
            module = getattr(layer.mlp if hasattr(layer.mlp, name) else layer.self_attn, name)
            replaced.append((module.lora_dropout, module.lora_dropout["default"]))
            module.lora_dropout["default"] = Masked(seed + 8 * number + place)
    try:
        expected = Decoder(model).hidden(batch, rows)
        assert (hidden - expected).norm() <= 1e-5 * expected.norm()
        assert_same(ours, gradients(model, (expected * weight).sum()))
    finally:
        for container, dropout in replaced:
            container["default"] = dropout


@torch.no_grad()
def test_nothing_is_dropped_in_evaluation_and_no_random_number_is_drawn(model: Any) -> None:
    fused, batch, rows = FusedDecoder(model), pack(examples((11, 4))), torch.arange(15)
    model.eval()
    try:
        state = torch.get_rng_state()
        expected = Decoder(model).hidden(batch, rows)
        assert (fused.hidden(batch, rows) - expected).norm() <= 1e-5 * expected.norm()
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        model.train()
