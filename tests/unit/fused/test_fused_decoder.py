"""The fused decoder's loss, gradients and hidden states are those of PEFT's own forward, example by example."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import build_base
from torch import Tensor

from medqlora.data.batching.packing import MicroBatch, micro_batch, pack
from medqlora.fused import FusedDecoder, unsupported
from medqlora.fused.decoder import Checkpointing
from medqlora.models import Decoder, LoRA, Transformers
from medqlora.models.quantization import Quantization
from medqlora.records import Encoded

CPU = torch.device("cpu")
LAYERS = 3
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": 4096}),
    "qwen2": ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3": ("qwen3", {"head_dim": 32, "rms_norm_eps": 1e-2}),  # an epsilon that shows
    "llama3-rope": ("llama", {"rope_parameters": LLAMA3}),
    "yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}),
    "tied": ("qwen2", {"tie_word_embeddings": True}),
    "one-head": ("llama", {"num_key_value_heads": 4, "hidden_act": "silu"}),
}
SETTINGS: list[Checkpointing] = ["none", "full", "offload", 1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("fused")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            family, changes = VARIANTS[name]
            build_base(root / name, family, layers=LAYERS, **changes)
        return root / name

    return folder


def load(
    base: Path,
    lora: LoRA | None = None,
    quantization: Quantization = "nf4",
    double_quantization: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """In eval mode, with adapters that do something."""
    backend = Transformers(str(base), quantization, double_quantization, gradient_checkpointing=False)
    lora = lora or LoRA(r=5, alpha=9)
    model: Any = backend.load(lora=lora, adapter=None, device=CPU, dtype=dtype, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def examples(*shapes: tuple[int, int], seed: int = 0) -> list[Encoded]:
    """Of (prompt, completion) tokens; by default ragged, with a completion of one token and one of none."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number, (prompt, completion) in enumerate(shapes or [(9, 4), (3, 1), (14, 6), (1, 2), (5, 0)]):
        ids = torch.randint(3, 250, (prompt + completion,), generator=generator).tolist()
        made.append(Encoded(f"q{number}", ids[:prompt], ids[prompt:]))
    return made


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def one_by_one(model: Any, chosen: list[Encoded]) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients through PEFT's own forward, a pass for each example."""
    decoder = Decoder(model)
    parts = [decoder.loss_sum(pack([example])) for example in chosen if example.completion]
    loss = torch.stack(parts).sum()
    return loss.detach(), gradients(model, loss)


def assert_same(ours: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert ours[name].dtype == torch.float32
        assert value.norm() > 0, name
        assert (ours[name] - value).norm() <= tolerance * value.norm(), name


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


def test_what_it_cannot_run_is_refused_rather_than_run_wrongly(folders: Callable[[str], Path]) -> None:
    fused = FusedDecoder(load(folders("llama")))
    with pytest.raises(ValueError, match="packed micro-batches alone"):
        fused.loss_sum(micro_batch(examples(), packed=False, pad_token_id=2))
    batch = pack(examples((5, 3)))
    gap = MicroBatch(*batch[:4], batch.rows[:2], batch.targets[:2])
    with pytest.raises(ValueError, match="without a gap"):
        fused.loss_sum(gap)


def test_a_second_backward_is_refused_because_the_first_overwrote_what_was_kept(
    folders: Callable[[str], Path],
) -> None:
    loss = FusedDecoder(load(folders("llama")), checkpointing="none").loss_sum(pack(examples()))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_example_longer_than_the_models_window_is_refused(tmp_path: Path) -> None:
    build_base(tmp_path / "windowed", "mistral", layers=1, sliding_window=8)
    fused = FusedDecoder(load(tmp_path / "windowed"))
    assert fused.loss_sum(pack(examples((5, 3)))).item() > 0
    with pytest.raises(ValueError, match="9 tokens, and the model attends within 8"):
        fused.loss_sum(pack(examples((5, 4))))


def test_models_it_does_not_know_are_named_with_the_reason(
    folders: Callable[[str], Path], tiny_bases: dict[str, Path]
) -> None:
    llama = folders("llama")
    assert unsupported(load(llama)) is None
    assert "gemma" in str(unsupported(load(tiny_bases["gemma"])))
    assert "LoraLinearVariant" not in str(unsupported(load(llama)))
    assert "another kind" in str(unsupported(load(llama, LoRA(r=4, use_dora=True))))
    assert "known is bitsandbytes' Linear4bit" in str(unsupported(load(llama, quantization="none")))
    model = load(llama)
    model.get_base_model().model.norm.weight.requires_grad_(True)
    assert "1 weights that are not LoRA's" in str(unsupported(model))
    with pytest.raises(ValueError, match="the fused engine can't run this model: it trains 1 weights"):
        FusedDecoder(model)
    model = load(llama)
    model.get_base_model().model.layers[1].mlp.up_proj.base_layer.compute_dtype = torch.float16
    assert "up_proj computes in torch.float16" in str(unsupported(model))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modules_to_save": ["post_attention_layernorm"]}, "its adapter has weights of its own in place of"),
        ({"modules_to_save": ["model.norm"]}, "its adapter has weights of its own in place of norm"),
        ({"bias": "all"}, "it trains 9 weights that are not LoRA's"),
    ],
)
def test_adapters_that_hold_more_than_lora_are_refused(
    changes: dict[str, Any], reason: str, folders: Callable[[str], Path]
) -> None:
    """PEFT switches such weights on and off with the adapter; the engine reads the base's once."""
    from peft import LoraConfig, get_peft_model

    backend = Transformers(str(folders("qwen2")))
    base: Any = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0)
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **changes))
    if "modules_to_save" in changes:
        model.requires_grad_(False)  # as an adapter that is evaluated
    assert reason in str(unsupported(model))
