"""Where weights wait, and in which form, changes memory and speed alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fused_models import CPU, VARIANTS, assert_same, examples, gradients, load, one_by_one
from tiny import build_base

from medqlora.data.batching.packing import pack
from medqlora.fused import FusedDecoder, unsupported
from medqlora.fused.head import HostHeadLoss
from medqlora.models import Decoder, LoRA, Transformers, host_weights
from medqlora.models.host_weights import HostEmbedding, HostHead, to_host

FAMILIES = ["llama", "qwen2", "qwen3", "tied"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("knobs")
    for name in FAMILIES:
        family, changes = VARIANTS[name]
        build_base(root / name, family, layers=3, **changes)
    return {name: root / name for name in FAMILIES}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_weights, "PIECE_VALUES", 64 * 37)  # 37 of the vocabulary's rows at a time


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("checkpointing", ["none", "full", 1])
def test_every_knob_leaves_loss_and_gradients_pefts(
    name: str, checkpointing: Any, folders: dict[str, Path]
) -> None:
    expected_loss, expected = one_by_one(load(folders[name]), examples())
    for cached, embedding, head in [(1, False, False), (3, False, True), (0, True, False), (2, True, True)]:
        model = load(folders[name])
        to_host(model, embedding=embedding, head=head)
        fused = FusedDecoder(model, checkpointing=checkpointing, cached=cached)
        loss = fused.loss_sum(pack(examples()).to(CPU))
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
        assert_same(gradients(model, loss), expected)


@pytest.mark.usefixtures("small_pieces")
def test_native_and_generation_run_with_both_on_the_host(folders: dict[str, Path]) -> None:
    model, hosted = load(folders["llama"]), load(folders["llama"])
    to_host(hosted, embedding=True, head=True)
    expected_loss, expected = one_by_one(model, examples())
    loss, found = one_by_one(hosted, examples())
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-6)
    assert_same(found, expected, 1e-6)
    prompt = torch.tensor([examples()[0].prompt])
    written = [
        one.generate(input_ids=prompt, max_new_tokens=8, do_sample=False, use_cache=True)
        for one in (model, hosted)
    ]
    assert torch.equal(*written)


def test_cached_weights_follow_the_adapters_and_can_be_switched_off(folders: dict[str, Path]) -> None:
    model = load(folders["llama"])
    fused, decoder, batch = FusedDecoder(model, cached=3), Decoder(model), pack(examples())
    rows = batch.rows
    for _ in range(2):
        with torch.no_grad():
            assert torch.allclose(fused.hidden(batch, rows), decoder.hidden(batch, rows), atol=1e-5)
            with model.disable_adapter():
                assert torch.allclose(fused.hidden(batch, rows), decoder.hidden(batch, rows), atol=1e-5)
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.mul_(1.5)


def test_dropout_draws_the_same_masks_on_cached_weights(folders: dict[str, Path]) -> None:
    model = load(folders["llama"], LoRA(r=5, alpha=9, dropout=0.3)).train()
    found = []
    for cached in (0, 3):
        torch.manual_seed(5)
        loss = FusedDecoder(model, checkpointing=1, cached=cached).loss_sum(pack(examples()))
        found.append((loss.item(), gradients(model, loss)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    assert_same(found[1][1], found[0][1], 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("piece", [2, 7, 100, 1000])
def test_the_streamed_loss_is_torchs(dtype: torch.dtype, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(piece)
    monkeypatch.setattr(host_weights, "PIECE_VALUES", piece * 16)
    head = torch.nn.Linear(16, 101, bias=False)
    head.requires_grad_(False).weight.data = torch.randn(101, 16, generator=generator).to(dtype)
    hidden = (torch.randn(23, 16, generator=generator)).to(dtype)
    targets = torch.randint(0, 101, (23,), generator=generator)
    targets[:3] = torch.tensor([100, 0, 99])
    # some targets are all but certain, where a difference of probabilities would be lost
    hidden[3] = 5 * head.weight[targets[3]] / head.weight[targets[3]].norm()
    exact = hidden.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(exact @ head.weight.double().t(), targets, reduction="sum")
    expected.backward()
    weight = head.weight.data
    del head._parameters["weight"]
    head.__class__ = HostHead
    object.__setattr__(head, "weight", weight)
    given = hidden.clone().requires_grad_()
    loss = HostHeadLoss.apply(given, head, targets)
    loss.backward()
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    assert given.grad is not None
    assert exact.grad is not None
    error = (given.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert error < tolerance
    if dtype == torch.float32:  # row by row, however small the row's gradient is
        rows = (given.grad.double() - exact.grad).norm(dim=1) / exact.grad.norm(dim=1)
        assert rows.max() < 1e-4


def test_what_waits_on_the_host_is_no_parameter_and_moves_nowhere(folders: dict[str, Path]) -> None:
    model = load(folders["llama"])
    names = {name for name, _ in model.named_parameters()}
    to_host(model, embedding=True, head=True)
    left = names - {name for name, _ in model.named_parameters()}
    assert {name.rsplit(".", 2)[-2] for name in left} == {"embed_tokens", "lm_head"}
    base = model.get_base_model()
    assert (type(base.get_input_embeddings()), type(base.get_output_embeddings())) == (
        HostEmbedding,
        HostHead,
    )
    assert unsupported(model) is None
    to_host(model, embedding=True, head=True)  # once more is nothing


def test_a_tied_weight_is_moved_once(folders: dict[str, Path]) -> None:
    backend = Transformers(str(folders["tied"]), gradient_checkpointing=False)
    model: Any = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    to_host(model, embedding=True, head=True)
    assert model.lm_head.weight is model.get_input_embeddings().weight
