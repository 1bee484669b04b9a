"""A base is loaded alone, whole and finite, or refused in a line that names the file and the fix."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from harness import options
from safetensors.torch import load_file, save_file
from test_adapter_fit import load, logits, make_adapter
from tiny import hub_cache

from medqlora import cli
from medqlora.errors import InputError
from medqlora.models import LoRA, Transformers, hub
from medqlora.models.finite import is_finite
from medqlora.models.token_ids import check_token_ids

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d2\nsize 460640\n"
_WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _no_memory_of_other_tests() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    for cached in (hub.load_config, hub.load_tokenizer, hub.identity, hub.remarks):
        cached.cache_clear()


@pytest.fixture
def base(tiny_bases: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(tiny_bases["llama"], tmp_path / "base"))


def check(base: Path | str, quantization: Any = "nf4") -> Transformers:
    """What every command does before it loads."""
    backend = Transformers(str(base), quantization=quantization, gradient_checkpointing=False)
    backend.check(LoRA(r=4), device=torch.device("cpu"), precision="32-true")
    backend.check_files()
    backend.tokenizer()
    backend.identity()
    return backend


def refused(base: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        check(base)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("--model.backend.base: ")
    return str(caught.value)


def change(file: Path, **changes: Any) -> None:
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def shard(base: Path) -> list[Path]:
    """The base's weights in three files and their index, as a large model has them."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    (base / _WEIGHTS).unlink()
    model.save_pretrained(base, max_shard_size="200KB")
    return sorted(base.glob("model-*.safetensors"))


# ---- the base alone --------------------------------------------------------------------------------


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("weights", [True, False])
def test_an_adapter_in_a_bases_folder_is_not_put_on_and_said(
    base: Path, weights: bool, quantization: str
) -> None:
    bare, identity = logits(load(base, None, quantization)), hub.identity(str(base))
    trainable = check(base, quantization).load(
        lora=LoRA(r=4), adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )
    expected = [name for name, _ in trainable.named_parameters()]
    make_adapter(base, base)
    if not weights:
        (base / "adapter_model.safetensors").unlink()
    forget()
    backend = check(base, quantization)
    assert backend.remarks() == (
        f"Note: '{base}' also holds adapter_config.json; the base alone is used, without that adapter",
    )
    model = load(base, None, quantization)
    assert torch.equal(logits(model), bare)
    assert not any("lora_" in name for name, _ in model.named_parameters())
    assert backend.identity() == identity
    again = backend.load(
        lora=LoRA(r=4), adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )
    assert [name for name, _ in again.named_parameters()] == expected


def test_the_handed_base_with_an_adapter_is_the_good_one(cases: Path) -> None:
    good, other = cases / "models" / "good", cases / "models" / "merged_with_adapter"
    assert torch.equal(logits(load(other, None)), logits(load(good, None)))
    assert hub.identity(str(other)) == hub.identity(str(good))


