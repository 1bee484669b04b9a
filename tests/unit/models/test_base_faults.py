"""A missing or damaged file of a base is named with its fix, before a weight is loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from base_files import LFS, WEIGHTS, change, check, load, logits, refused, save, shard
from harness import options
from safetensors.torch import load_file

from medqlora import cli
from medqlora.models import hub


def no_weights(base: Path) -> None:
    (base / WEIGHTS).unlink()


def gguf_beside_the_config(base: Path) -> None:
    (base / WEIGHTS).rename(base / "model-q4_k_m.gguf")


def gguf_alone(base: Path) -> None:
    gguf_beside_the_config(base)
    (base / "config.json").unlink()


def other_name(base: Path) -> None:
    (base / WEIGHTS).rename(base / "consolidated.safetensors")


def original_checkpoint(base: Path) -> None:
    (base / WEIGHTS).rename(base / "consolidated.00.pth")


def cut(base: Path) -> None:
    (base / WEIGHTS).write_bytes((base / WEIGHTS).read_bytes()[:-1000])


def cut_in_the_header(base: Path) -> None:
    (base / WEIGHTS).write_bytes((base / WEIGHTS).read_bytes()[:500])


def empty(base: Path) -> None:
    (base / WEIGHTS).write_bytes(b"")


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
    (base / WEIGHTS).unlink()
    (base / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')


def pointer(name: str) -> Callable[[Path], None]:
    def spoil(base: Path) -> None:
        (base / name).write_bytes(LFS)

    spoil.__name__ = f"pointer {name}"
    return spoil


def torch_pointer(base: Path) -> None:
    (base / WEIGHTS).unlink()
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
    save(base, {name: value.to(torch.int8) for name, value in load_file(base / WEIGHTS).items()})


def float8_with_scales(base: Path) -> None:
    tensors = load_file(base / WEIGHTS)
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
    (pointer(WEIGHTS), ("model.safetensors' is a Git LFS pointer", "git lfs pull")),
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
    hub.clear_caches()
    check(base)
    assert torch.equal(logits(load(base, None)), expected)
