"""LoRA+ and NEFTune: their formulas, in both engines."""

from pathlib import Path

import pytest
import torch
from fused_models import examples, load
from torch import nn

from medqlora.data.batching.packing import micro_batch
from medqlora.errors import InputError
from medqlora.fused import FusedDecoder
from medqlora.models import Decoder
from medqlora.models.embedding_noise import with_noise
from medqlora.training.optim import build_optimizer, warmup_cosine


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "SGD"])
def test_b_has_a_multiple_of_the_rate_over_the_whole_schedule(name: str) -> None:
    named = [(f"layer.lora_{part}.default.weight", nn.Parameter(torch.ones(2))) for part in "AB"]
    optimizer = build_optimizer(name, named, learning_rate=1e-3, weight_decay=0.0, lora_plus_ratio=16)
    schedule = warmup_cosine(optimizer, warmup_steps=1, total_steps=4)
    for _ in range(4):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(16 * first)
        optimizer.step()
        schedule.step()
    assert [parameter is named[0][1] for parameter in optimizer.param_groups[0]["params"]] == [True]
    with pytest.raises(InputError, match="class_path"):
        build_optimizer(torch.optim.SGD, named, learning_rate=1.0, weight_decay=0.0, lora_plus_ratio=2)


def test_noise_is_bounded_by_each_examples_length() -> None:
    torch.manual_seed(0)
    lengths, width = torch.tensor([4, 100]), 64
    packed = with_noise(torch.zeros(1, 104, width), lengths, 5.0)[0]
    padded = with_noise(torch.zeros(2, 100, width), lengths, 5.0)
    for rows in (packed[:4], padded[0, :4]):
        assert rows.abs().max() == pytest.approx(5 / (4 * width) ** 0.5, rel=0.05)
    for rows in (packed[4:], padded[1]):
        assert rows.abs().max() == pytest.approx(5 / (100 * width) ** 0.5, rel=0.05)
        assert rows.std() == pytest.approx(5 / (100 * width) ** 0.5 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("engine", ["packed", "padded", "fused"])
def test_noise_reaches_training_and_no_evaluation(tiny_bases: dict[str, Path], engine: str) -> None:
    model = load(tiny_bases["llama"])
    decoder = FusedDecoder(model, checkpointing=1) if engine == "fused" else Decoder(model)
    batch = micro_batch(examples(), packed=engine != "padded", pad_token_id=2)
    plain = decoder.loss_sum(batch).item()
    decoder.noise_alpha = 50.0
    torch.manual_seed(1)
    noisy = decoder.loss_sum(batch)
    assert abs(noisy.item() - plain) > 1e-3
    noisy.backward()
    torch.manual_seed(1)
    assert decoder.loss_sum(batch).item() == pytest.approx(noisy.item(), rel=1e-6)
    with torch.no_grad():
        assert decoder.loss_sum(batch).item() == pytest.approx(plain, rel=1e-6)
