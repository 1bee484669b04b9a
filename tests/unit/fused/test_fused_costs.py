"""What the fused decoder does, and how often: dequantizations, layers run again, rows, logits."""

from typing import Any

import pytest
import torch
from fused_models import LAYERS, examples, gradients, load
from tiny import build_base
from torch.nn import functional as F

from medqlora.data.batching.packing import pack
from medqlora.fused import Checkpointing, FusedDecoder, group, head
from medqlora.fused.head import HeadLoss
from medqlora.fused.kernels.dequantize import FourBit
from medqlora.fused.kernels.elementwise import cross_entropy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(build_base(tmp_path_factory.mktemp("costs"), layers=LAYERS))


@pytest.mark.parametrize(("checkpointing", "again"), [("none", 0), ("full", LAYERS - 1), (1, 1)])
def test_each_weight_is_dequantized_once_a_pass_and_down_proj_not_when_a_layer_runs_again(
    checkpointing: Checkpointing, again: int, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    dequantize_into = FourBit.dequantize_into

    def counted(self: FourBit, out: torch.Tensor, *beside: Any) -> None:
        seen.extend((id(self), place) for place in range(len(self)))
        dequantize_into(self, out, *beside)

    monkeypatch.setattr(FourBit, "dequantize_into", counted)
    loss = FusedDecoder(model, checkpointing=checkpointing).loss_sum(pack(examples()))
    assert len(seen) == len(set(seen)) == 7 * LAYERS
    gradients(model, loss)
    # the first layer's input takes no gradient, so its q|k|v is not needed a second time
    assert len(seen) == 7 * LAYERS + 6 * again + 7 * LAYERS - 3


def test_the_last_layer_runs_behind_its_keys_at_the_rows_that_carry_loss_alone(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    forward = group.Group.forward

    def counted(self: group.Group, x: torch.Tensor, *rest: Any, **options: Any) -> Any:
        rows.append(x.shape[0])
        return forward(self, x, *rest, **options)

    monkeypatch.setattr(group.Group, "forward", counted)
    FusedDecoder(model).loss_sum(pack(examples()))
    tokens, loss_rows, bounds = 45, 13, 5
    assert rows == [tokens] * 4 * (LAYERS - 1) + [loss_rows + bounds, tokens] + [loss_rows] * 3


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_heads_loss_and_gradient_are_cross_entropys_whatever_the_pieces(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(13, 8, generator=generator), torch.randn(50, 8, generator=generator)
    targets = torch.randint(50, (13,), generator=generator)
    monkeypatch.setattr(head, "PIECE_LOGITS", 50 * size)
    results = []
    for ours in (True, False):
        rows = hidden.clone().requires_grad_()
        loss = (
            HeadLoss.apply(rows, weight, targets, cross_entropy)
            if ours
            else F.cross_entropy(rows @ weight.t(), targets, reduction="sum")
        )
        (3 * loss).backward()
        results.append((loss, rows.grad))
    assert results[0][0].item() == pytest.approx(results[1][0].item(), rel=1e-6)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-5)


def test_a_dequantized_weight_is_bitsandbytes_own_wherever_it_is_written(model: Any) -> None:
    from bitsandbytes.functional import dequantize_4bit

    mlp = model.get_base_model().model.layers[0].mlp
    weights = [mlp.gate_proj.base_layer.weight, mlp.up_proj.base_layer.weight]
    wide = torch.full((258, 72), 7.0)
    FourBit(weights).dequantize_into(wide[1:257, :64])
    theirs = torch.cat([dequantize_4bit(weight.data, weight.quant_state) for weight in weights])
    assert torch.equal(wide[1:257, :64], theirs)
    assert (wide[:, 64:] == 7).all()
    assert (wide[[0, 257]] == 7).all()
