"""Weights that are not finite, missing, left over or of another shape are refused when the base is loaded."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from base_files import WEIGHTS, change, check, load, logits, save
from safetensors.torch import load_file

from medqlora.errors import InputError
from medqlora.models import hub
from medqlora.models.finite import is_finite


def refused_in_load(base: Path, quantization: str = "nf4") -> str:
    check(base, quantization)
    with pytest.raises(InputError) as caught:
        load(base, None, quantization)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("quantization", "part", "value"),
    [
        ("none", "layers.1.mlp.up_proj", float("nan")),
        ("none", "input_layernorm", float("inf")),
        ("nf4", "layers.1.mlp.up_proj", float("nan")),
        ("nf4", "layers.0.self_attn.q_proj", float("-inf")),
        ("nf4", "embed_tokens", float("nan")),
        ("fp4", "layers.0.self_attn.q_proj", float("nan")),
        ("int8", "layers.1.mlp.up_proj", float("nan")),
        ("int8", "lm_head", float("inf")),
    ],
)
def test_nan_and_infinity_are_found_as_the_base_is_loaded(
    base: Path, quantization: str, part: str, value: float
) -> None:
    tensors = load_file(base / WEIGHTS)
    name = next(name for name in tensors if part in name)
    tensors[name].view(-1)[7] = value
    save(base, tensors)
    assert refused_in_load(base, quantization) == (
        f"--model.backend.base: '{base / WEIGHTS}': the tensor '{name}' holds NaN or infinite values: the weights "
        "are damaged; copy or download the base again"
    )


def test_nan_in_stored_4_bit_scales_is_found(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quantized"
    load(base, None, "nf4").save_pretrained(folder)
    for file in base.glob("token*"):
        shutil.copy(file, folder)
    load(folder, None, "nf4")
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name in sorted(tensors) if name.endswith("nested_absmax"))
    tensors[name][0] = torch.nan
    save(folder, tensors)
    hub.clear_caches()
    assert name in refused_in_load(folder)


def test_large_finite_values_are_no_fault() -> None:
    assert is_finite(torch.full((1000,), torch.finfo(torch.float32).max))
    assert is_finite(torch.full((1000,), torch.finfo(torch.bfloat16).max, dtype=torch.bfloat16))
    assert not is_finite(torch.tensor([1.0, torch.inf, -torch.inf]))


class Harmful:
    """Writes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("kind", ["cut", "no archive", "empty", "pickle"])
def test_a_damaged_or_harmful_file_of_torchs_format_ends_in_a_line(
    base: Path, tmp_path: Path, kind: str
) -> None:
    file = base / "pytorch_model.bin"
    content: dict[str, Any] = dict(load_file(base / WEIGHTS))
    (base / WEIGHTS).unlink()
    torch.save({**content, "more": Harmful(tmp_path / "mark")} if kind == "pickle" else content, file)
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[:-5000], "no archive": b"no model", "empty": b""}.get(kind, whole))
    line = refused_in_load(base)
    assert line.endswith("which is never run: download the base as safetensors)")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_weights_that_the_files_lack_are_not_drawn_at_random(
    base: Path, quantization: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(base / WEIGHTS)
    save(base, {name: value for name, value in tensors.items() if ".layers.1." not in name})
    line = refused_in_load(base, quantization)
    assert "lack 9 of the model's weights, the first 'model.layers.1." in line
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_weights_of_another_shape_are_told(base: Path, quantization: str) -> None:
    tensors = load_file(base / WEIGHTS)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name][:-1].contiguous()
    save(base, tensors)
    assert "config.json says" in refused_in_load(base, quantization)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_weights_that_the_model_has_no_place_for_are_not_left_out(base: Path, quantization: str) -> None:
    tensors = load_file(base / WEIGHTS)
    lora = {f"model.layers.0.self_attn.q_proj.lora_{half}.weight": torch.ones(2, 2) for half in "AB"}
    save(base, {**tensors, **lora})
    assert "hold LoRA weights beside the base's (2, the first 'model" in refused_in_load(base, quantization)
    save(base, tensors)
    change(base / "config.json", num_hidden_layers=1)
    hub.clear_caches()
    line = refused_in_load(base, quantization)
    assert "num_hidden_layers 1, and its weight files hold more, as 'model.layers.1." in line


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_further_tensors_that_are_no_layers_are_no_fault(base: Path, quantization: str) -> None:
    expected = logits(load(base, None, quantization))
    more = ("model.layers.0.self_attn.rotary_emb.inv_freq", "vision.layers.5.q_proj.weight")
    save(base, {**load_file(base / WEIGHTS), **{name: torch.ones(2) for name in more}})
    assert torch.equal(logits(load(base, None, quantization)), expected)


def test_a_quantized_models_configuration_beside_plain_weights_is_told(base: Path) -> None:
    quantized = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    change(base / "config.json", quantization_config=quantized)
    assert "says that its weights are quantized by bitsandbytes, and 'model" in refused_in_load(base, "nf4")


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": "flash_attention_2"},
        {"pad_token_id": -1},
        {"pad_token_id": -9999},
    ],
    ids=str,
)
def test_an_attention_or_a_padding_of_another_machine_does_no_harm(
    base: Path, changes: dict[str, Any]
) -> None:
    expected = logits(load(base, None))
    change(base / "config.json", **changes)
    hub.clear_caches()
    check(base, "none")
    assert torch.equal(logits(load(base, None)), expected)
