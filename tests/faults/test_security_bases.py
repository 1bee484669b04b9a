"""Bases and configurations from strangers: whatever they name, none of their code runs."""

import ast
import shutil
from pathlib import Path

import pytest
from harness import options, run
from strangers import Refused, changed, harmful, harmful_base, harmful_file

from medqlora import cli
from medqlora.errors import InputError
from medqlora.models import hub

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.yaml")


# ---- bases -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["strange", "vit"], ids=["unknown", "known, but no language model"])
def test_a_base_with_code_of_its_own_is_refused_whatever_is_answered_on_the_terminal(
    refused: Refused,
    tiny_bases: dict[str, Path],
    tmp_path: Path,
    stranger: str,
    mark: Path,
    model_type: str,
) -> None:
    base = harmful_base(tiny_bases["llama"], tmp_path / "base", mark, model_type=model_type)
    for command in ("fit", "test", "plan"):
        line = refused(command, *options(base, tmp_path))
        assert f"--model.backend.base: '{base}' brings Python code of its own (auto_map)" in line


def test_a_tokenizer_with_code_of_its_own_is_refused(
    refused: Refused, tiny_bases: dict[str, Path], tmp_path: Path, stranger: str, mark: Path
) -> None:
    base = shutil.copytree(tiny_bases["llama"], tmp_path / "base")
    (base / "stranger.py").write_text(harmful(mark), encoding="utf-8")
    own = {"tokenizer_class": "StrangeTokenizer", "auto_map": {"AutoTokenizer": ["stranger.Tokenizer", None]}}
    changed(base / "tokenizer_config.json", **own)
    changed(base / "config.json", model_type="strange")
    line = refused("fit", *options(base, tmp_path))
    assert line.startswith(f"--model.backend.base: {base}")
    with pytest.raises(InputError, match=r"brings Python code of its own|no tokenizer can be loaded"):
        hub.load_tokenizer(str(base))


def test_a_known_family_is_loaded_with_transformers_own_class_and_no_code_of_the_base(
    tiny_bases: dict[str, Path], tmp_path: Path, stranger: str, mark: Path
) -> None:
    base = harmful_base(tiny_bases["llama"], tmp_path / "base", mark)
    words = [*options(base, tmp_path), "--trainer.max_steps=1"]
    assert run("fit", words).trainer.global_step == 1


def test_pickled_weights_of_a_base_run_nothing(
    tiny_bases: dict[str, Path], tmp_path: Path, mark: Path
) -> None:
    base = shutil.copytree(tiny_bases["llama"], tmp_path / "base")
    (base / "model.safetensors").unlink()
    harmful_file(base / "pytorch_model.bin", "zip", mark)
    words = [*options(base, tmp_path), "--trainer.max_steps=1"]
    assert cli.main(["fit", *words]) in (1, 2)


def test_trust_remote_code_is_never_passed_on() -> None:
    false = 0
    for file in sorted((ROOT / "medqlora").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant), where
                assert node.value.value is False, where
                false += 1
            # nor in a dictionary, a parameter or an attribute, by which it could come from an option
            if isinstance(node, ast.Dict):
                keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
                assert "trust_remote_code" not in keys, where
            assert not (isinstance(node, ast.arg) and node.arg == "trust_remote_code"), where
            assert not (isinstance(node, ast.Attribute) and node.attr == "trust_remote_code"), where
    # a configuration's and a tokenizer's, the first that is read of a base, and an image processor's
    assert false == 3


@pytest.mark.parametrize(
    "extra",
    [
        "init_args: {base: x, trust_remote_code: true}",
        "init_args: {base: x}, dict_kwargs: {trust_remote_code: true}",
    ],
)
def test_trust_remote_code_is_no_option(refused: Refused, tmp_path: Path, extra: str) -> None:
    line = refused(
        "fit",
        *configured(tmp_path, f"model: {{backend: {{class_path: medqlora.models.Transformers, {extra}}}}}"),
    )
    assert "has no option 'trust_remote_code'" in line


# ---- configurations ----------------------------------------------------------------------------------


