"""GPTQ and AWQ bases compute as their dequantized weights, in loss, gradients and scores, and odd ones are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_models import CPU, assert_same, examples, gradients, one_by_one
from int4_bases import LAYOUTS, Twins, make_int4, quantized
from safetensors.torch import load_file, save_file
from tiny import build_base

from medqlora.data.batching.packing import pack
from medqlora.errors import InputError
from medqlora.fused import FusedDecoder
from medqlora.models import Decoder, LoRA, Transformers, hub
from medqlora.models.int4 import Int4Linear
from medqlora.models.quantization import count_parameters
from medqlora.models.shares import loaded_shares


def load(base: Path, quantization: Any, dtype: torch.dtype = torch.float32, lora: bool = True) -> Any:
    """The model, with adapters that have an effect."""
    backend = Transformers(str(base), quantization, gradient_checkpointing=False)
    backend.check(LoRA(r=4), device=CPU, precision="32-true")
    backend.check_files()
    model: Any = backend.load(
        lora=LoRA(r=4, alpha=6) if lora else None, adapter=None, device=CPU, dtype=dtype, seed=0
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


@pytest.fixture(scope="module")
def bases(int4_twins: Twins) -> dict[str, tuple[Path, Path]]:
    return int4_twins("qwen2", LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_gradients_and_logits_are_those_of_the_dequantized_weights(
    layout: str, bases: dict[str, tuple[Path, Path]]
) -> None:
    base, twin = bases[layout]
    packed, dense = load(base, LAYOUTS[layout][0]), load(twin, "none")
    expected_loss, expected = one_by_one(dense, examples())
    native_loss, native = one_by_one(packed, examples())
    assert native_loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert_same(native, expected)
    fused = FusedDecoder(packed).loss_sum(pack(examples()))  # q, k and v have biases
    assert fused.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert_same(gradients(packed, fused), expected)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert (packed(ids).logits - dense(ids).logits).abs().max() < 1e-4 * dense(ids).logits.abs().max()


def test_a_packed_layer_stands_for_its_matrix_in_every_count(bases: dict[str, tuple[Path, Path]]) -> None:
    base, twin = bases["gptq"]
    packed = load(base, "gptq")
    assert count_parameters(packed) == count_parameters(load(twin, "none"))
    assert sum(type(module) is Int4Linear for module in packed.modules()) == 14
    shares = loaded_shares(packed)
    assert (
        shares.quantized == shares.adapted == shares.total - 2 * (64 * 2 + 64 + 32 + 32)
    )  # norms and biases
    assert "4 bits (gptq)" in shares.line("gptq")


def test_half_precision_rounds_each_weight_once(bases: dict[str, tuple[Path, Path]]) -> None:
    base, twin = bases["gptq-act-order"]
    packed, dense = (
        load(base, "gptq", torch.bfloat16, lora=False),
        load(twin, "none", torch.bfloat16, lora=False),
    )
    name = "model.layers.1.mlp.down_proj"
    assert torch.equal(
        packed.get_submodule(name).dequantized(torch.bfloat16), dense.get_submodule(name).weight
    )
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(packed(ids).logits, dense(ids).logits)


def rewrite(base: Path, changed: dict[str, torch.Tensor | None], **fields: Any) -> None:
    tensors = load_file(base / "model.safetensors")
    for name, tensor in changed.items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"].update(fields)
    (base / "config.json").write_text(json.dumps(config))
    hub.clear_caches()


def test_a_layer_left_in_16_bits_a_packed_head_and_a_zero_bias_are_read(
    tmp_path: Path,
) -> None:
    dense = build_base(tmp_path / "dense", layers=1, vocab_size=320)  # words hold eight rows of the head
    base, _ = make_int4(dense, tmp_path, "gptq")
    original = load_file(dense / "model.safetensors")
    left, biased = "model.layers.0.mlp.up_proj", "model.layers.0.self_attn.o_proj"
    changed: dict[str, torch.Tensor | None] = {
        f"{left}.{part}": None for part in ("qweight", "qzeros", "scales", "g_idx")
    }
    changed[f"{left}.weight"] = original[f"{left}.weight"]
    changed[f"{biased}.bias"] = torch.zeros(64, dtype=torch.float16)  # as AutoGPTQ writes them
    tensors, values = quantized(original["lm_head.weight"], "gptq", LAYOUTS["gptq"][1], 3)
    changed |= {"lm_head.weight": None, **{f"lm_head.{part}": each for part, each in tensors.items()}}
    rewrite(base, changed)
    model = load(base, "gptq", lora=False)
    assert type(model.get_submodule(left)) is torch.nn.Linear
    assert model.get_submodule(biased).bias is None
    assert type(model.lm_head) is torch.nn.Linear
    assert torch.equal(model.lm_head.weight, values)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bits": 3}, "GPTQ in 3 bits, and 4 are read: take its 4-bit version"),
        ({"checkpoint_format": "marlin"}, "in the layout marlin, and gptq and gptq_v2 can be read"),
        ({"is_marlin_format": True}, "in the layout marlin"),
        ({"quant_method": "awq", "version": "gemv"}, "in the layout gemv, and gemm can be read"),
        ({"quant_method": "awq", "version": "exllama"}, "in the layout exllama"),
        ({"group_size": 0}, "with group_size 0: it has to be -1 or an even number"),
        ({"pack_dtype": "int16"}, "packed as int16, and int32 is read"),
        ({"quant_method": "hqq"}, "quantized already, as hqq: use a base that isn't quantized"),
    ],
)
def test_other_layouts_are_refused_before_a_weight_is_read(
    fields: dict[str, Any], words: str, bases: dict[str, tuple[Path, Path]], base: Path
) -> None:
    config = json.loads((bases["gptq"][0] / "config.json").read_text())
    config["quantization_config"].update(fields)
    (base / "config.json").write_text(json.dumps(config))
    method = fields.get("quant_method", "gptq")
    with pytest.raises(InputError) as caught:
        Transformers(str(base), "awq" if method == "awq" else "gptq").check(
            LoRA(r=4), device=CPU, precision="32-true"
        )
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "given", "words"),
    [
        ("gptq", "nf4", "quantized already, as gptq: pass --model.backend.quantization gptq"),
        ("awq", "gptq", "quantized already, as awq: pass --model.backend.quantization awq"),
        (None, "awq", "are not quantized, and bases are not quantized to AWQ here: use nf4, or name"),
    ],
)
def test_another_quantization_than_the_files_have_is_refused(
    layout: str | None, given: Any, words: str, bases: dict[str, tuple[Path, Path]]
) -> None:
    base = bases[layout][0] if layout else bases["gptq"][1]
    with pytest.raises(InputError, match=words):
        Transformers(str(base), given).check(LoRA(r=4), device=CPU, precision="32-true")


Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("changed", "fields", "words"),
    [
        ({f"{Q}.scales": None}, {}, f"lack '{Q}.scales'"),
        ({f"{Q}.qweight": torch.zeros(4, 64, dtype=torch.int32)}, {}, f"'{Q}.qweight' is \\[4, 64\\]"),
        ({f"{Q}.qzeros": torch.zeros(2, 9, dtype=torch.int32)}, {}, f"'{Q}': qzeros is \\[2, 9\\] of int32"),
        (
            {f"{Q}.g_idx": torch.full((64,), 7, dtype=torch.int32)},
            {},
            f"'{Q}': g_idx names group 7, and scales has 2",
        ),
        ({f"{Q}.scales": torch.full((2, 64), torch.nan)}, {}, "NaN or infinite"),
        ({}, {"quant_method": "awq", "version": "gemm"}, "qweight' is "),
        (
            {"model.layers.0.mlp.experts.0.qweight": torch.zeros(8, 64, dtype=torch.int32)},
            {},
            "no linear layer of",
        ),
    ],
)
def test_damaged_files_are_refused_in_one_line(
    changed: dict[str, torch.Tensor | None],
    fields: dict[str, Any],
    words: str,
    tiny_bases: dict[str, Path],
    tmp_path: Path,
) -> None:
    base, _ = make_int4(tiny_bases["llama"], tmp_path, "gptq")
    rewrite(base, changed, **fields)
    with pytest.raises(InputError, match=words) as caught:
        load(base, fields.get("quant_method", "gptq"))
    assert "\n" not in str(caught.value)


def test_its_own_forward_pads_and_packs_as_the_dense_models(bases: dict[str, tuple[Path, Path]]) -> None:
    base, twin = bases["awq"]
    batch = pack(examples())
    losses = [Decoder(load(*each)).loss_sum(batch).item() for each in ((base, "awq"), (twin, "none"))]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_layers_are_put_together_from_several_files(
    bases: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(bases["awq-small"][0], tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    whole = load(base, "awq", lora=False)
    (base / "model.safetensors").unlink()
    names = {"model-1.safetensors": sorted(tensors)[::2], "model-2.safetensors": sorted(tensors)[1::2]}
    for file, chosen in names.items():
        save_file({name: tensors[name] for name in chosen}, base / file, metadata={"format": "pt"})
    listed = {name: file for file, chosen in names.items() for name in chosen}
    index = {"metadata": {"total_size": 0}, "weight_map": listed}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.clear_caches()
    divided = load(base, "awq", lora=False)
    for name, layer in whole.named_modules():
        if isinstance(layer, Int4Linear):
            same = divided.get_submodule(name)
            assert torch.equal(same.dequantized(torch.float32), layer.dequantized(torch.float32)), name
