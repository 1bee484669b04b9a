"""Merged weights against an independent merge in float64, PEFT's own merge, and the live model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from merge_models import live_model, saved
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, build_base
from torch import Tensor, nn

from medqlora.artifacts.merge.base_weights import BaseWeights, Quantized
from medqlora.artifacts.merge.live_model import LiveBase, weights_by_tensor
from medqlora.artifacts.merge.lora_update import read_update
from medqlora.artifacts.merge.merging import Merged, MergeOptions, merge_adapter
from medqlora.artifacts.merge.questions import test_questions as questions_to_test
from medqlora.artifacts.merge.questions import validation_questions
from medqlora.artifacts.merge.shards import ShardedFolder
from medqlora.artifacts.merge.whole_model import merge_model
from medqlora.data import SyntheticTrials
from medqlora.errors import InputError
from medqlora.models import LoRA, Transformers

CPU = torch.device("cpu")
#: families whose files can't be merged tensor by tensor -> fields of their configuration
OTHERS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "falcon": {"alibi": False, "head_dim": None},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "two layers": {"target_modules": ["q_proj", "down_proj"]},
}


def quantized_layers(model: Any, kind: str = "nf4") -> Quantized:
    """How a live model holds its layers, read from the model itself."""
    names = {
        name.removeprefix("base_model.model.").replace(".base_layer", "")
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt") and "lora" not in name
    }
    return Quantized(kind, True, torch.float32, frozenset(names))  # type: ignore[arg-type]


def merge(
    base: Path, adapter: Path, out: Path, quantized: Quantized | None, **options: Any
) -> tuple[dict[str, Tensor], Merged]:
    weights = BaseWeights(sorted(base.glob("*.safetensors")), quantized)
    folder = ShardedFolder(out, {"adapter": str(adapter)})
    merged = merge_adapter(weights, read_update(adapter), folder, MergeOptions(**options))
    folder.finish()
    tensors: dict[str, Tensor] = {}
    for file in out.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors, merged


def dequantized(layer: nn.Module) -> Tensor:
    """The matrix that a live 4-bit layer multiplies with, in float64."""
    from bitsandbytes.functional import dequantize_4bit

    weight: Any = layer.weight
    return dequantize_4bit(weight.data, weight.quant_state).double()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_merged_weight_is_the_live_layers_with_its_update(
    tmp_path: Path, tiny_bases: dict[str, Path], family: str, variant: str
) -> None:
    lora = VARIANTS[variant]
    model = live_model(tiny_bases[family], **lora)
    adapter = saved(model, tmp_path / "adapter")
    tensors, merged = merge(
        tiny_bases[family], adapter, tmp_path / "out", quantized_layers(model), dtype="float32"
    )
    assert merged.dtype == "float32"
    checked = 0
    for name, module in model.named_modules():
        if not getattr(module, "lora_A", None):
            continue
        clean = name.removeprefix("base_model.model.")
        a, b = (getattr(module, part)["default"].weight.double() for part in ("lora_A", "lora_B"))
        expected = dequantized(module.base_layer) + (6 / (4**0.5 if variant == "rslora" else 4)) * b @ a
        if variant == "dora":
            magnitude = module.lora_magnitude_vector["default"].weight.double()
            expected = magnitude[:, None] * expected / expected.norm(dim=1, keepdim=True)
        torch.testing.assert_close(tensors[f"{clean}.weight"].double(), expected, rtol=0, atol=2e-6)
        checked += 1
    assert checked == merged.changed > 0


def test_the_merged_folder_answers_as_the_live_model_and_as_pefts_own_merge(
    tmp_path: Path, tiny_bases: dict[str, Path]
) -> None:
    import shutil

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = tiny_bases["llama"]
    model = live_model(base)
    adapter = saved(model, tmp_path / "adapter")
    merge(base, adapter, tmp_path / "out", quantized_layers(model), dtype="float32")
    for name in ("config.json", "generation_config.json"):
        shutil.copy(base / name, tmp_path / "out" / name)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        live = model(input_ids=ids).logits
        ours = loaded(input_ids=ids).logits
        torch.testing.assert_close(ours, live, rtol=1e-4, atol=1e-4)
        backend = Transformers(str(base), gradient_checkpointing=False)
        bare: Any = backend.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0)
        whole: Any = PeftModel.from_pretrained(bare.dequantize(), str(adapter))
        theirs = whole.merge_and_unload()(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_alpha_and_rank_patterns_decide_for_the_layers_that_they_name(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = build_base(tmp_path / "base", layers=1)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"v_proj": 2},
        alpha_pattern={r"layers\.0\.self_attn\.v_proj": 3},
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(plain, config)
    adapter = saved(model, tmp_path / "adapter")
    tensors, _ = merge(base, adapter, tmp_path / "out", None, dtype="float32")
    expected = model.merge_and_unload().state_dict()
    for name in tensors:
        torch.testing.assert_close(tensors[name], expected[name])


def test_a_base_that_bitsandbytes_wrote_is_merged_as_the_one_that_is_quantized_on_load(
    tmp_path: Path, tiny_bases: dict[str, Path]
) -> None:
    base = tiny_bases["llama"]
    model = live_model(base)
    adapter = saved(model, tmp_path / "adapter")
    from_16_bits, _ = merge(base, adapter, tmp_path / "a", quantized_layers(model), dtype="float32")
    packed = tmp_path / "packed"
    Transformers(str(base), gradient_checkpointing=False).load(
        lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0
    ).save_pretrained(packed)  # type: ignore[operator]
    from_packed, _ = merge(packed, adapter, tmp_path / "b", None, dtype="float32")
    assert from_packed.keys() == from_16_bits.keys()
    for name, tensor in from_packed.items():
        assert torch.equal(tensor, from_16_bits[name]), name


@pytest.mark.parametrize("quantization", ["nf4", "fp4", "int8", "none"])
def test_every_quantization_is_merged_onto_its_own_values(
    tmp_path: Path, tiny_bases: dict[str, Path], quantization: str
) -> None:
    from transformers import AutoModelForCausalLM

    base = tiny_bases["llama"]
    model = live_model(base, quantization)
    adapter = saved(model, tmp_path / "adapter")
    merge(base, adapter, tmp_path / "out", quantized_layers(model, quantization), dtype="float32")
    (tmp_path / "out" / "config.json").write_bytes((base / "config.json").read_bytes())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        live, ours = model(input_ids=ids).logits, loaded(input_ids=ids).logits
    # int8 multiplies rounded inputs too
    tolerance = 0.2 if quantization == "int8" else 1e-4
    assert float((ours - live).norm() / live.norm()) < tolerance


@pytest.mark.parametrize(("factor", "dtype"), [(1.0, "float16"), (1e6, "bfloat16"), (1e-7, "bfloat16")])
def test_the_data_type_that_keeps_more_is_chosen(tmp_path: Path, factor: float, dtype: str) -> None:
    base = build_base(tmp_path / "base", layers=1)
    file = base / "model.safetensors"
    save_file({name: tensor * factor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    adapter = saved(live_model(build_base(tmp_path / "plain", layers=1), "none"), tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor * 0 for name, tensor in weights.items()}, adapter / "adapter_model.safetensors")
    tensors, merged = merge(base, adapter, tmp_path / "out", None)
    assert merged.dtype == dtype
    assert merged.overflowed == (factor == 1e6)
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
    if factor == 1e6:
        with pytest.raises(InputError, match=r"--dtype float16: a merged weight is larger than 65,504"):
            merge(base, adapter, tmp_path / "again", None, dtype="float16")


def test_an_adapter_of_another_base_is_refused_by_name_and_by_shape(tmp_path: Path) -> None:
    base = build_base(tmp_path / "base", layers=1)
    deeper = saved(live_model(build_base(tmp_path / "deep", layers=2), "none"), tmp_path / "adapter")
    with pytest.raises(
        InputError, match=r"--adapter: it changes model\.layers\.1\..* belongs to another base"
    ):
        merge(base, deeper, tmp_path / "out", None)
    wider = saved(
        live_model(build_base(tmp_path / "wide", layers=1, intermediate_size=160), "none"), tmp_path / "wider"
    )
    with pytest.raises(InputError, match=r"--adapter: its weights for model\.layers\.0\.mlp\.\w+ are \["):
        merge(base, wider, tmp_path / "out", None)


def test_a_killed_merge_goes_on_with_the_shards_that_it_finished(tmp_path: Path) -> None:
    base = build_base(tmp_path / "base", layers=2)
    adapter = saved(live_model(base), tmp_path / "adapter")
    quantized = quantized_layers(live_model(base))
    expected, _ = merge(base, adapter, tmp_path / "whole", quantized, shard_bytes=40_000)
    assert len(list((tmp_path / "whole").glob("*.safetensors"))) > 2
    weights = BaseWeights(sorted(base.glob("*.safetensors")), quantized)

    def stop(done: int, total: int) -> None:
        if done == total - 3:
            raise KeyboardInterrupt

    options = MergeOptions(shard_bytes=40_000)
    first = ShardedFolder(tmp_path / "out", {"adapter": str(adapter)})
    with pytest.raises(KeyboardInterrupt):
        merge_adapter(weights, read_update(adapter), first, options, stop)
    assert not (tmp_path / "out").exists()
    done = {path.name: path.stat().st_mtime_ns for path in first.partial.glob("*.safetensors")}
    assert done
    again = ShardedFolder(tmp_path / "out", {"adapter": str(adapter)})
    merge_adapter(weights, read_update(adapter), again, options)
    assert (
        done.items()
        <= {path.name: path.stat().st_mtime_ns for path in again.partial.glob("*.safetensors")}.items()
    )
    again.finish()
    tensors: dict[str, Tensor] = {}
    for file in (tmp_path / "out").glob("*.safetensors"):
        tensors |= load_file(file)
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_modules_that_count_as_quantized_are_the_live_models(
    tiny_bases: dict[str, Path], family: str
) -> None:
    base = LiveBase(str(tiny_bases[family]), None, "nf4", True, torch.float32)
    weights = weights_by_tensor(base)
    assert weights is not None
    model = live_model(tiny_bases[family])
    assert weights.quantized is not None
    assert weights.quantized.modules == quantized_layers(model).modules


@pytest.mark.parametrize("family", OTHERS)
def test_what_cannot_be_merged_by_tensor_is_merged_as_a_model(tmp_path: Path, family: str) -> None:
    base = build_base(tmp_path / "base", family, **OTHERS[family])
    backend = Transformers(str(base), gradient_checkpointing=False)
    model: Any = backend.load(lora=LoRA(r=4), adapter=None, device=CPU, dtype=torch.float32, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    adapter = saved(model.eval(), tmp_path / "adapter")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        live = model(input_ids=ids).logits
        plain = Transformers(str(base), "none", gradient_checkpointing=False)
        bare = plain.load(lora=None, adapter=None, device=CPU, dtype=torch.float32, seed=0)
        live_base = LiveBase(str(base), None, "nf4", True, torch.float32)
        assert weights_by_tensor(live_base) is None
        ours = merge_model(bare, live_base, adapter).eval()(input_ids=ids).logits
    torch.testing.assert_close(ours, live, rtol=1e-3, atol=1e-3)


def test_the_questions_of_every_source_are_found_by_its_record() -> None:
    source = SyntheticTrials(train=8, dev=4, test=3)
    splits = source.read()
    record = {"data": source.fingerprint(), "dev_ids": [one.id for one in splits.dev]}
    assert [one.id for one in validation_questions(record, "adapter")] == [one.id for one in splits.dev]
    assert len(questions_to_test(record, "adapter")) == 3