def configured(folder: Path, text: str) -> list[str]:
    path = folder / "mine.yaml"
    path.write_text(f"{text}\n", encoding="utf-8")
    return [f"--config={DEMO}", f"--config={path}", f"--trainer.default_root_dir={folder}"]


OTHER_TYPES = {
    "a backend that is a process": "model: {{backend: {popen}}}",
    "a backend that is a function": "model: {{backend: {{class_path: os.system}}}}",
    "an optimizer that is a process": "model: {{optimizer: {popen}}}",
    "an optimizer that is a function": "model: {{optimizer: os.system}}",
    "an optimizer with a function's options": "model: {{optimizer: {system}}}",
    "an optimizer whose class is a function": "model: {{optimizer: {{class_path: shutil.rmtree, init_args: {{}}}}}}",
    "an optimizer that returns one": "model: {{optimizer: {{class_path: strangers.makes_an_optimizer}}}}",
    "a source that is a function": "data: {{source: {{class_path: builtins.exec}}}}",
    "a source that is a process": "data: {{source: {popen}}}",
    "a benchmark that is a process": "data: {{benchmarks: [{popen}]}}",
    "a callback that is a process": "trainer: {{callbacks: [{popen}]}}",
    "a callback that calls a function": (
        "trainer: {{callbacks: [{{class_path: lightning.pytorch.callbacks.LambdaCallback, "
        "init_args: {{on_fit_start: os.system}}}}]}}"
    ),
    "a logger that is a process": "trainer: {{logger: {popen}}}",
    "a plugin that is a process": "trainer: {{plugins: [{popen}]}}",
    "a strategy that is a process": "trainer: {{strategy: {popen}}}",
    "a profiler that is a process": "trainer: {{profiler: {popen}}}",
    "an accelerator that is a process": "trainer: {{accelerator: {popen}}}",
}


@pytest.mark.parametrize("text", OTHER_TYPES.values(), ids=OTHER_TYPES)
def test_a_configuration_names_classes_of_the_expected_types_alone(
    refused: Refused, tmp_path: Path, mark: Path, text: str
) -> None:
    popen = f"{{class_path: subprocess.Popen, init_args: {{args: [touch, {mark}]}}}}"
    system = f"{{class_path: os.system, init_args: {{command: touch {mark}}}}}"
    refused("fit", *configured(tmp_path, text.format(popen=popen, system=system)))
    assert not (tmp_path / "lightning_logs").exists()


def test_on_the_command_line_as_in_a_file(refused: Refused, tmp_path: Path, mark: Path) -> None:
    words = [f"--config={DEMO}", f"--trainer.default_root_dir={tmp_path}"]
    line = refused("fit", *words, "--model.optimizer=os.system", f"--model.optimizer.command=touch {mark}")
    assert "model.optimizer" in line


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {mark}']",
        "!!python/object/new:subprocess.Popen [[touch, '{mark}']]",
        "!!python/name:os.system",
        "!!python/module:antigravity",
    ],
)
def test_tags_of_python_are_refused(refused: Refused, tmp_path: Path, mark: Path, tag: str) -> None:
    line = refused("fit", *configured(tmp_path, f"model:\n  learning_rate: {tag.format(mark=mark)}"))
    assert line.startswith(f"{tmp_path / 'mine.yaml'}:2: not YAML")
    refused(
        "fit",
        f"--config={DEMO}",
        f"--model.learning_rate={tag.format(mark=mark)}",
        f"--trainer.default_root_dir={tmp_path}",
    )


@pytest.mark.parametrize("path", ["torch.optim.AdamW", "torch.optim.SGD"])
def test_an_optimizers_class_is_taken(tmp_path: Path, path: str, tiny_bases: dict[str, Path]) -> None:
    cli_ = run(
        "fit", [*options(tiny_bases["llama"], tmp_path), f"--model.optimizer={path}", "--trainer.max_steps=1"]
    )
    assert type(cli_.trainer.optimizers[0]).__name__.endswith(path.rsplit(".", 1)[1])
