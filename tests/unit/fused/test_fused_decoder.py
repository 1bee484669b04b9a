"""The fused decoder's loss, gradients and hidden states are those of PEFT's own forward, example by example."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_models import CPU, SETTINGS, VARIANTS, assert_same, examples, gradients, load, one_by_one
from fuzzing import nightly
from torch import Tensor

from medqlora.data.batching.packing import pack
from medqlora.fused import Checkpointing, FusedDecoder
from medqlora.models import Decoder, LoRA, Transformers
from medqlora.models.quantization import Quantization


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_every_gradient_are_pefts_example_by_example(
    name: str, folders: Callable[[str], Path]
) -> None:
    model = load(folders(name))
    expected_loss, expected = one_by_one(model, examples())
    for checkpointing in SETTINGS:
        loss = FusedDecoder(model, checkpointing=checkpointing).loss_sum(pack(examples()))
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
        assert_same(gradients(model, loss), expected)


@pytest.mark.parametrize("shapes", [[(7, 3)], [(1, 1)], [(4, 1), (1, 1), (2, 1)], [(13, 0), (5, 8), (1, 0)]])
def test_packs_of_one_and_the_shortest_examples(
    shapes: list[tuple[int, int]], folders: Callable[[str], Path]
) -> None:
    model = load(folders("llama"))
    expected_loss, expected = one_by_one(model, examples(*shapes))
    for checkpointing in SETTINGS:
        loss = FusedDecoder(model, checkpointing=checkpointing).loss_sum(pack(examples(*shapes)))
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
        ours = gradients(model, loss)
        whole = torch.cat([value.flatten() for value in expected.values()]).norm()
        for key, value in expected.items():  # a token that sees itself alone has no gradient in q and k
            assert (ours[key] - value).norm() <= 1e-5 * whole, key


@pytest.mark.parametrize("name", ["llama", "qwen3"])
@pytest.mark.parametrize("checkpointing", ["none", 1])
def test_gradients_added_in_place_are_those_that_autograd_adds_up(
    name: str, checkpointing: Checkpointing, folders: Callable[[str], Path]
) -> None:
    model = load(folders(name))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    packs = [pack(examples()), pack(examples((8, 3), (2, 2), seed=3))]
    found = []
    for accumulate in (False, True):
        fused = FusedDecoder(model, checkpointing=checkpointing)
        fused.accumulate = accumulate
        for parameter in trained.values():
            parameter.grad = torch.ones_like(parameter)
        for batch in packs:
            fused.loss_sum(batch).backward()
        found.append({name: parameter.grad for name, parameter in trained.items()})
    for key, value in found[0].items():
        assert value is not None
        assert (value - 1).norm() > 0, key
        assert torch.allclose(value, found[1][key], rtol=1e-6, atol=1e-7), key


def test_a_pack_without_completions_has_no_loss_and_no_gradient(folders: Callable[[str], Path]) -> None:
    model = load(folders("llama"))
    loss = FusedDecoder(model).loss_sum(pack(examples((4, 0), (3, 0))))
    assert loss.item() == 0
    assert all(value.abs().max() == 0 for value in gradients(model, loss).values())


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_hidden_states_at_any_rows_are_pefts(name: str, folders: Callable[[str], Path]) -> None:
    model = load(folders(name))
    decoder = Decoder(model)
    alone = []
    for example in examples():
        batch = pack([example])
        alone.append(decoder.hidden(batch, torch.arange(batch.input_ids.numel())))
    expected = torch.cat(alone)
    fused, batch = FusedDecoder(model), pack(examples())
    for rows in (
        torch.arange(len(expected)),
        torch.tensor([30, 2, 2, 17]),
        torch.tensor([], dtype=torch.long),
    ):
        hidden = fused.hidden(batch, rows)
        assert hidden.shape == expected[rows].shape
        assert (hidden - expected[rows]).norm() <= 1e-5 * expected[rows].norm()
    logits = fused.logits(expected)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, decoder.logits(expected), rtol=1e-5, atol=1e-5)


def test_gradients_through_hidden_states_at_any_rows_are_pefts(folders: Callable[[str], Path]) -> None:
    model = load(folders("qwen3"))
    batch, rows = pack(examples((6, 3))), torch.tensor([8, 0, 3, 3])
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(2))
    expected = gradients(model, (Decoder(model).hidden(batch, rows) * weight).sum())
    for checkpointing in SETTINGS:
        fused = FusedDecoder(model, checkpointing=checkpointing)
        assert_same(gradients(model, (fused.hidden(batch, rows) * weight).sum()), expected)


@pytest.mark.parametrize(
    "lora",
    [
        LoRA(r=4, alpha=3, use_rslora=True),
        LoRA(r=3, target_modules=["q_proj", "v_proj"]),
        LoRA(r=8, target_modules=["k_proj", "up_proj", "down_proj"]),
        LoRA(r=2, target_modules=["o_proj"], init="gaussian"),
    ],
    ids=["rslora", "q-v", "k-up-down", "o"],
)
def test_adapters_of_any_scale_on_any_projections(lora: LoRA, folders: Callable[[str], Path]) -> None:
    model = load(folders("qwen2"), lora)
    expected_loss, expected = one_by_one(model, examples())
    for checkpointing in SETTINGS:
        loss = FusedDecoder(model, checkpointing=checkpointing).loss_sum(pack(examples()))
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
        assert_same(gradients(model, loss), expected)


@pytest.mark.parametrize(("quantization", "double"), [("nf4", False), ("fp4", True), ("fp4", False)])
def test_every_4_bit_form(quantization: Quantization, double: bool, folders: Callable[[str], Path]) -> None:
    model = load(folders("mistral"), quantization=quantization, double_quantization=double)
    expected_loss, expected = one_by_one(model, examples())
    loss = FusedDecoder(model).loss_sum(pack(examples()))
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert_same(gradients(model, loss), expected)


@torch.no_grad()
def test_one_examples_tokens_reach_no_other_examples_hidden_states(folders: Callable[[str], Path]) -> None:
    fused = FusedDecoder(load(folders("llama")))
    changed = examples()
    changed[2] = examples(seed=1)[2]
    hidden = []
    for each in (examples(), changed):
        batch = pack(each)
        hidden.append(fused.hidden(batch, torch.arange(45)).split(batch.lengths.tolist()))
    for place, (before, after) in enumerate(zip(*hidden, strict=True)):
        difference = (before - after).abs().max().item()
        assert difference > 1e-3 if place == 2 else difference == 0


def test_steps_follow_the_adapters_weights_and_the_base_stays(folders: Callable[[str], Path]) -> None:
    """One decoder for a run: it has to see what the optimizer writes."""
    losses = []
    for engine in ("native", "fused"):
        model = load(folders("llama"))
        before = {name: value.clone() for name, value in model.state_dict().items() if "lora" not in name}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        decoder = Decoder(model) if engine == "native" else FusedDecoder(model)
        run = []
        for _ in range(6):
            loss = decoder.loss_sum(pack(examples())) / 13
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.append(loss.item())
        losses.append(run)
        assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert losses[0][-1] < 0.7 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@torch.no_grad()
def test_with_the_adapters_disabled_it_is_the_base(folders: Callable[[str], Path]) -> None:
    model = load(folders("llama"))
    fused, decoder, batch, rows = (
        FusedDecoder(model),
        Decoder(model),
        pack(examples((9, 3))),
        torch.arange(12),
    )
    adapted = fused.hidden(batch, rows)
    with model.disable_adapter():
        base = fused.hidden(batch, rows)
        assert (base - decoder.hidden(batch, rows)).norm() <= 1e-5 * base.norm()
    assert (adapted - base).norm() > 1e-2 * base.norm()
    assert torch.equal(fused.hidden(batch, rows), adapted)


@torch.no_grad()
def test_an_adapter_that_begins_at_a_later_layer_can_be_switched_off(folders: Callable[[str], Path]) -> None:
    from peft import LoraConfig, get_peft_model

    backend = Transformers(str(folders("llama")))
    base: Any = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0)
    config = LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[1], init_lora_weights=False)
    model: Any = get_peft_model(base, config).eval()
    fused, decoder, batch = FusedDecoder(model), Decoder(model), pack(examples())
    adapted = fused.loss_sum(batch).item()
    with model.disable_adapter():
        switched_off = fused.loss_sum(batch).item()
        assert switched_off == pytest.approx(decoder.loss_sum(batch).item(), rel=1e-5)
    assert adapted == pytest.approx(decoder.loss_sum(batch).item(), rel=1e-5)
    assert adapted != pytest.approx(switched_off, rel=1e-4)


def test_a_base_without_adapters_scores(folders: Callable[[str], Path]) -> None:
    backend = Transformers(str(folders("llama")))
    model = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0)
    batch = pack(examples())
    loss = FusedDecoder(model).loss_sum(batch)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(backend.decoder(model).loss_sum(batch).item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_its_error_is_no_larger_than_pefts(
    dtype: torch.dtype, folders: Callable[[str], Path]
) -> None:
    exact_loss, exact = one_by_one(load(folders("llama")), examples())
    model = load(folders("llama"), dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        _, peft = one_by_one(model, examples())
        loss = FusedDecoder(model).loss_sum(pack(examples()))
    ours = gradients(model, loss)

    def error(found: dict[str, Tensor]) -> float:
        squares = [
            (found[name] - value).square().sum() / value.square().sum() for name, value in exact.items()
        ]
        return float(torch.stack(squares).mean().sqrt())

    assert error(ours) <= 1.2 * error(peft)
    assert error(ours) < 0.15
    assert loss.item() == pytest.approx(exact_loss.item(), rel=1e-2)


@nightly  # half a minute of compilation; the functions that it compiles are tested by day
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch 2.13's own
def test_compiled_kernels_give_the_same(folders: Callable[[str], Path]) -> None:
    model = load(folders("qwen3"))
    fused = FusedDecoder(model, checkpointing=1, compile=True)
    for chosen in (examples(), examples((8, 3), (2, 2))):
        expected_loss, expected = one_by_one(model, chosen)
        loss = fused.loss_sum(pack(chosen))
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
        assert_same(gradients(model, loss), expected)