def test_the_hubs_base_with_an_adapter_is_loaded_alone_too(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = logits(load(base, None))
    make_adapter(base, base)
    hub_cache(tmp_path / "hub", "owner/with-adapter", base)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    backend = check("owner/with-adapter")
    assert "the base alone is used" in backend.remarks()[0]
    assert torch.equal(logits(load(Path("owner/with-adapter"), None)), bare)


def test_a_loader_that_takes_any_adapter_gets_a_folder_without(base: Path) -> None:
    with hub.bare_folder(str(base)) as place:
        assert place == str(base)
    make_adapter(base, base)
    with hub.bare_folder(str(base)) as place:
        names = {file.name for file in Path(place).iterdir()}
        assert (Path(place) / _WEIGHTS).read_bytes() == (base / _WEIGHTS).read_bytes()
    assert names == {file.name for file in base.iterdir() if not file.name.startswith("adapter_")}
    assert not Path(place).exists()


# ---- folders that are no base ----------------------------------------------------------------------


def test_an_adapter_given_as_base_is_told_with_both_options(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "adapter")
    expected = (
        f"--model.backend.base: '{adapter}' is an adapter (of the base '{base}'), not a base: pass --model.adapter "
        f"{adapter} and --model.backend.base {base}"
    )
    assert refused(adapter) == expected
    shutil.copy(base / "config.json", adapter)  # as some trainers leave it
    forget()
    assert refused(adapter) == expected


def test_an_adapter_of_the_hub_given_as_base_is_told(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_cache(tmp_path / "hub", "owner/adapter", make_adapter(base, tmp_path / "adapter"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "'owner/adapter' is an adapter (of the base" in refused("owner/adapter")


def test_a_runs_folder_a_file_and_a_folder_around_the_base_are_told(base: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "version_0"
    make_adapter(base, run_folder / "adapter")
    assert f"'{run_folder / 'adapter'}' is an adapter" in refused(run_folder)
    assert refused(base / _WEIGHTS).endswith("is a file: give its folder")
    around = tmp_path / "around"
    shutil.copytree(base, around / "model")
    assert f"did you mean '{around / 'model'}'?" in refused(around)
    snapshot = hub_cache(tmp_path / "hub", "owner/name", base)
    assert f"did you mean '{snapshot}'?" in refused(snapshot.parents[1])


# ---- files that are missing or damaged -------------------------------------------------------------


def no_weights(base: Path) -> None:
    (base / _WEIGHTS).unlink()


def gguf_beside_the_config(base: Path) -> None:
    (base / _WEIGHTS).rename(base / "model-q4_k_m.gguf")


def gguf_alone(base: Path) -> None:
    gguf_beside_the_config(base)
    (base / "config.json").unlink()


def other_name(base: Path) -> None:
    (base / _WEIGHTS).rename(base / "consolidated.safetensors")


def original_checkpoint(base: Path) -> None:
    (base / _WEIGHTS).rename(base / "consolidated.00.pth")


def cut(base: Path) -> None:
    (base / _WEIGHTS).write_bytes((base / _WEIGHTS).read_bytes()[:-1000])


def cut_in_the_header(base: Path) -> None:
    (base / _WEIGHTS).write_bytes((base / _WEIGHTS).read_bytes()[:500])


def empty(base: Path) -> None:
    (base / _WEIGHTS).write_bytes(b"")


def missing_shard(base: Path) -> None:
    shard(base)[1].unlink()


def cut_shard(base: Path) -> None:
    file = shard(base)[-1]
    file.write_bytes(file.read_bytes()[:-1])


def shard_pointer(base: Path) -> None:
    shard(base)[0].write_bytes(LFS)


def no_index(base: Path) -> None:
    shard(base)
    (base / "model.safetensors.index.json").unlink()


def broken_index(base: Path) -> None:
    shard(base)
    (base / "model.safetensors.index.json").write_text('{"weight_map": ')


def index_pointer(base: Path) -> None:
    shard(base)
    (base / "model.safetensors.index.json").write_bytes(LFS)


def missing_torch_shard(base: Path) -> None:
    (base / _WEIGHTS).unlink()
    (base / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')


def pointer(name: str) -> Callable[[Path], None]:
    def spoil(base: Path) -> None:
        (base / name).write_bytes(LFS)

    spoil.__name__ = f"pointer {name}"
    return spoil


def torch_pointer(base: Path) -> None:
    (base / _WEIGHTS).unlink()
    (base / "pytorch_model.bin").write_bytes(LFS)


def unknown_family(base: Path) -> None:
    change(base / "config.json", model_type="no-such-family")


def no_family(base: Path) -> None:
    change(base / "config.json", model_type=None)


def text_for_a_number(base: Path) -> None:
    change(base / "config.json", hidden_size="sixty-four")


def html(base: Path) -> None:
    (base / "config.json").write_text("<!DOCTYPE html><html>Sign in</html>")


def no_tokenizer(base: Path) -> None:
    for file in base.glob("*token*"):
        file.unlink()


def broken_tokenizer(base: Path) -> None:
    (base / "tokenizer.json").write_text('{"version": "1.0", "model": ')


def other_tokenizer(base: Path) -> None:
    file = base / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["another"] = 100_000
    file.write_text(json.dumps(content))


def unknown_rope(base: Path) -> None:
    change(base / "config.json", rope_scaling={"type": "no-such-rope", "factor": 2})


def unknown_activation(base: Path) -> None:
    change(base / "config.json", hidden_act="no-such-activation")


def no_key_heads(base: Path) -> None:
    change(base / "config.json", num_key_value_heads=0)


def integers(base: Path) -> None:
    """An int8 copy whose config.json has lost its quantization_config."""
    save(base, {name: value.to(torch.int8) for name, value in load_file(base / _WEIGHTS).items()})


def float8_with_scales(base: Path) -> None:
    tensors = load_file(base / _WEIGHTS)
    name = "model.layers.0.mlp.up_proj.weight"
    scales = {f"{name}_scale_inv": torch.ones(1, 1), name: tensors[name].to(torch.float8_e4m3fn)}
    save(base, {**tensors, **scales})


FAULTS: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (no_weights, ("holds no weights (model.safetensors)", "copy or download")),
    (gguf_beside_the_config, ("GGUF alone (model-q4_k_m.gguf)", "gguf.dequantize", "safetensors model")),
    (gguf_alone, ("GGUF alone (model-q4_k_m.gguf)", "gguf.dequantize")),
    (other_name, ("holds consolidated.safetensors but no model.safetensors", "rename it")),
    (original_checkpoint, ("holds consolidated.00.pth but no model.safetensors", "safetensors format")),
    (cut, ("model.safetensors' is not a whole safetensors file (", "copy or download it again")),
    (cut_in_the_header, ("model.safetensors' is not a whole safetensors file",)),
    (empty, ("model.safetensors' is not a whole safetensors file",)),
    (
        missing_shard,
        ("lacks 1 of the 3 weight files that model.safetensors.index.json lists", "model-00002-of"),
    ),
    (cut_shard, ("model-00003-of-00003.safetensors' is not a whole safetensors file",)),
    (shard_pointer, ("model-00001-of-00003.safetensors' is a Git LFS pointer", "git lfs pull")),
    (no_index, ("holds 3 weight files", "no model.safetensors.index.json")),
    (broken_index, ("model.safetensors.index.json' is not a JSON object",)),
    (index_pointer, ("model.safetensors.index.json' is a Git LFS pointer", "git lfs pull")),
    (missing_torch_shard, ("lacks 1 of the 1 weight files that pytorch_model.bin.index.json lists",)),
    (pointer(_WEIGHTS), ("model.safetensors' is a Git LFS pointer", "git lfs pull")),
    (pointer("config.json"), ("config.json' is a Git LFS pointer", "git lfs pull")),
    (pointer("tokenizer.json"), ("tokenizer.json' is a Git LFS pointer", "git lfs pull")),
    (pointer("tokenizer_config.json"), ("tokenizer_config.json' is a Git LFS pointer",)),
    (torch_pointer, ("pytorch_model.bin' is a Git LFS pointer",)),
    (unknown_family, ("config.json can't be used (", "no-such-family")),
    (no_family, ("config.json can't be used (", "model_type")),
    (text_for_a_number, ("config.json can't be used (", "hidden_size")),
    (html, ("config.json can't be used (",)),
    (no_tokenizer, ("no tokenizer can be loaded from", "copy the base's tokenizer.json")),
    (broken_tokenizer, ("no tokenizer can be loaded from", "copy the base's tokenizer.json")),
    (unknown_rope, ("can be built from the config.json", "no-such-rope", "copy the base's own config.json")),
    (unknown_activation, ("can be built from the config.json", "no-such-activation")),
    (no_key_heads, ("can be built from the config.json", "ZeroDivisionError")),
    (integers, ("is quantized (I8), and config.json has no quantization_config", "copy the base's own")),
    (float8_with_scales, ("'model.layers.0.mlp.up_proj.weight' is quantized (F8_E4M3)",)),
    (other_tokenizer, ("token ids up to 100,000", "the tokenizer is another model's")),
]


@pytest.mark.parametrize(("spoil", "parts"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_missing_or_damaged_file_is_named_with_its_fix_before_a_weight_is_loaded(
    base: Path, spoil: Callable[[Path], None], parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(base)
    monkeypatch.setattr("safetensors.torch.load_file", lambda *_, **__: pytest.fail("weights were read"))
    line = refused(base)
    for part in parts:
        assert part in line
    assert str(base) in line


@pytest.mark.parametrize("spoil", [missing_shard, other_tokenizer])
def test_the_command_line_ends_with_2_and_that_line_and_leaves_no_run(
    base: Path, tmp_path: Path, spoil: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(base)
    assert cli.main(["test", *options(base, tmp_path), "--model.adapter=none"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("medqlora: error: --model.backend.base: ")
    assert "Traceback" not in "".join(lines)
    assert not list((tmp_path / "lightning_logs").glob("*"))


def test_whole_shards_and_torchs_own_format_are_taken(base: Path) -> None:
    expected = logits(load(base, None))
    shard(base)
    check(base)
    assert torch.equal(logits(load(base, None)), expected)
    tensors = {name: value for file in base.glob("model-*") for name, value in load_file(file).items()}
    for file in base.glob("model*"):
        file.unlink()
    torch.save(tensors, base / "pytorch_model.bin")
    forget()
    check(base)
    assert torch.equal(logits(load(base, None)), expected)


# ---- weights that don't make the model -------------------------------------------------------------


def refused_in_load(base: Path, quantization: str = "nf4") -> str:
    check(base, quantization)
    with pytest.raises(InputError) as caught:
        load(base, None, quantization)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save(base: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, base / _WEIGHTS, metadata={"format": "pt"})


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
    tensors = load_file(base / _WEIGHTS)
    name = next(name for name in tensors if part in name)
    tensors[name].view(-1)[7] = value
    save(base, tensors)
    assert refused_in_load(base, quantization) == (
        f"--model.backend.base: '{base / _WEIGHTS}': the tensor '{name}' holds NaN or infinite values: the weights "
        "are damaged; copy or download the base again"
    )


def test_nan_in_stored_4_bit_scales_is_found(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quantized"
    load(base, None, "nf4").save_pretrained(folder)
    for file in base.glob("token*"):
        shutil.copy(file, folder)
    load(folder, None, "nf4")
    tensors = load_file(folder / _WEIGHTS)
    name = next(name for name in sorted(tensors) if name.endswith("nested_absmax"))
    tensors[name][0] = torch.nan
    save(folder, tensors)
    forget()
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
    content: dict[str, Any] = dict(load_file(base / _WEIGHTS))
    (base / _WEIGHTS).unlink()
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
    tensors = load_file(base / _WEIGHTS)
    save(base, {name: value for name, value in tensors.items() if ".layers.1." not in name})
    line = refused_in_load(base, quantization)
    assert "lack 9 of the model's weights, the first 'model.layers.1." in line
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_weights_of_another_shape_are_told(base: Path, quantization: str) -> None:
    tensors = load_file(base / _WEIGHTS)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name][:-1].contiguous()
    save(base, tensors)
    assert "config.json says" in refused_in_load(base, quantization)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_weights_that_the_model_has_no_place_for_are_not_left_out(base: Path, quantization: str) -> None:
    tensors = load_file(base / _WEIGHTS)
    lora = {f"model.layers.0.self_attn.q_proj.lora_{half}.weight": torch.ones(2, 2) for half in "AB"}
    save(base, {**tensors, **lora})
    assert "hold LoRA weights beside the base's (2, the first 'model" in refused_in_load(base, quantization)
    save(base, tensors)
    change(base / "config.json", num_hidden_layers=1)
    forget()
    line = refused_in_load(base, quantization)
    assert "num_hidden_layers 1, and its weight files hold more, as 'model.layers.1." in line


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_further_tensors_that_are_no_layers_are_no_fault(base: Path, quantization: str) -> None:
    expected = logits(load(base, None, quantization))
    more = ("model.layers.0.self_attn.rotary_emb.inv_freq", "vision.layers.5.q_proj.weight")
    save(base, {**load_file(base / _WEIGHTS), **{name: torch.ones(2) for name in more}})
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
    forget()
    check(base, "none")
    assert torch.equal(logits(load(base, None)), expected)


# ---- tokens without a row --------------------------------------------------------------------------


def test_a_padding_token_without_a_row_is_replaced_and_said(base: Path) -> None:
    rows = json.loads((base / "config.json").read_text())["vocab_size"]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == rows
    tokenizer.save_pretrained(base)
    change(base / "config.json", pad_token_id=rows)  # then torch's embedding can't even be made
    backend = check(base)
    assert backend.remarks() == (
        f"Note: the padding token '[PAD]' of '{base}' is token {rows}, for which the embedding has no row: '</s>' "
        "pads instead",
    )
    assert backend.tokenizer().pad_token_id == backend.tokenizer().eos_token_id == 1
    load(base, None)


def test_the_handed_base_with_such_a_padding_token_is_tested_and_the_other_one_said_once(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(cases / "models" / "pad_oob", tmp_path), "--model.adapter=none"]
    assert cli.main(["validate", *words]) == 0
    assert capsys.readouterr().out.count("Note: the padding token '[PAD]'") == 1


def test_an_added_token_without_a_row_is_said_and_refused_in_an_example(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["drug 1001", "never"])
    tokenizer.save_pretrained(base)
    backend = check(base)
    assert "no row for 2 added tokens of its tokenizer, the first 'drug 1001'" in backend.remarks()[0]
    check_token_ids(backend, [])
    assert cli.main(["fit", *options(base, tmp_path), "--trainer.max_steps=1"]) == 2
    shown = capsys.readouterr()
    assert shown.out.count(backend.remarks()[0]) == 1
    line = shown.err.strip().splitlines()[-1]
    assert line.startswith("medqlora: error: q1001: holds the token 'drug 1001' (")


def test_an_end_token_without_a_row_is_refused(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"eos_token": "<|end|>"})
    tokenizer.save_pretrained(base)
    line = refused(base)
    assert "the end token '<|end|>'" in line
    assert "set eos_token in tokenizer_config.json" in line
