"""How the base's weights are held: as asked or refused, counted for what they stand for, and never changed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medqlora.errors import InputError
from medqlora.models import LoRA, Transformers
from medqlora.models.quantization import (
    bitsandbytes_config,
    check_quantization,
    count_parameters,
    import_bitsandbytes,
    settle,
    stored_quantization,
)

CPU = torch.device("cpu")
FP8 = {"quant_method": "fbgemm_fp8"}


def load(base: Path, quantization: str, lora: LoRA | None = None, **options: Any) -> Any:
    backend = Transformers(str(base), quantization=quantization, gradient_checkpointing=False, **options)  # type: ignore[arg-type]
    return backend.load(lora=lora, adapter=None, device=CPU, dtype=torch.float32, seed=0)


def four_bit_layers(model: Any) -> list[Any]:
    kind = import_bitsandbytes().nn.Linear4bit
    return [module for module in model.modules() if isinstance(module, kind)]


@pytest.fixture(scope="module")
def prequantized(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose files are NF4 already, as Unsloth's `…-bnb-4bit` are; made for another compute type."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("prequantized")
    config = bitsandbytes_config("nf4", True, torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(
        tiny_bases["llama"], quantization_config=config, device_map={"": CPU}, dtype=torch.float32
    )
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
def test_every_projection_is_held_in_4_bits_of_the_kind_asked_for(
    tiny_bases: dict[str, Path], quantization: str, double: bool
) -> None:
    layers = four_bit_layers(load(tiny_bases["llama"], quantization, double_quantization=double))
    assert len(layers) == 14
    for layer in layers:
        state = layer.weight.quant_state
        assert (layer.weight.dtype, state.quant_type, state.nested) == (torch.uint8, quantization, double)
        assert layer.weight.numel() * 2 == state.shape.numel()


@pytest.mark.parametrize("quantization", ["nf4", "fp4", "none"])
@pytest.mark.parametrize("family", ["llama", "gemma"])  # Gemma's head is its embedding
def test_parameters_are_counted_as_the_unquantized_model_has_them(
    tiny_bases: dict[str, Path], family: str, quantization: str
) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tiny_bases[family])
    size = sum(parameter.numel() for parameter in plain.parameters())
    assert count_parameters(load(tiny_bases[family], quantization)) == (0, size)
    # r (in + out) a projection: q and o 64×64, k and v 64×32, gate, up and down 64×128; two layers
    adapters = 2 * 4 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    assert count_parameters(load(tiny_bases[family], quantization, LoRA(r=4))) == (adapters, size + adapters)


def test_an_already_quantized_base_is_counted_so_too(tiny_bases: dict[str, Path], prequantized: Path) -> None:
    assert count_parameters(load(prequantized, "nf4")) == count_parameters(load(tiny_bases["llama"], "none"))


def test_an_already_quantized_base_computes_in_the_runs_type_not_that_of_its_day(prequantized: Path) -> None:
    model = load(prequantized, "nf4")
    assert {layer.compute_dtype for layer in four_bit_layers(model)} == {torch.float32}
    assert {layer.weight.quant_state.dtype for layer in four_bit_layers(model)} == {torch.float32}
    assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.dtype == torch.float32


@pytest.mark.parametrize("asked", ["fp4", "int8", "none"])
def test_an_already_quantized_base_is_refused_any_other_quantization_before_it_is_loaded(
    prequantized: Path, asked: str
) -> None:
    backend = Transformers(str(prequantized), quantization=asked)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        backend.check(LoRA(), device=CPU, precision="32")
    assert str(caught.value) == (
        f"--model.backend.quantization {asked}: the files of '{prequantized}' are quantized already, as nf4: "
        "pass --model.backend.quantization nf4"
    )
    Transformers(str(prequantized)).check(LoRA(), device=CPU, precision="32")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, None),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
        ({"quant_method": "bitsandbytes", "_load_in_4bit": True}, "fp4"),  # bitsandbytes' own default
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        (FP8, "fbgemm_fp8"),
    ],
)
def test_what_a_bases_files_are_quantized_as_is_read_from_its_configuration(
    stored: dict[str, Any] | None, expected: str | None
) -> None:
    assert stored_quantization(SimpleNamespace(quantization_config=stored)) == expected


def test_a_method_that_is_not_bitsandbytes_names_the_way_out() -> None:
    with pytest.raises(
        InputError, match=r"quantized already, as fbgemm_fp8: use a base that isn't quantized"
    ):
        check_quantization("owner/model", SimpleNamespace(quantization_config=FP8), "nf4")


def test_an_eval_forward_leaves_the_bases_bytes_and_the_gradients_after_it_as_they_were(
    tiny_bases: dict[str, Path],
) -> None:
    """On a CPU with AVX512-BF16 bitsandbytes 0.50 would repack the weights there, and break the backward."""
    model = load(tiny_bases["llama"], "nf4", LoRA(r=4))
    ids = torch.tensor([[5, 6, 7, 8]])

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model.train()(input_ids=ids, labels=ids).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]

    # the switch that holds on every machine, also one whose CPU would not repack
    assert {layer.support_avx512bf16_for_cpu for layer in four_bit_layers(model)} == {False}
    before, first = [layer.weight.data.clone() for layer in four_bit_layers(model)], gradients()
    with torch.no_grad():
        model.eval()(input_ids=ids)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(input_ids=ids)
    after, second = [layer.weight.data for layer in four_bit_layers(model)], gradients()
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(torch.equal(old, new) for old, new in zip(first, second, strict=True))
    assert any(gradient.abs().max() > 0 for gradient in first)


def test_settling_a_model_without_4_bit_layers_changes_nothing() -> None:
    layer = torch.nn.Linear(2, 2)
    settle(layer, CPU, torch.float16)
    assert layer.weight.dtype == torch.float32


def test_the_compute_type_is_the_runs_or_the_one_that_is_asked_for(tiny_bases: dict[str, Path]) -> None:
    for asked, expected in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        backend = Transformers(str(tiny_bases["llama"]), compute_dtype=asked)  # type: ignore[arg-type]
        model = backend.load(
            lora=LoRA(r=4), adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
        )
        linear4bit = import_bitsandbytes().nn.Linear4bit
        layers = [module for module in model.modules() if isinstance(module, linear4bit)]
        assert {module.compute_dtype for module in layers} == {expected}


def test_attention_that_would_leave_out_a_models_cap_is_refused(tiny_bases: dict[str, Path]) -> None:
    backend = Transformers(str(tiny_bases["gemma2"]), attention="sdpa")
    with pytest.raises(InputError, match=r"--model\.backend\.attention sdpa: .* use auto"):
        backend.check(LoRA(), device=torch.device("cpu"), precision="32-true")
