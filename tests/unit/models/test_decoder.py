"""The decoder's packed, headless passes give what plain transformers gives for each example alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import FAMILIES, build_base
from torch import Tensor
from torch.nn import functional as F

from medqlora.data.batching.packing import MicroBatch, micro_batch
from medqlora.models import Decoder, LoRA, Transformers
from medqlora.models.quantization import Quantization
from medqlora.records import Encoded

CPU = torch.device("cpu")
#: what a family's defaults leave untested at this size: caps that bind, a window shorter than an example,
#: heads that scale
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2-caps": ("gemma2", {"final_logit_softcapping": 0.5, "attn_logit_softcapping": 0.5}),
    "mistral-window": ("mistral", {"sliding_window": 4}),
    "cohere": ("cohere", {"logit_scale": 0.25}),
    "granite": ("granite", {"logits_scaling": 4.0, "residual_multiplier": 0.5}),
    "phi": ("phi", {}),
    "gpt_neox": ("gpt_neox", {}),
}
Loaded = tuple[Decoder, Any]


def randomise(model: Any) -> None:
    """B begins at zero, which would hide the adapters."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)


def load(base: Path, quantization: Quantization = "none", gradient_checkpointing: bool = False) -> Loaded:
    backend = Transformers(str(base), quantization, gradient_checkpointing=gradient_checkpointing)
    model = backend.load(lora=LoRA(r=4, alpha=8), adapter=None, device=CPU, dtype=torch.float32, seed=0)
    randomise(model)
    return backend.decoder(model), model


@pytest.fixture(scope="module")
def folders(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("variants")

    def folder(name: str) -> Path:
        if name in tiny_bases:
            return tiny_bases[name]
        if not (root / name).exists():
            family, changes = VARIANTS[name]
            build_base(root / name, family, **changes)
        return root / name

    return folder


CASES = [(name, quantization) for name in (*FAMILIES, *VARIANTS) for quantization in ("none", "nf4")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def loaded(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> Loaded:
    name, quantization = request.param
    return load(folders(name), quantization)


def examples(seed: int = 0) -> list[Encoded]:
    """Ragged, with a completion of one token and one of none."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number, (prompt, completion) in enumerate([(9, 4), (3, 1), (14, 6), (1, 2), (5, 0)]):
        ids = torch.randint(3, 250, (prompt + completion,), generator=generator).tolist()
        made.append(Encoded(f"q{number}", ids[:prompt], ids[prompt:]))
    return made


def plain_loss_sum(model: Any, example: Encoded) -> Tensor:
    """Cross-entropy over the completion from the model's own logits, one example a pass."""
    ids = torch.tensor([[*example.prompt, *example.completion]])
    logits = model(input_ids=ids, use_cache=False).logits[0]
    start = len(example.prompt)
    return F.cross_entropy(logits[start - 1 : -1].float(), ids[0, start:], reduction="sum")


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def assert_same_gradients(
    ours: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5
) -> None:
    assert ours.keys() == expected.keys()
    whole = torch.cat([value.flatten() for value in expected.values()]).norm()
    assert whole > 0
    for name, value in expected.items():
        assert (ours[name] - value).norm() <= tolerance * whole, name


@pytest.mark.parametrize("packed", [True, False])
def test_loss_and_gradients_are_those_of_plain_transformers_example_by_example(
    loaded: Loaded, packed: bool
) -> None:
    decoder, model = loaded
    expected = sum((plain_loss_sum(model, e) for e in examples() if e.completion), torch.zeros(()))
    loss = decoder.loss_sum(micro_batch(examples(), packed=packed, pad_token_id=2))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(gradients(model, loss), gradients(model, expected))


def all_rows(batch: MicroBatch) -> Tensor:
    """Where the examples' own tokens lie, in order."""
    if batch.attention_mask is None:
        return torch.arange(batch.input_ids.numel())
    return batch.attention_mask.flatten().nonzero()[:, 0]


@pytest.mark.parametrize("packed", [True, False])
@torch.no_grad()
def test_one_examples_tokens_reach_no_other_examples_hidden_states(loaded: Loaded, packed: bool) -> None:
    decoder, _ = loaded
    changed = examples()
    changed[2] = examples(seed=1)[2]
    hidden = []
    for each in (examples(), changed):
        batch = micro_batch(each, packed=packed, pad_token_id=2)
        hidden.append(decoder.hidden(batch, all_rows(batch)).split(batch.lengths.tolist()))
    for place, (before, after) in enumerate(zip(*hidden, strict=True)):
        difference = (before - after).abs().max().item()
        assert difference > 1e-3 if place == 2 else difference <= 1e-6


@torch.no_grad()
def test_logits_are_the_models_own_caps_and_scales_included(loaded: Loaded) -> None:
    decoder, model = loaded
    example = examples()[2]
    batch = micro_batch([example], packed=True, pad_token_id=2)
    ours = decoder.logits(decoder.hidden(batch, all_rows(batch)))
    theirs = model(input_ids=batch.input_ids, use_cache=False).logits[0]
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_gemma_2_is_capped_as_its_reference_implementation_is(folders: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    folder = folders("gemma2-caps")
    backend = Transformers(str(folder), quantization="none")
    model = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0)
    eager = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    batch = micro_batch(examples()[2:3], packed=True, pad_token_id=2)
    ours = backend.decoder(model).hidden(batch, all_rows(batch))
    assert torch.allclose(ours, eager.model(input_ids=batch.input_ids).last_hidden_state[0], atol=1e-5)
    logits = backend.decoder(model).logits(ours * 100)
    assert logits.abs().max() <= 0.5  # the cap binds here, so leaving it out would show
    assert logits.abs().max() > 0.49


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_neither_loss_nor_gradients_and_is_in_force(
    family: str, tiny_bases: dict[str, Path]
) -> None:
    results, runs_of_a_layer = [], []
    for checkpointing in (False, True):
        decoder, model = load(tiny_bases[family], "nf4", checkpointing)
        runs: list[int] = []
        layer = model.get_base_model().model.layers[0]
        # before, not after: the recomputation stops as soon as it has what the backward needs
        layer.mlp.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        loss = decoder.loss_sum(micro_batch(examples(), packed=True, pad_token_id=2))
        results.append((loss.item(), gradients(model, loss)))
        runs_of_a_layer.append(len(runs))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert_same_gradients(results[1][1], results[0][1], 1e-6)
    assert runs_of_a_layer == [1, 2]  # once more in the backward


def test_the_heads_pieces_add_up_whatever_their_size(
    tiny_bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, model = load(tiny_bases["llama"])
    batch = micro_batch(examples(), packed=True, pad_token_id=2)
    whole = decoder.loss_sum(batch)
    monkeypatch.setattr("medqlora.models.decoder.HEAD_ROWS", 3)
    pieces = decoder.loss_sum(batch)
    assert pieces.item() == pytest.approx(whole.item(), rel=1e-6)
    assert_same_gradients(gradients(model, pieces), gradients(model, whole), 1e-6)


def test_no_logits_of_a_whole_sequence_ever_exist(
    tiny_bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, model = load(tiny_bases["llama"])
    seen: list[int] = []
    decoder.head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[0]))
    monkeypatch.setattr("medqlora.models.decoder.HEAD_ROWS", 5)
    batch = micro_batch(examples(), packed=True, pad_token_id=2)
    gradients(model, decoder.loss_sum(batch))
    assert sorted(seen) == [3, 3, 5, 5, 5, 5]  # 13 completion tokens of 45, forward and backward
