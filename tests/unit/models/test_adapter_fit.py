"""An adapter fits a base tensor by tensor, or it is refused: before the base is loaded, and as it is put on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from base_files import backend, change_config, load, logits, make_adapter
from harness import options
from safetensors.torch import load_file, save_file
from torch import Tensor

from medqlora import cli
from medqlora.errors import InputError
from medqlora.models import Transformers

Tensors = dict[str, Tensor]
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


@pytest.fixture(scope="module")
def base(tiny_bases: dict[str, Path]) -> Path:
    return tiny_bases["llama"]


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that fits."""
    return make_adapter(base, tmp_path_factory.mktemp("adapters") / "whole")


@pytest.fixture
def adapter(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be changed."""
    return Path(shutil.copytree(whole, tmp_path / "adapter"))


def refused(base: Path, adapter: Path) -> str:
    """What both checks say, the early one and the one as it is put on."""
    with pytest.raises(InputError) as early:
        backend(base).check_adapter(str(adapter))
    with pytest.raises(InputError) as late:
        load(base, adapter)
    assert str(early.value) == str(late.value)
    assert "\n" not in str(early.value)
    return str(early.value)


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if part not in name}


def one_more_layer(tensors: Tensors) -> Tensors:
    more = {
        name.replace(".layers.1.", ".layers.2."): value.clone()
        for name, value in tensors.items()
        if ".layers.1." in name
    }
    return {**tensors, **more}


def wider(tensors: Tensors) -> Tensors:
    return {
        name: torch.cat([value, value], 1) if "q_proj.lora_A" in name else value
        for name, value in tensors.items()
    }


def one_twice(tensors: Tensors) -> Tensors:
    name = next(name for name in tensors if "lora_A.weight" in name)
    return {**tensors, name.replace("lora_A.weight", "lora_A.default.weight"): tensors[name] + 1}


# the whole adapter has 2 layers of 2 modules, A and B: 8 tensors
MISFITS = [
    pytest.param(renamed("model.layers", "model.language_model.layers"), 0, "other names", id="prefix"),
    pytest.param(renamed(_PREFIX, ""), 0, "other names", id="no prefix"),
    pytest.param(renamed(_PREFIX, "model."), 0, "other names", id="another library's prefix"),
    pytest.param(renamed("lora_A", "lora_a"), 4, "has no place for", id="another library's halves"),
    pytest.param(without(".layers.1."), 4, "the adapter has 1 layer, the base 2", id="fewer layers"),
    pytest.param(one_more_layer, 8, "the adapter has 3 layers, the base 2", id="more layers"),
    pytest.param(wider, 6, "other shapes", id="width"),
    pytest.param(without("layers.0.self_attn.q_proj.lora_B"), 7, "the other half of its pair", id="half"),
    pytest.param(without("down_proj"), 4, "the adapter lacks", id="module missing"),
    pytest.param(renamed("down_proj", "fc2"), 4, "has no place for", id="another model's module"),
    pytest.param(one_twice, 8, "stands twice", id="twice"),
]


@pytest.mark.parametrize(("change", "fit", "why"), MISFITS)
def test_an_adapter_with_a_tensor_that_lands_nowhere_or_a_place_left_empty_is_refused(
    base: Path, adapter: Path, change: Callable[[Tensors], Tensors], fit: int, why: str
) -> None:
    tensors = {name: value.contiguous() for name, value in change(load_file(adapter / _WEIGHTS)).items()}
    save_file(tensors, adapter / _WEIGHTS, metadata={"format": "pt"})
    line = refused(base, adapter)
    assert line.startswith(
        f"--model.adapter: {fit} of the {len(tensors)} tensors of '{adapter}' fit the base '{base}': "
    )
    assert why in line
    assert "pass the base that the adapter was trained on" in line


@pytest.mark.parametrize(
    ("changes", "fit", "why"),
    [
        ({"r": 8}, 0, "other shapes"),
        ({"target_modules": ["q_proj"]}, 4, "has no place for"),
        ({"target_modules": ["q_proj", "down_proj", "v_proj"]}, 8, "the adapter lacks"),
        ({"target_modules": ["query_key_value"]}, 0, "query_key_value"),
        ({"layers_to_transform": [0]}, 4, "has no place for"),
        ({"modules_to_save": ["lm_head"]}, 0, "which adapter_config.json says was trained"),
        ({"use_dora": True}, 8, "the adapter lacks"),
    ],
)
def test_a_configuration_that_asks_for_other_weights_than_the_file_holds_is_refused(
    base: Path, adapter: Path, changes: dict[str, Any], fit: int, why: str
) -> None:
    change_config(adapter, **changes)
    line = refused(base, adapter)
    assert line.startswith(f"--model.adapter: {fit} of the 8 tensors of ")
    assert why in line


@pytest.mark.parametrize(
    ("name", "fit", "why"),
    [
        ("peft_prefix", "0 of the 28", "other names"),
        ("peft_1layer", "14 of the 14", "the adapter has 1 layer, the base 2"),
        ("peft_4layers", "28 of the 56", "the adapter has 4 layers, the base 2"),
        ("peft_wide", "6 of the 28", "other shapes"),
    ],
)
def test_the_handed_adapters_are_refused(cases: Path, name: str, fit: str, why: str) -> None:
    line = refused(cases / "models" / "good", cases / "adapters" / name)
    assert fit in line
    assert why in line


@pytest.mark.parametrize(
    ("changes", "quantization"),
    [
        ({}, "nf4"),
        ({"modules_to_save": ["lm_head"]}, "nf4"),
        *[
            (one, "none")
            for one in [
                {},
                {"target_modules": "all-linear"},
                {"target_modules": r".*\.(q|v)_proj"},
                {"layers_to_transform": [1]},
                {"rank_pattern": {"q_proj": 2}, "use_rslora": True},
                {"use_dora": True},
                {"modules_to_save": ["lm_head"]},
                {"trainable_token_indices": {"embed_tokens": [3, 4]}},
                {"target_modules": ["q_proj", "embed_tokens"]},
                {"task_type": None},
            ]
        ],
    ],
)
@pytest.mark.filterwarnings("ignore")  # PEFT's, on saving unusual adapters
def test_whatever_lands_is_loaded_as_peft_loads_it(
    base: Path, tmp_path: Path, changes: dict[str, Any], quantization: str
) -> None:
    from peft import PeftModel

    adapter = make_adapter(base, tmp_path / "adapter", **changes)
    backend(base).check_adapter(str(adapter))
    ours = load(base, adapter, quantization)
    theirs = PeftModel.from_pretrained(load(base, None, quantization), str(adapter))
    assert torch.equal(logits(ours), logits(theirs))
    assert not torch.equal(logits(ours), logits(load(base, None, quantization)))


def test_names_that_hold_the_adapters_own_name_land_too(base: Path, adapter: Path) -> None:
    expected = logits(load(base, adapter))
    tensors = load_file(adapter / _WEIGHTS)
    save_file(renamed(".weight", ".default.weight")(tensors), adapter / _WEIGHTS, metadata={"format": "pt"})
    backend(base).check_adapter(str(adapter))
    assert torch.equal(logits(load(base, adapter)), expected)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_base_weights_in_an_adapters_file_go_when_the_adapter_is_disabled(
    base: Path, adapter: Path, quantization: str
) -> None:
    tensors, own = load_file(adapter / _WEIGHTS), load_file(base / "model.safetensors")
    name = "model.embed_tokens.weight"
    save_file({**tensors, _PREFIX + name: own[name] + 1}, adapter / _WEIGHTS, metadata={"format": "pt"})
    backend(base).check_adapter(str(adapter))
    model, bare = load(base, adapter, quantization), logits(load(base, None, quantization))
    before = logits(model)
    for _ in range(2):
        with model.disable_adapter():
            assert torch.equal(logits(model), bare)
        assert torch.equal(logits(model), before)
    assert not torch.equal(before, bare)


def test_an_embedding_of_an_enlarged_vocabulary_is_refused(base: Path, adapter: Path) -> None:
    tensors, own = load_file(adapter / _WEIGHTS), load_file(base / "model.safetensors")
    name = "model.embed_tokens.weight"
    rows = torch.cat([own[name], own[name][:1]])
    save_file({**tensors, _PREFIX + name: rows}, adapter / _WEIGHTS, metadata={"format": "pt"})
    line = refused(base, adapter)
    assert "8 of the 9 tensors" in line
    assert "other shapes" in line


def test_trained_biases_go_when_the_adapter_is_disabled(tiny_bases: dict[str, Path], tmp_path: Path) -> None:
    base = tiny_bases["qwen2"]  # its q, k and v have biases
    adapter = make_adapter(base, tmp_path / "adapter", bias="lora_only", target_modules=["q_proj"])
    assert any("bias" in name for name in load_file(adapter / _WEIGHTS))
    model = load(base, adapter)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(load(base, None)))


def test_an_adapter_with_nan_is_refused(base: Path, adapter: Path) -> None:
    tensors = load_file(adapter / _WEIGHTS)
    name = next(iter(tensors))
    tensors[name][0, 0] = torch.nan
    save_file(tensors, adapter / _WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(InputError, match="holds NaN or infinite values") as caught:
        load(base, adapter)
    assert name in str(caught.value)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_an_adapter_whose_loading_rewrites_the_base_is_refused(base: Path, adapter: Path, start: str) -> None:
    change_config(adapter, init_lora_weights=start)
    with pytest.raises(InputError, match="changes the base's own weights"):
        load(base, adapter)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication is set: it repeats layers of the base"),
        (
            {"alora_invocation_tokens": [9, 10]},
            "an activated LoRA acts only behind its own invocation tokens",
        ),
        ({"arrow_config": {"top_k": 1}}, "it chooses between further adapters"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, which is no finite number"),
        ({"lora_alpha": None}, "lora_alpha is None, which is no finite number"),
        ({"r": "4"}, "r is '4', which is no finite number"),
        ({"alpha_pattern": {"q_proj": float("inf")}}, "alpha_pattern 'q_proj' is inf"),
    ],
)
def test_a_configuration_that_would_give_other_numbers_than_the_adapters_is_refused(
    base: Path, adapter: Path, changes: dict[str, Any], why: str
) -> None:
    change_config(adapter, **changes)
    with pytest.raises(InputError) as caught:
        load(base, adapter)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_tensors_of_whole_numbers_are_refused(base: Path, adapter: Path, dtype: torch.dtype) -> None:
    tensors = {name: value.to(dtype) for name, value in load_file(adapter / _WEIGHTS).items()}
    save_file(tensors, adapter / _WEIGHTS, metadata={"format": "pt"})
    assert "no floating-point type" in refused(base, adapter)


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_the_command_line_refuses_before_it_loads_and_leaves_no_run(
    base: Path,
    adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    tensors = without(".layers.1.")(load_file(adapter / _WEIGHTS))
    save_file(tensors, adapter / _WEIGHTS, metadata={"format": "pt"})
    monkeypatch.setattr(Transformers, "load", lambda *_, **__: pytest.fail("the base was loaded"))
    assert cli.main([verb, *options(base, tmp_path), f"--model.adapter={adapter}"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("medqlora: error: --model.adapter: 4 of the 4 tensors of ")
    assert not list((tmp_path / "lightning_logs").glob("*"))


def test_ask_refuses_too(base: Path, adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = without("lora_B")(load_file(adapter / _WEIGHTS))
    save_file(tensors, adapter / _WEIGHTS, metadata={"format": "pt"})
    assert cli.main(["ask", "Does it help?", "--adapter", str(adapter), "--base", str(base)]) == 2
    assert "medqlora: error: --adapter: 4 of the 4 tensors of " in capsys.readouterr().err
