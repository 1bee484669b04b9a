"""Other architectures than Llama's: each trains and scores as its own forward does, or is refused in one line."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import build_base, build_tokenizer
from transformers import CONFIG_MAPPING

from medqlora.data.batching.packing import micro_batch
from medqlora.errors import InputError
from medqlora.fused.support import unsupported
from medqlora.inference.generation import generate
from medqlora.inference.scoring import score
from medqlora.models import LoRA, Transformers
from medqlora.models.flops import step_flops
from medqlora.models.layers import experts, raw_weights, text_decoder
from medqlora.models.lora import lora_targets
from medqlora.models.shares import adapted_names, loaded_shares, predicted_shares
from medqlora.models.transformers import skeleton
from medqlora.planner.shape import Shape
from medqlora.records import Encoded
from medqlora.training.checks.model import check_model, say_untrained, why_padded
from medqlora.training.checks.packing import packing_works

CPU = torch.device("cpu")
HYBRID = {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
          "linear_key_head_dim": 16, "linear_value_head_dim": 16}  # fmt: skip
#: family → its configuration, and a word of why its rows are padded (None: they are packed)
FAMILIES: dict[str, tuple[dict[str, Any], str | None]] = {
    "gpt2": ({"n_embd": 64, "n_layer": 2, "n_head": 4}, None),
    "falcon": ({"alibi": False, "head_dim": None}, None),
    "phi3": ({}, None),
    "bloom": ({"n_layer": 2, "n_head": 4}, "positions"),
    "gemma4_text": (
        {"layer_types": ["sliding_attention", "full_attention"], "global_head_dim": 32, "sliding_window": 512,
         "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 600},
        None,
    ),
    "gemma3n_text": (
        {"layer_types": ["sliding_attention", "full_attention"], "num_kv_shared_layers": 0, "laurel_rank": 8,
         "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0, 0.0], "sliding_window": 512,
         "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 600},
        None,
    ),
    "mamba": ({"state_size": 8, "time_step_rank": 8}, "state"),
    "mamba2": (
        {"num_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 8}, "state"
    ),
    "qwen3_next": (
        {**HYBRID, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
         "shared_expert_intermediate_size": 32},
        "state",
    ),
    "bamba": (
        {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8},
        "state",
    ),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "state"),
    "minimax": (
        {"layer_types": ["linear_attention", "full_attention"], "num_local_experts": 4, "num_experts_per_tok": 2},
        "state",
    ),
}  # fmt: skip
LABELS = ((11,), (12, 13), (14, 15, 16))
EXAMPLES = [
    Encoded(id=str(n), prompt=tuple(range(3 + n, 3 + 2 * n)), completion=(7, 9, 1), labels=LABELS)
    for n in (5, 12, 23)
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("architectures")
    known = [name for name in FAMILIES if name in CONFIG_MAPPING]  # Python 3.10 has an older transformers
    return {name: build_base(root / name, name, **FAMILIES[name][0]) for name in known}


def load(folder: Path, **options: Any) -> tuple[Any, Any]:
    backend = Transformers(str(folder), **options)
    lora = LoRA(r=2)
    backend.check(lora, device=CPU, precision="32")
    model = backend.load(lora=lora, adapter=None, device=CPU, dtype=torch.float32, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=generator)
    return backend.decoder(model), model


@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains_scores_and_writes_as_its_own_forward_does(
    folders: dict[str, Path], family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if family not in folders:
        pytest.skip(f"this transformers has no {family}")
    decoder, model = load(folders[family])
    check_model(model, decoder, EXAMPLES, CPU)
    padded = why_padded(decoder)
    reason = FAMILIES[family][1]
    assert (padded is None) == (reason is None)
    assert padded is None or (reason or "") in padded
    packed = padded is None and packing_works(model, decoder, decoder, EXAMPLES, CPU) is None
    assert packed == (padded is None)
    assert unsupported(model) is not None  # the fused engine says why not, and doesn't fail

    say_untrained(model, decoder, EXAMPLES, CPU)
    assert "get no gradient" not in capsys.readouterr().out
    decoder.loss_sum(micro_batch(EXAMPLES, packed=packed, pad_token_id=2)).backward()
    assert all(p.grad.count_nonzero() for n, p in model.named_parameters() if "lora_B" in n)
    assert step_flops(model).step([5, 12], 4) > 0

    model.eval()
    expected = []
    with torch.no_grad():
        for example in EXAMPLES:
            for label in example.labels:
                logits = model(input_ids=torch.tensor([[*example.prompt, *label]])).logits[0].log_softmax(-1)
                start = len(example.prompt) - 1
                expected.append(sum(float(logits[start + place, token]) for place, token in enumerate(label)))
    found = score(decoder, EXAMPLES, micro_batch_tokens=256, packed=packed, pad_token_id=2, device=CPU)
    assert [value for one in found for value in one.label_logprobs] == pytest.approx(expected, abs=1e-4)

    settings: dict[str, Any] = {"max_new_tokens": 4, "end_token_ids": [1], "pad_token_id": 2, "device": CPU}
    prompts = [example.prompt for example in EXAMPLES]
    written = generate(model, prompts, left_padding=decoder.state is None, **settings)
    assert written == [generate(model, [prompt], **settings)[0] for prompt in prompts]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_planner_and_the_shares_take_it(folders: dict[str, Path], family: str) -> None:
    if family not in folders:
        pytest.skip(f"this transformers has no {family}")
    config = Transformers(str(folders[family])).config()
    with contextlib.suppress(AttributeError):  # the shape isn't known
        Shape.of(config)
    modules = skeleton(config, family)
    _, model = load(folders[family])
    assert predicted_shares(modules, "nf4", lora_targets(LoRA(), modules)) == loaded_shares(model)
    assert 2 * loaded_shares(model).quantized > loaded_shares(model).total


@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
def test_gpt2_layers_are_adapted_and_their_adapter_is_pefts(
    folders: dict[str, Path], quantization: str, tmp_path: Path
) -> None:
    _, model = load(folders["gpt2"], quantization=quantization)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    expected = model.eval()(input_ids=torch.tensor([[5, 6, 7]])).logits
    backend = Transformers(str(folders["gpt2"]), quantization=quantization)  # type: ignore[arg-type]
    again = backend.load(lora=None, adapter=str(tmp_path), device=CPU, dtype=torch.float32, seed=0).eval()
    assert torch.allclose(again(input_ids=torch.tensor([[5, 6, 7]])).logits, expected, atol=1e-5)


def test_weights_that_mambas_kernels_read_raw_are_neither_quantized_nor_adapted(
    folders: dict[str, Path],
) -> None:
    _, model = load(folders["mamba"])
    assert {name.rpartition(".")[2] for name in adapted_names(model)} == {"in_proj"}
    assert model.get_base_model().backbone.layers[0].mixer.out_proj.weight.dtype == torch.float32


def test_rows_that_cross_weakly_are_found_in_16_bits_too(tmp_path: Path) -> None:
    """The first GPT's attention knows no examples; in bfloat16 its packed rows are nearer than rounding may be."""
    build_base(tmp_path, "openai-gpt", n_embd=64, n_layer=2, n_head=4)
    backend = Transformers(str(tmp_path), gradient_checkpointing=False)
    for dtype in (torch.float32, torch.bfloat16):
        model = backend.load(lora=None, adapter=None, device=CPU, dtype=dtype, seed=0)
        decoder = backend.decoder(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            assert packing_works(model, decoder, decoder, EXAMPLES, CPU) is not None


def build(folder: Path, config: Any) -> Path:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    build_tokenizer(["ANSWER: yes."]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 3 with its vision tower, as MedGemma."""
    from transformers import Gemma3Config

    text = {"vocab_size": 600, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 2,
            "bos_token_id": 0, "eos_token_id": 1, "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 512}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return build(tmp_path_factory.mktemp("gemma3"), config)


def test_a_vision_tower_gets_no_adapters_in_a_text_run(
    gemma3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder, model = load(gemma3)
    named = adapted_names(model)
    assert len(named) == 2 * 7
    assert all("language_model.layers." in name for name in named)
    assert text_decoder(model) is model.get_base_model().model.language_model
    check_model(model, decoder, EXAMPLES, CPU)
    say_untrained(model, decoder, EXAMPLES, CPU)
    assert "get no gradient" not in capsys.readouterr().out
    decoder.loss_sum(micro_batch(EXAMPLES, packed=True, pad_token_id=2)).backward()
    assert all(p.grad.count_nonzero() for n, p in model.named_parameters() if "lora_B" in n)
    assert loaded_shares(model).adapted / loaded_shares(model).total > 0.98
    # the exported adapter has the same, and PEFT reads it
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    again = Transformers(str(gemma3)).load(
        lora=None, adapter=str(tmp_path), device=CPU, dtype=torch.float32, seed=0
    )
    assert adapted_names(again) == named


def test_a_regular_expression_for_a_multimodal_base_stays_in_its_language_model(gemma3: Path) -> None:
    modules = skeleton(Transformers(str(gemma3)).config(), "gemma3")
    found = lora_targets(LoRA(target_modules=r".*\.q_proj"), modules).modules
    assert len(found) == 2
    assert all("language_model" in name for name in found)
    assert lora_targets(LoRA(target_modules=["q_proj"]), modules).modules == found


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("rwkv", {"attention_hidden_size": 64}, r"\(rwkv\) rescales its weights in evaluation"),
        (
            "jetmoe",
            {"kv_channels": 16, "num_local_experts": 4},
            r"gradient_checkpointing true: transformers has none",
        ),
        ("t5", {"d_model": 64}, r"is no causal language model"),
        ("llava", {}, r"is no causal language model"),
        ("bart", {}, r"\(bart\) is an encoder-decoder model"),
    ],
)
def test_what_cannot_be_trained_is_refused_from_its_configuration(
    tmp_path: Path, family: str, changes: dict[str, Any], message: str
) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model(family, **changes).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        Transformers(str(tmp_path)).check(LoRA(), device=CPU, precision="32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("bert", r"BertLMHeadModel \(bert\) is not causal: .*shown the answers"),
        (
            "modernbert-decoder",
            r"\(modernbert-decoder\) are not the product of its last hidden states and its head",
        ),
    ],
)
def test_a_model_that_sees_its_answers_or_has_another_head_is_refused(
    tmp_path: Path, family: str, message: str
) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        family, vocab_size=600, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=2, bos_token_id=0, eos_token_id=1, cls_token_id=0, sep_token_id=1,
    )  # fmt: skip
    decoder, model = load(build(tmp_path, config))
    with pytest.raises(InputError, match=message):
        check_model(model, decoder, EXAMPLES, CPU)


def test_a_forward_that_fails_is_told_in_a_line(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, model = load(folders["gpt2"])
    attention = text_decoder(model).h[0].attn
    monkeypatch.setattr(attention, "split_size", 7)
    monkeypatch.setattr(attention, "head_dim", 7)
    with pytest.raises(
        InputError, match=r"the forward of GPT2LMHeadModel \(gpt2\) fails .*not supported"
    ) as caught:
        check_model(model, decoder, EXAMPLES, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "changes", "raw"),
    [
        ("longcat_flash", {"num_layers": 2, "n_routed_experts": 4, "moe_topk": 2}, "router.classifier"),
        ("zamba", {"num_hidden_layers": 12}, "mamba.out_proj"),
    ],
)
def test_a_router_and_a_mixer_that_read_their_weights_themselves_are_left_alone(
    family: str, changes: dict[str, Any], raw: str
) -> None:
    if family not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {family}")
    from transformers import AutoConfig

    modules = skeleton(AutoConfig.for_model(family, hidden_size=64, intermediate_size=64, **changes), family)
    assert any(name.endswith(raw) for name in raw_weights(modules))
    assert not any(name.endswith(raw) for name in lora_targets(LoRA(), modules).modules)
    assert not any(hasattr(expert.module, "A_log") for expert in experts(modules))
