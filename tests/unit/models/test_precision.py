"""Comparisons are made in float32, whatever type the weights have."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from medqlora.models import Transformers
from medqlora.models.precision import compute_in_float32

TOKENS = torch.tensor([[5, 9, 2, 30, 7, 11]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        values: torch.Tensor = model(input_ids=TOKENS, use_cache=False).logits
    return values


@pytest.fixture(params=["llama", "qwen2"])
def rounded(request: pytest.FixtureRequest, tiny_bases: dict[str, Path], tmp_path: Path) -> Path:
    """A base whose stored values are those of bfloat16."""
    folder = tmp_path / "rounded"
    shutil.copytree(tiny_bases[request.param], folder)
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def test_a_16_bit_model_computes_as_its_float32_copy_and_keeps_its_weights(rounded: Path) -> None:
    half = AutoModelForCausalLM.from_pretrained(rounded, dtype=torch.bfloat16).eval()
    single = AutoModelForCausalLM.from_pretrained(rounded, dtype=torch.float32).eval()
    assert not torch.equal(logits(half).float(), logits(single))
    compute_in_float32(half)
    assert torch.equal(logits(half), logits(single))
    assert half.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    tied = half.config.tie_word_embeddings
    assert (half.lm_head.weight is half.model.embed_tokens.weight) == tied


def test_a_4_bit_model_multiplies_with_the_values_that_were_quantized(rounded: Path) -> None:
    def loaded(dtype: torch.dtype) -> Any:
        backend = Transformers(str(rounded), "nf4", gradient_checkpointing=False)
        return backend.load(lora=None, adapter=None, device=torch.device("cpu"), dtype=dtype, seed=0).eval()

    half, single = loaded(torch.bfloat16), loaded(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(logits(half).float(), logits(single))
    compute_in_float32(half)
    assert torch.equal(logits(half), logits(single))


def test_a_forward_that_fails_leaves_the_weights_as_they_are_stored(rounded: Path) -> None:
    half = AutoModelForCausalLM.from_pretrained(rounded, dtype=torch.bfloat16).eval()
    compute_in_float32(half)
    with pytest.raises(RuntimeError), torch.no_grad():
        half.model.layers[0].mlp(torch.ones(1, 2, 3))
    assert half.model.layers[0].mlp.gate_proj.weight.dtype == torch.bfloat16
