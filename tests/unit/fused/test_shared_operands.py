"""The gradient between two layers, and what is kept beside cached weights: less work, the same gradients."""

from collections.abc import Callable
from pathlib import Path

import torch
from fused_models import LAYERS, assert_same, examples, gradients, load

from medqlora.data.batching.packing import pack
from medqlora.fused import FusedDecoder
from medqlora.fused.step import Widened


def test_a_layer_takes_the_operand_above_it_for_its_own_gradient_alone() -> None:
    widened, operand = Widened(), torch.zeros(3, 8)
    assert widened.take(operand[:, :6], 8) is None
    gradient = widened.give(operand, 6)
    assert gradient.shape == (3, 6)
    assert widened.take(gradient, 8) is operand
    assert widened.take(gradient, 8) is None  # once
    widened.give(operand, 6)
    assert widened.take(gradient.clone(), 8) is None
    widened.give(operand, 6)
    assert widened.take(gradient, 7) is None  # of a layer with other ranks


def test_kept_norms_of_layers_with_cached_weights_change_no_gradient(folders: Callable[[str], Path]) -> None:
    model = load(folders("llama"))
    found = []
    for cached, checkpointing in ((0, "none"), (LAYERS, "none"), (LAYERS, 1), (1, "none")):
        decoder = FusedDecoder(model, cached=cached, checkpointing=checkpointing)  # type: ignore[arg-type]
        kept = [layer.second.keeps for layer in decoder.layers]
        assert sum(kept) == min(cached, LAYERS - decoder.recomputed)
        found.append(gradients(model, decoder.loss_sum(pack(examples()))))
    for other in found[1:]:
        assert_same(other, found[0], 1e-6)
