"""Which layers get an adapter, what is refused, and what PEFT is told."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from medqlora.errors import InputError
from medqlora.models.lora import SEVEN_PROJECTIONS, LoRA, linear_names, lora_targets, peft_config


def skeleton(family: str, **changes: Any) -> nn.Module:
    """A model's modules without their weights."""
    shape = {
        "vocab_size": 32,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "pad_token_id": 0,
    }
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**shape, **changes}))


@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "granite", "cohere"]
)
def test_a_llama_like_block_gets_its_seven_projections(family: str) -> None:
    assert lora_targets(LoRA(), skeleton(family)).modules == list(SEVEN_PROJECTIONS)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("gpt_neox", ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"]),
        ("phi", ["dense", "fc1", "fc2", "k_proj", "q_proj", "v_proj"]),  # some of the seven, and others
        ("phi3", ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
        ("opt", ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"]),
        ("gpt2", ["c_attn", "c_fc", "c_proj"]),  # Conv1D, whose weight is [in, out]
        ("falcon", ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"]),
    ],
)
def test_a_block_with_other_names_gets_all_of_its_own(family: str, names: list[str]) -> None:
    assert lora_targets(LoRA(), skeleton(family)).modules == names


def test_the_head_is_never_among_them() -> None:
    model = skeleton("llama")
    assert any(name.endswith("lm_head") for name, _ in model.named_modules())
    assert "lm_head" not in linear_names(model)


ATTENTION = ["q_proj", "v_proj"]
FIRST = ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["v_proj", "q_proj"], ["v_proj", "q_proj"]),
        (["q_proj"], ["q_proj"]),
        ("q_proj", ["q_proj"]),
        ("q_proj,v_proj", ATTENTION),
        ("q_proj, v_proj", ATTENTION),
        ("q_proj v_proj", ATTENTION),
        ("[q_proj, v_proj]", ATTENTION),
        ("['q_proj', 'v_proj']", ATTENTION),
        (["self_attn.q_proj", "mlp.up_proj"], ["self_attn.q_proj", "mlp.up_proj"]),
        ("self_attn.q_proj", ["self_attn.q_proj"]),
        (FIRST, FIRST),
        (["base_model.model." + FIRST[0]], FIRST[:1]),  # as PEFT's own model calls it
        ("all-linear", list(SEVEN_PROJECTIONS)),
        ("ALL-LINEAR", list(SEVEN_PROJECTIONS)),
        (["all-linear"], list(SEVEN_PROJECTIONS)),
        ("['all-linear']", list(SEVEN_PROJECTIONS)),
        (r".*\.(q_proj|v_proj)", ATTENTION),
        (r".*layers\.0\.self_attn\.[qv]_proj", FIRST),
        (r".*(q_proj|v_proj)$", ATTENTION),
    ],
)
def test_layers_are_named_in_each_of_pefts_forms(given: Any, expected: list[str]) -> None:
    lora = LoRA(target_modules=given)
    lora.check()
    assert lora_targets(lora, skeleton("llama")).modules == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("q_prj,v_proj", r"no linear layer 'q_prj'; did you mean 'q_proj'\? It has down_proj, "),
        ("q_prj", r"no linear layer 'q_prj'; did you mean 'q_proj'\?"),
        (["self_atn.q_proj"], r"no linear layer 'self_atn\.q_proj'; did you mean 'q_proj'\?"),
        ("all_linear", r"no linear layer 'all_linear'; did you mean 'all-linear'\?"),
        ("q_proj|v_proj", r"'q_proj\|v_proj': this regular expression matches no layer's full name, as "
         r"'model\.layers\.0\.self_attn\.q_proj' is one: begin it with \.\*"),
        (".*(q_proj", r"'\.\*\(q_proj': not a regular expression \(.*\): give names as in q_proj,v_proj"),
        ("lm_head", r"no linear layer 'lm_head'"),
        (["q_proj", "embed_tokens"], r"no linear layer 'embed_tokens'"),
    ],
)  # fmt: skip
def test_a_form_that_names_no_layer_is_refused_with_what_would(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        lora_targets(LoRA(target_modules=given), skeleton("llama"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [[], "", " ", "[]"])
def test_an_empty_choice_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"target_modules is empty"):
        LoRA(target_modules=given).check()


def test_an_unknown_layer_names_the_nearest_and_all_that_there_are() -> None:
    with pytest.raises(InputError) as caught:
        lora_targets(LoRA(target_modules=["q_proj", "v_prj"]), skeleton("llama"))
    assert str(caught.value) == (
        "--model.lora.target_modules: the model has no linear layer 'v_prj'; did you mean 'v_proj'? "
        "It has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    )
    with pytest.raises(InputError, match=r"no linear layer 'xyzzy'\. It has down_proj, "):
        lora_targets(LoRA(target_modules=["xyzzy"]), skeleton("llama"))


def test_the_head_by_name_is_refused() -> None:
    with pytest.raises(InputError, match="no linear layer 'lm_head'"):
        lora_targets(LoRA(target_modules=["lm_head"]), skeleton("llama"))


def test_a_model_without_linear_layers_is_refused_and_not_trained_without_adapters() -> None:
    with pytest.raises(InputError, match=r"--model\.backend\.base: Sequential has no linear layers"):
        lora_targets(LoRA(), nn.Sequential(nn.Embedding(4, 4), nn.LayerNorm(4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, r"--model\.lora\.r is 0: .*at least 1"),
        ({"r": -8}, r"--model\.lora\.r is -8: "),
        ({"alpha": 0}, r"--model\.lora\.alpha is 0: .*above 0"),
        ({"alpha": float("nan")}, r"--model\.lora\.alpha is nan: "),
        ({"alpha": float("inf")}, r"--model\.lora\.alpha is inf: "),
        ({"dropout": 1.0}, r"--model\.lora\.dropout is 1\.0: .*\[0, 1\)"),
        ({"dropout": -0.1}, r"--model\.lora\.dropout is -0\.1: "),
        ({"dropout": float("nan")}, r"--model\.lora\.dropout is nan: "),
        ({"target_modules": []}, r"--model\.lora\.target_modules is empty"),
    ],
)
def test_values_that_no_model_takes_are_refused_by_option_and_value(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        LoRA(**options).check()


def test_the_defaults_and_the_extremes_that_are_right_pass() -> None:
    LoRA().check()
    LoRA(r=1, alpha=0.5, dropout=0.0, target_modules=["q_proj"]).check()


def test_peft_is_told_the_same() -> None:
    lora = LoRA(r=4, alpha=6.5, dropout=0.25, use_rslora=True, use_dora=True, init="gaussian")
    config = peft_config(lora, ["q_proj", "v_proj"])
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 6.5, 0.25)
    assert (config.use_rslora, config.use_dora, config.init_lora_weights) == (True, True, "gaussian")
    assert config.target_modules == {"q_proj", "v_proj"}
    assert (config.bias, config.task_type) == ("none", "CAUSAL_LM")
    assert peft_config(LoRA(), ["q_proj"]).init_lora_weights is True


@pytest.mark.parametrize(("use_rslora", "scale"), [(False, 6.0 / 4), (True, 6.0 / 2)])
def test_the_update_is_scaled_by_alpha_over_r_or_its_root(use_rslora: bool, scale: float) -> None:
    from peft import get_peft_model

    lora = LoRA(r=4, alpha=6.0, use_rslora=use_rslora, target_modules=["q_proj"])
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            "llama",
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )
    wrapped = get_peft_model(model, peft_config(lora, lora_targets(lora, model).modules))
    layer = wrapped.get_base_model().model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(b)
    x = torch.randn(3, 16)
    assert torch.allclose(layer(x), layer.base_layer(x) + scale * (x @ a.T @ b.T), atol=1e-5)
