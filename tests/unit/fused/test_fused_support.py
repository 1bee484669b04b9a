"""Batches and models that the fused decoder can't run are refused with the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_models import CPU, examples, load
from tiny import build_base

from medqlora.data.batching.packing import MicroBatch, micro_batch, pack
from medqlora.fused import FusedDecoder, unsupported
from medqlora.models import LoRA, Transformers


def test_what_it_cannot_run_is_refused_rather_than_run_wrongly(folders: Callable[[str], Path]) -> None:
    fused = FusedDecoder(load(folders("llama")))
    with pytest.raises(ValueError, match="packed micro-batches only"):
        fused.loss_sum(micro_batch(examples(), packed=False, pad_token_id=2))
    batch = pack(examples((5, 3)))
    gap = MicroBatch(*batch[:4], batch.rows[:2], batch.targets[:2])
    with pytest.raises(ValueError, match="consecutive up to each example's end"):
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
    with pytest.raises(ValueError, match="has 9 tokens, and the model's attention window 8"):
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
