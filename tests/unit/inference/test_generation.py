"""Batched, cached generation writes what an argmax after an argmax writes, one prompt at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from medqlora.inference.generation import generate
from medqlora.models import LoRA, Transformers

CPU = torch.device("cpu")
PAD = 2
NEVER = 599  # an end token that the model doesn't choose


@pytest.fixture(scope="module", params=["llama", "gemma2", "qwen3"])
def model(request: pytest.FixtureRequest, tiny_bases: dict[str, Path]) -> Any:
    backend = Transformers(str(tiny_bases[request.param]), quantization="none")
    loaded = backend.load(lora=LoRA(r=4), adapter=None, device=CPU, dtype=torch.float32, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in loaded.parameters():
        # of a size that makes the choice depend on the whole prompt, not on its last token alone
        if parameter.ndim == 2:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return loaded


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, 250, (count,), generator=generator).tolist() for count in (9, 1, 14, 4, 14)]


@torch.no_grad()
def argmax_loop(model: Any, prompt: list[int], max_new_tokens: int, ends: list[int]) -> list[int]:
    """No batch, no padding, no cache: the whole row through the model for every token."""
    row: list[int] = list(prompt)
    for _ in range(max_new_tokens):
        token = int(model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1].argmax())
        if token in ends:
            break
        row.append(token)
    return row[len(prompt) :]


def written(model: Any, given: list[list[int]], ends: list[int], max_new_tokens: int = 12) -> list[list[int]]:
    return generate(
        model, given, max_new_tokens=max_new_tokens, end_token_ids=ends, pad_token_id=PAD, device=CPU
    )


def test_ragged_prompts_continue_as_each_would_alone(model: Any) -> None:
    expected = [argmax_loop(model, prompt, 12, [NEVER]) for prompt in prompts()]
    assert len({tuple(text) for text in expected}) > 1
    assert written(model, prompts(), [NEVER]) == expected


def test_a_text_stops_at_each_of_the_end_tokens_and_does_not_hold_it(model: Any) -> None:
    free = [argmax_loop(model, prompt, 12, [NEVER]) for prompt in prompts()]
    ends = [free[0][4], free[2][7], 1]
    expected = [argmax_loop(model, prompt, 12, ends) for prompt in prompts()]
    assert any(len(text) < 12 for text in expected)
    found = written(model, prompts(), ends)
    assert found == expected
    assert not any(token in ends for text in found for token in text)


def test_a_text_may_end_at_once(model: Any) -> None:
    first = argmax_loop(model, prompts()[0], 1, [])
    assert written(model, prompts()[:1], first) == [[]]


def test_a_text_that_does_not_end_is_cut(model: Any) -> None:
    assert [len(text) for text in written(model, prompts(), [NEVER], max_new_tokens=3)] == [3] * 5


@pytest.mark.parametrize(
    "defaults",
    [
        {"do_sample": True, "temperature": 5.0, "top_k": 50, "top_p": 0.5},  # Llama-3-Instruct's, and more
        {"repetition_penalty": 1.5},  # Qwen2-Instruct has 1.05 to 1.1
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(250))},
        {"max_length": 10},
        {"eos_token_id": [5, 6, 7], "min_new_tokens": 8},
        {"num_beams": 3, "length_penalty": 5.0},
    ],
    ids=lambda defaults: next(iter(defaults)),
)
def test_the_bases_own_generation_settings_do_not_change_what_greedy_is(
    model: Any, defaults: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [argmax_loop(model, prompt, 12, [NEVER]) for prompt in prompts()]
    own = model.get_base_model()
    monkeypatch.setattr(own, "generation_config", GenerationConfig(**defaults))
    assert written(model, prompts(), [NEVER]) == expected


def test_generating_takes_a_training_model_and_gives_it_back_so(tiny_bases: dict[str, Path]) -> None:
    backend = Transformers(str(tiny_bases["llama"]), quantization="nf4")
    model: Any = backend.load(
        lora=LoRA(r=4, dropout=0.5), adapter=None, device=CPU, dtype=torch.float32, seed=0
    )
    with backend.generating(model):
        assert not any(module.training for module in model.modules())
        texts = written(model, prompts(), [NEVER])
        assert texts == [argmax_loop(model, prompt, 12, [NEVER]) for prompt in prompts()]
    assert all(module.training for module in model.modules())
    assert model.get_base_model().model.gradient_checkpointing
