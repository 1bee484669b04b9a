"""A mixture's experts, most of its weights: in 4 bits, with adapters, and said so."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import build_base
from torch import Tensor

from medqlora.data.batching.packing import micro_batch
from medqlora.errors import InputError
from medqlora.models import LoRA, Transformers
from medqlora.models.adapters import save_adapter, trainable_state
from medqlora.models.layers import experts
from medqlora.models.lora import lora_targets
from medqlora.models.shares import adapted_names, loaded_shares, predicted_shares
from medqlora.models.transformers import skeleton
from medqlora.records import Encoded

CPU = torch.device("cpu")
IDS = torch.arange(3, 20)[None]
#: family → what its configuration needs to be tiny
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    # experts beside a shared one; PEFT would rename the shared one's layers
    "glm4_moe": {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1,
                 "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    # [experts, in, out] and biases
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2,
                "layer_types": ["sliding_attention", "full_attention"]},
    # parameters called `weight`
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {"num_local_experts": 4, "interleave_moe_layer_step": 1, "attention_chunk_size": 512,
                    "intermediate_size_mlp": 64},
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("mixtures")
    return {name: build_base(root / name, name, **changes) for name, changes in MIXTURES.items()}


def load(folder: Path, lora: LoRA | None = None, adapter: Path | None = None, **options: Any) -> Any:
    backend = Transformers(str(folder), **options)
    if lora is not None:
        backend.check(lora, device=CPU, precision="32")
    named = None if adapter is None else str(adapter)
    return backend.load(lora=lora, adapter=named, device=CPU, dtype=torch.float32, seed=0)


def loss(model: Any) -> Tensor:
    examples = [Encoded(id=str(n), prompt=tuple(range(3, 3 + n)), completion=(7, 9, 1)) for n in (5, 12)]
    return Transformers("").decoder(model).loss_sum(micro_batch(examples, packed=False, pad_token_id=2))


def stored(model: Any) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in model.named_parameters() if not one.requires_grad}


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_are_held_in_4_bits_and_give_what_their_nearest_values_give(
    folders: dict[str, Path], family: str
) -> None:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    from transformers import AutoModelForCausalLM

    packed = load(folders[family])
    found = experts(packed)
    assert found
    assert {expert.parameter.dtype for expert in found} == {torch.uint8}
    assert sum(one.parameter.numel() * 2 for one in found) == sum(
        one.parameter.quant_state.shape.numel()
        for one in found  # type: ignore[attr-defined]
    )
    # the same base, its quantized weights put back as 4 bits have them
    plain = AutoModelForCausalLM.from_pretrained(folders[family]).eval()
    kind = type(
        packed.get_submodule(next(n for n, m in packed.named_modules() if hasattr(m, "compute_dtype")))
    )
    linear = [n for n, m in packed.named_modules() if isinstance(m, kind)]
    names = [f"{n}.weight" for n in linear] + [one.name for one in found]
    for name in names:
        weight = plain.get_parameter(name)
        weight.data = dequantize_4bit(*quantize_4bit(weight.data, quant_type="nf4", compress_statistics=True))
    with torch.no_grad():
        expected, got = plain(input_ids=IDS).logits, packed.eval()(input_ids=IDS).logits
    assert torch.allclose(got, expected, atol=1e-4 * float(expected.abs().max()))
    assert {expert.parameter.dtype for expert in experts(packed)} == {torch.uint8}  # packed again


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_get_adapters_that_train_and_nothing_else_changes(
    folders: dict[str, Path], family: str
) -> None:
    model = load(folders[family], LoRA(r=2))
    named = adapted_names(model)
    assert {
        expert.name.replace(".base_layer", "").removeprefix("base_model.model.") for expert in experts(model)
    } <= named
    before = stored(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        current = loss(model)
        current.backward()
        dead = [n for n, p in model.named_parameters() if "lora_B" in n and not p.grad.count_nonzero()]
        assert not dead
        optimizer.step()
        losses.append(current.item())
    assert losses[-1] < losses[0] - 0.05
    after = stored(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    # as often as it is asked, the same answer: PEFT's update isn't added once more at every forward
    with torch.no_grad():
        assert loss(model.eval()).item() == loss(model).item()


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_an_adapter_of_experts_is_read_back_as_it_was(
    folders: dict[str, Path], family: str, quantization: str, tmp_path: Path
) -> None:
    model = load(folders[family], LoRA(r=2), quantization=quantization)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=generator)
    expected = loss(model.eval())
    with model.disable_adapter():
        assert loss(model).item() != pytest.approx(expected.item(), rel=1e-3)
    save_adapter(model, tmp_path, trainable_state(model))
    again = load(folders[family], adapter=tmp_path, quantization=quantization).eval()
    assert loss(again).item() == pytest.approx(expected.item(), rel=1e-6)
    if quantization == "none":  # and by PEFT alone, with nothing of ours
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        alone = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(folders[family]), tmp_path
        ).eval()
        assert loss(alone).item() == pytest.approx(expected.item(), rel=1e-5)


#: family → what transformers 4 called the experts' module, and the gate, up and down projections
OLD_NAMES = {
    "mixtral": ("block_sparse_moe", ("w1", "w3", "w2")),
    "qwen3_moe": ("mlp", ("gate_proj", "up_proj", "down_proj")),
}


def old_adapter(folder: Path, family: str, plain: Any) -> Path:
    """An adapter as PEFT wrote it with transformers 4, a pair for each expert; its update is added to `plain`."""
    module, (gate, up, down) = OLD_NAMES[family]
    tensors: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(1)
    for number, layer in enumerate(plain.model.layers):
        experts_of = layer.mlp.experts
        for expert in range(4):
            halves = experts_of.gate_up_proj.data[expert].chunk(2)
            weights = zip((gate, up, down), (*halves, experts_of.down_proj.data[expert]), strict=True)
            for name, weight in weights:
                a = torch.randn(2, weight.shape[1], generator=generator) * 0.1
                b = torch.randn(weight.shape[0], 2, generator=generator) * 0.1
                weight += 4 * b @ a
                prefix = f"base_model.model.model.layers.{number}.{module}.experts.{expert}.{name}"
                tensors |= {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 8, "lora_dropout": 0.05,
              "target_modules": [gate, up, down], "base_model_name_or_path": "owner/base"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("family", OLD_NAMES)
def test_an_adapter_of_single_experts_as_transformers_4_had_them_is_read(
    folders: dict[str, Path], family: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(folders[family]).eval()
    adapter = old_adapter(tmp_path, family, plain)
    Transformers(str(folders[family]), quantization="none").check_adapter(str(adapter))
    model = load(folders[family], adapter=adapter, quantization="none").eval()
    with torch.no_grad():
        expected, found = plain(input_ids=IDS).logits, model(input_ids=IDS).logits
        with model.disable_adapter():
            bare = model(input_ids=IDS).logits
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(bare, load(folders[family], quantization="none").eval()(input_ids=IDS).logits)


@pytest.mark.parametrize("missing", ["experts.3.", "experts.3.w1.", "experts.3.w1.lora_A", ".w1."])
def test_an_adapter_that_lacks_experts_is_refused(
    folders: dict[str, Path], missing: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    adapter = old_adapter(tmp_path, "mixtral", AutoModelForCausalLM.from_pretrained(folders["mixtral"]))
    file = adapter / "adapter_model.safetensors"
    tensors = {
        name: value for name, value in load_file(file).items() if missing not in name or "layers.0" in name
    }
    save_file(tensors, file, metadata={"format": "pt"})
    for ask in (
        lambda: Transformers(str(folders["mixtral"])).check_adapter(str(adapter)),
        lambda: load(folders["mixtral"], adapter=adapter),
    ):
        with pytest.raises(InputError, match="fit the base") as caught:
            ask()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", MIXTURES)
def test_the_shares_are_predicted_from_the_configuration_as_the_loaded_model_has_them(
    folders: dict[str, Path], family: str
) -> None:
    modules = skeleton(Transformers(str(folders[family])).config(), family)
    predicted = predicted_shares(modules, "nf4", lora_targets(LoRA(), modules))
    measured = loaded_shares(load(folders[family], LoRA(r=2)))
    assert predicted == measured
    assert measured.quantized > 0.9 * measured.total
    # PEFT can't tell GLM's dense layer from its experts; the share says so
    assert measured.adapted > (0.6 if family == "glm4_moe" else 0.9) * measured.total


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dropout": 0.1},
            r"--model\.lora\.dropout 0\.1: PEFT has no dropout for experts .*set it to 0, or name",
        ),
        (
            {"use_dora": True},
            r"--model\.lora\.use_dora True: PEFT has no dora for experts .*set it to false, or name",
        ),
    ],
)
def test_experts_that_would_silently_get_no_adapter_are_refused(
    folders: dict[str, Path], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Transformers(str(folders["mixtral"])).check(LoRA(**options), device=CPU, precision="32")
    named = LoRA(target_modules=["q_proj", "v_proj"], **options)
    Transformers(str(folders["mixtral"])).check(named, device=CPU, precision="32")


def test_a_mixture_that_would_mostly_stay_in_16_bits_is_refused_unless_asked_for(
    folders: dict[str, Path],
) -> None:
    with pytest.raises(InputError) as caught:
        Transformers(str(folders["mixtral"]), quantization="int8").check(LoRA(), device=CPU, precision="32")
    assert "--model.backend.quantization int8: only 11% of the weights in the decoder layers of" in str(
        caught.value
    )
    assert str(caught.value).endswith(
        "(mixtral) can be quantized: use nf4, or pass --model.backend.allow_unquantized true"
    )
    allowed = Transformers(str(folders["mixtral"]), quantization="int8", allow_unquantized=True)
    allowed.check(LoRA(), device=CPU, precision="32")


@pytest.mark.parametrize(
    ("given", "parameters"),
    [
        (
            ["q_proj", "gate_proj", "up_proj", "down_proj"],
            ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"],
        ),
        (["q_proj", "mlp.experts.down_proj"], ["mlp.experts.down_proj"]),
        (r".*\.(q_proj|experts\.gate_up_proj)", ["mlp.experts.gate_up_proj"]),
        ("all-linear", ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]),
        ("q_proj,v_proj", []),
        # of one layer alone
        (r"model\.layers\.1\..*\.(q_proj|gate_up_proj)", ["model.layers.1.mlp.experts.gate_up_proj"]),
        (["layers.0.mlp.experts.down_proj"], ["model.layers.0.mlp.experts.down_proj"]),
    ],
)
def test_experts_are_named_as_layers_are_by_their_old_names_too(
    folders: dict[str, Path], given: Any, parameters: list[str]
) -> None:
    modules = skeleton(Transformers(str(folders["qwen3_moe"])).config(), "qwen3_moe")
    assert lora_targets(LoRA(target_modules=given), modules).parameters == parameters


@pytest.mark.parametrize("family", ["qwen3_moe", "granitemoe"])
def test_experts_of_one_layer_alone_are_adapted_where_one_is_named(
    folders: dict[str, Path], family: str
) -> None:
    lora = LoRA(r=2, target_modules=r".*layers\.1\..*")
    modules = skeleton(Transformers(str(folders[family])).config(), family)
    model = load(folders[family], lora)
    assert {name.split(".")[2] for name in adapted_names(model)} == {"1"}
    assert any("experts" in name or "linear" in name for name in adapted_names(model))
    assert loaded_shares(model) == predicted_shares(modules, "nf4", lora_targets(lora, modules))


def test_without_checkpointing_the_gradients_are_the_same(folders: dict[str, Path]) -> None:
    found = []
    for checkpointing in (True, False):
        model = load(folders["mixtral"], LoRA(r=2), gradient_checkpointing=checkpointing)
        loss(model).backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))
