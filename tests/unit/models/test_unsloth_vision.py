"""Unsloth's backend of vision-language models: what is decided before a GPU is needed.

Unsloth can't be imported without a GPU: the arguments are compared with its signatures, recorded from 2026.10.9, and
with those of its source where it is installed.
"""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import refused
from tiny_vision_models import build_vision_base

from medqlora.errors import InputError
from medqlora.models import LoRA, Unsloth, UnslothVision, VisionLanguage
from medqlora.models.shares import adapted_names
from medqlora.models.transformers import skeleton
from medqlora.models.vision.parts import outside_linear

#: of the functions of `FastLanguageModel` and `FastVisionModel`: the arguments that are passed here
RECORDED = {
    "from_pretrained": {
        "model_name", "revision", "max_seq_length", "dtype", "load_in_4bit", "load_in_16bit", "device_map",
        "use_gradient_checkpointing", "random_state", "use_exact_model_name", "quantization_config",
    },
    "get_peft_model": {
        "r", "lora_alpha", "lora_dropout", "target_modules", "bias", "use_gradient_checkpointing", "random_state",
        "use_rslora", "init_lora_weights", "max_seq_length",
    },
    "post_patch_model": {"model", "use_gradient_checkpointing"},
    "for_training": {"model"},
    "for_inference": {"model"},
}  # fmt: skip
#: taken by `**kwargs`, and read from there
_FROM_KWARGS = {"quantization_config"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_vision_base(tmp_path_factory.mktemp("unsloth") / "base", "qwen2_5_vl"))


def arguments(backend: Any) -> dict[str, set[str]]:
    loading = backend.loading(backend.base, device=torch.device("cpu"), dtype=torch.bfloat16, seed=0)
    return {"from_pretrained": {*loading}, "get_peft_model": {*backend.adapting(LoRA(r=4), seed=0)}}


def test_the_arguments_are_those_of_the_recorded_signatures(base: str) -> None:
    for name, given in arguments(UnslothVision(base)).items():
        assert given == RECORDED[name]
    text = arguments(Unsloth(base))
    assert text["from_pretrained"] == RECORDED["from_pretrained"] - {"quantization_config"}
    assert text["get_peft_model"] == RECORDED["get_peft_model"]


def test_the_recorded_signatures_are_those_of_the_installed_source() -> None:
    spec = find_spec("unsloth")
    if spec is None or spec.origin is None:
        pytest.skip("Unsloth is not installed")
    models = Path(spec.origin).parent / "models"
    found: dict[str, set[str]] = {}
    for file, owner in (
        ("vision.py", "FastBaseModel"),
        ("loader.py", "FastModel"),
    ):  # the later one overrides
        tree = ast.parse((models / file).read_text("utf-8"))
        kind = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner)
        for function in kind.body:
            if isinstance(function, ast.FunctionDef) and function.name in RECORDED:
                names = {one.arg for one in [*function.args.args, *function.args.kwonlyargs]}
                passes_on = function.args.vararg is not None and "model_name" not in names
                found[function.name] = found[function.name] if passes_on else names
    for name, recorded in RECORDED.items():
        assert recorded - _FROM_KWARGS <= found[name], name


@pytest.mark.parametrize("options", [{}, {"adapt_projector": True}, {"adapt_vision": True}])
def test_the_adapted_layers_are_those_of_the_transformers_backend(
    base: str, options: dict[str, bool]
) -> None:
    model = VisionLanguage(base, quantization="none", **options).load(
        lora=LoRA(r=2), adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )
    named = UnslothVision(base, **options).adapting(LoRA(r=2), seed=0)["target_modules"]
    assert isinstance(named, list)
    assert {*named} == adapted_names(model)
    assert len({*named}) == len(named)


def test_the_layers_outside_the_language_model_are_left_out_by_their_full_names(base: str) -> None:
    backend = UnslothVision(base)
    loading = backend.loading(base, device=torch.device("cpu"), dtype=torch.bfloat16, seed=0)
    left_out = loading["quantization_config"].llm_int8_skip_modules  # type: ignore[attr-defined]
    modules = skeleton(backend.config(), base, "AutoModelForImageTextToText")
    assert {*left_out} == {*outside_linear(modules)}
    assert {"lm_head", "model.visual.blocks.0.attn.qkv", "model.visual.merger.mlp.0"} < {*left_out}
    none = UnslothVision(base, quantization="none")
    assert "quantization_config" not in none.loading(
        base, device=torch.device("cpu"), dtype=torch.bfloat16, seed=0
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_unsloth_or_a_gpu_one_line_names_the_backend_to_use(
    base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model.backend=medqlora.models.UnslothVision", f"--model.backend.base={base}"]
    line = refused(capsys, "fit", *words, reads=True)
    assert "--model.backend medqlora.models.UnslothVision" in line
    assert "use medqlora.models.VisionLanguage" in line
    with pytest.raises(InputError, match=r"use medqlora\.models\.VisionLanguage"):
        UnslothVision(base).check(LoRA(), device=torch.device("cpu"), precision="bf16-mixed")


def test_what_unsloth_can_not_do_is_refused_before_a_weight_is_loaded(
    tiny_bases: dict[str, Path], base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import alone is replaced: it needs a GPU."""
    monkeypatch.setattr("medqlora.models.unsloth.import_unsloth", lambda backend="Unsloth": None)
    gpu = torch.device("cuda:0")

    def refusal(backend: UnslothVision, lora: LoRA | None = None, precision: str = "bf16-mixed") -> str:
        with pytest.raises(InputError) as caught:
            backend.check(lora or LoRA(), device=gpu, precision=precision)
        return str(caught.value)

    monkeypatch.setattr("medqlora.models.unsloth_vision.find_spec", lambda name: None)
    assert "Unsloth's processors need torchvision" in refusal(UnslothVision(base))
    monkeypatch.setattr("medqlora.models.unsloth_vision.find_spec", lambda name: name)
    UnslothVision(base).check(LoRA(), device=gpu, precision="16-mixed")
    gemma = str(build_vision_base(tmp_path / "gemma", "gemma3"))
    assert "Unsloth runs gemma3 in bfloat16: use bf16-mixed" in refusal(
        UnslothVision(gemma), precision="16-mixed"
    )
    assert "reads text alone" in refusal(UnslothVision(str(tiny_bases["llama"])))
    assert "target_modules" in refusal(UnslothVision(base), LoRA(target_modules=["no_proj"]))
    assert "Unsloth has no DoRA: use medqlora.models.VisionLanguage" in refusal(
        UnslothVision(base), LoRA(use_dora=True)
    )
    assert "--model.lora.init eva" in refusal(UnslothVision(base), LoRA(init="eva"))
