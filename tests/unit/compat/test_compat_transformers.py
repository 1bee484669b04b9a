"""Private parts of transformers and PEFT hold what `medqlora.compat` reads in them."""

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, MambaConfig
from transformers.integrations.peft import PeftAdapterMixin

from medqlora.compat.peft import renamed_expert_layers
from medqlora.compat.transformers import (
    attention_implementation,
    carries_state_in_cache,
    has_loaded_adapter,
    reset_attention_implementation,
)

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 16}


def test_the_attention_of_a_model_is_read_and_one_that_was_saved_is_removed() -> None:
    config = LlamaConfig(**TINY, intermediate_size=8, num_attention_heads=1)
    assert not reset_attention_implementation(config)
    assert attention_implementation(config) is None
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    assert attention_implementation(model.config) == "eager"
    saved = LlamaConfig(**TINY, num_attention_heads=1, attn_implementation="flash_attention_2")
    assert reset_attention_implementation(saved)
    assert attention_implementation(saved) is None


def test_a_recurrent_state_is_declared_by_the_models_class() -> None:
    mamba = AutoModelForCausalLM.from_config(MambaConfig(**TINY, state_size=2, intermediate_size=8))
    llama = AutoModelForCausalLM.from_config(LlamaConfig(**TINY, intermediate_size=8, num_attention_heads=1))
    assert carries_state_in_cache(mamba)
    assert not carries_state_in_cache(llama)


def test_an_adapter_that_transformers_added_by_itself_is_reported() -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY, intermediate_size=8, num_attention_heads=1))
    assert not has_loaded_adapter(model)
    # transformers 5.24 adds adapters with PEFT 0.22 alone: the flag of its mixin is set by hand
    assert PeftAdapterMixin._hf_peft_config_loaded is False
    model._hf_peft_config_loaded = True
    assert has_loaded_adapter(model)


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
def test_pefts_tables_name_the_experts_that_it_rewrites(family: str) -> None:
    assert renamed_expert_layers(family)


def test_families_without_experts_have_no_renamed_layers(tiny_bases: dict[str, Path]) -> None:
    assert renamed_expert_layers(AutoConfig.from_pretrained(tiny_bases["llama"]).model_type) == frozenset()
    assert renamed_expert_layers(None) == frozenset()
