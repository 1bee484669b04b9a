"""Every shipped configuration is read and built, and the options that the documentation names are the command's."""

import contextlib
import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import option_cases
import pytest
import torch
import yaml

from medqlora import data, models
from medqlora.callbacks import AdapterCheckpoint, EvaluationReport, GPUMemory, StepProgress, Throughput
from medqlora.commands import run
from medqlora.commands.lightning_cli import MedQLoRACLI
from medqlora.commands.optimizer_option import take_names
from medqlora.retrieval.servers.description import described
from medqlora.training.optim import build_optimizer

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
DOCUMENTATION = "\n".join(
    [README, *(file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md")))]
)
WHOLE = {"demo.yaml", "demo_images.yaml", "qlora.yaml", "suite.yaml"}
OVERLAYS = sorted({path.name for path in CONFIGS.glob("*.yaml")} - WHOLE)
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BACKENDS = (
    models.Unsloth,
    models.Transformers,
    models.TinyLlama,
    models.VisionLanguage,
    models.TinyVision,
)
SOURCES = (
    data.PubMedQA,
    data.PubMedQAExtra,
    data.JSONLines,
    data.SyntheticTrials,
    data.MedQA,
    data.MedMCQA,
    data.MedicalMMLU,
    data.BioASQ,
    data.Mirage,
    data.ECGImages,
    data.PathVQA,
    data.SLAKE,
    data.SyntheticRadiographs,
    data.VQARAD,
)


def words(*configs: str) -> list[str]:
    return ["fit", *(f"--config={CONFIGS / name}" for name in configs)]


def build(folder: Path, *configs: str) -> MedQLoRACLI:
    """A GPU's accelerator and precision can't be built without one; the rest is as the files say."""
    here = ["--trainer.accelerator=cpu", "--trainer.precision=32", f"--trainer.default_root_dir={folder}"]
    return run.build([*words(*configs), *here])


@cache
def _parser(verb: str = "fit") -> Any:
    return run.build([verb, f"--config={CONFIGS / 'demo.yaml'}"])


def read(*configs: str) -> Any:
    """The options as the command reads them, with the files' own accelerator and precision."""
    return _parser().parser.parse_args(words(*configs)).fit


# ---- the files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "configs", [*((name,) for name in sorted(WHOLE)), *(("qlora.yaml", o) for o in OVERLAYS)]
)
def test_every_configuration_is_read_and_built(tmp_path: Path, configs: tuple[str, ...]) -> None:
    cli = build(tmp_path, *configs)
    assert isinstance(cli.model.backend, models.Backend)
    assert isinstance(cli.datamodule.source, data.Source)
    cli.datamodule.check()
    cli.model.lora.check()
    data.lookup(cli.datamodule.prompt_name)
    kinds = {type(callback) for callback in cli.trainer.callbacks}  # type: ignore[attr-defined]
    assert {AdapterCheckpoint, EvaluationReport, GPUMemory, StepProgress, Throughput} <= kinds
    assert list(tmp_path.iterdir()) == []


def test_the_demo_needs_neither_a_gpu_nor_the_network(tmp_path: Path) -> None:
    cli = build(tmp_path, "demo.yaml")
    assert isinstance(cli.model.backend, models.TinyLlama)
    assert isinstance(cli.datamodule.source, data.SyntheticTrials)
    options = read("demo.yaml")
    assert options.trainer.accelerator == "cpu"
    assert options.model.backend.init_args.quantization == "nf4"
    assert (options.model.lora.r, options.model.optimizer) == (16, "adamw_8bit")


def test_qlora_is_the_experiment_that_the_project_is_for(tmp_path: Path) -> None:
    cli = build(tmp_path, "qlora.yaml")
    module, source = cli.model, cli.datamodule
    backend: Any = module.backend
    assert isinstance(backend, models.Unsloth)
    assert (backend.base, backend.quantization) == ("unsloth/llama-3-8b-bnb-4bit", "nf4")
    assert backend.gradient_checkpointing
    assert (module.lora.r, module.lora.alpha, module.lora.target_modules) == (16, 32, SEVEN)
    assert (module.optimizer, module.learning_rate) == ("adamw_8bit", 2e-4)
    assert 0 < module.warmup_ratio < 0.2
    assert isinstance(source.source, data.PubMedQA)
    assert (source.batch_size, source.max_prompt_tokens, source.train_samples) == (8, 1024, None)
    assert backend.max_seq_length >= source.max_prompt_tokens + module.max_new_tokens
    assert cli.trainer.max_epochs == 3
    assert cli.trainer.checkpoint_callback.monitor == "val/accuracy"  # type: ignore[union-attr]
    trainer = read("qlora.yaml").trainer
    assert (trainer.accelerator, trainer.precision) == ("gpu", "16-mixed")


@pytest.mark.parametrize(
    ("overlay", "changed"),
    [
        ("bf16.yaml", {"trainer.precision": "bf16-mixed"}),
        ("colab_t4.yaml", {"data.train_samples": 200, "trainer.precision": "16-mixed"}),
        ("no_unsloth.yaml", {"model.backend.class_path": "medqlora.models.Transformers"}),
        ("mistral_7b.yaml", {"model.backend.init_args.base": "unsloth/mistral-7b-v0.3-bnb-4bit"}),
        ("qwen.yaml", {"data.prompt": "chat"}),
        ("deepseek_r1.yaml", {"data.prompt": "chat"}),
    ],
)
def test_an_overlay_changes_what_it_says_and_leaves_the_recipe(overlay: str, changed: dict[str, Any]) -> None:
    options = read("qlora.yaml", overlay)
    for name, value in changed.items():
        assert options[name] == value
    assert (options.model.lora.r, options.model.lora.alpha, options.model.lora.target_modules) == (
        16,
        32,
        SEVEN,
    )
    assert (options.trainer.max_epochs, options.data.batch_size, options.model.learning_rate) == (3, 8, 2e-4)
    assert options.model.backend.init_args.quantization == "nf4"


def test_the_suite_is_the_experiment_and_more_questions() -> None:
    suite, experiment = read("suite.yaml").as_dict(), read("qlora.yaml").as_dict()
    benchmarks = [one["class_path"].rsplit(".", 1)[1] for one in suite["data"].pop("benchmarks")]
    assert benchmarks == ["MedQA", "MedMCQA", "MedicalMMLU"]
    assert suite["model"].pop("generate") is False
    del experiment["model"]["generate"], experiment["data"]["benchmarks"]
    for group in ("model", "data", "trainer", "checkpoint", "seed_everything"):
        assert suite[group] == experiment[group], group


def test_every_overlay_says_how_it_is_composed() -> None:
    assert {"bf16.yaml", "colab_t4.yaml", "no_unsloth.yaml"} <= set(OVERLAYS)
    for name in OVERLAYS:
        text = (CONFIGS / name).read_text(encoding="utf-8")
        assert f"--config configs/qlora.yaml --config configs/{name}" in text


def test_an_optimizer_may_be_any_class(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {optimizer: {class_path: torch.optim.SGD, init_args: {momentum: 0.5}}}\n")
    given = [*words("demo.yaml"), f"--config={mine}", f"--trainer.default_root_dir={tmp_path}"]
    weight = torch.nn.Parameter(torch.zeros(2))
    chosen = run.build(given).model.optimizer
    optimizer = build_optimizer(chosen, [("weight", weight)], learning_rate=0.3, weight_decay=0.0)
    group = optimizer.param_groups[0]
    assert (type(optimizer).__name__, group["momentum"], group["lr"]) == ("SGD", 0.5, 0.3)


def test_the_parser_accepts_what_the_check_without_lightning_lets_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lists of `option_cases` are right: `tests/unit/config` holds that the check refuses none of them."""
    importlib.import_module("bitsandbytes.optim")  # it has an SGD too, as torch has
    monkeypatch.chdir(tmp_path)
    option_cases.write_parts(str(tmp_path))
    for number, text in enumerate(option_cases.FILES):
        Path(f"{number}.yaml").write_text(text, encoding="utf-8")
    for line in [
        *option_cases.LINES,
        *([f"--config={number}.yaml"] for number in range(len(option_cases.FILES))),
    ]:
        with contextlib.suppress(SystemExit):  # --print_config
            _parser().parser.parse_args(take_names([*words("demo.yaml"), *line]))


# ---- the documentation ------------------------------------------------------------------------------------

#: what looks like an option in the documentation, and is a file
FILES = {"report.html", "model.safetensors", "model.safetensors.index.json"}
#: options that take names of their own: columns, and a class's options
OPEN = ("data.source.fields.", "model.optimizer.", "trainer.callbacks.")
OURS = ("model", "data", "checkpoint", "average", "gpu_memory", "progress", "report", "throughput", "answers")


@cache
def our_options() -> dict[str, list[Any]]:
    """Every option of ours with its defaults; one that several classes have may have several."""
    names = [name for name in _parser().option_names() if name.split(".")[0] in OURS and "." in name]
    groups = {name.rpartition(".")[0] for name in names if not name.endswith(".help")}  # `model.lora`
    found = {
        name: [_parser().default_of(name)]
        for name in names
        if name not in groups and not name.endswith((".help", "+"))
    }
    for prefix, kinds in (("model.backend", BACKENDS), ("data.source", SOURCES)):
        for kind in kinds:
            for name, one in inspect.signature(getattr(kind, "options_type", kind)).parameters.items():
                found.setdefault(f"{prefix}.{name}", []).append(one.default)
    return found


def table() -> dict[str, list[str]]:
    """Option → the defaults that the reference's tables give, a row each: | `model.lora.r` | `16` | … |"""
    rows: dict[str, list[str]] = {}
    for name, default in re.findall(r"^\| `([\w.]+)` \| (required|`[^`|]*`) \|", REFERENCE, re.MULTILINE):
        rows.setdefault(name, []).append(default.strip("`"))
    return rows


def test_the_reference_has_every_option_of_ours() -> None:
    missing = our_options().keys() - table().keys()
    assert not missing


def test_the_documentation_names_no_option_that_is_not_there() -> None:
    known = {*our_options(), *_parser().option_names(), *_parser("test").option_names()}
    roots = "|".join((*OURS, "trainer"))
    named = set(re.findall(rf"(?:--|`)((?:{roots})(?:\.\w+)+)", DOCUMENTATION)) - FILES
    groups = {name.rsplit(".", 1)[0] for name in known}
    assert len(named) > 40
    assert not {name for name in named if name not in known | groups and not name.startswith(OPEN)}


def test_the_references_defaults_are_the_commands() -> None:
    for name, shown in table().items():
        verbs = (verb for verb in ("fit", "test", "predict") if name in _parser(verb).option_names())
        values = our_options().get(name) or [_parser(next(verbs)).default_of(name)]
        assert set(shown) == {_shown(name, value) for value in values}, name


def _shown(name: str, value: Any) -> str:
    if value is inspect.Parameter.empty or name in ("model.backend", "data.source"):
        return "required"
    if isinstance(value, float) and value == int(value):
        value = int(value)
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


def test_the_documentations_commands_name_configurations_and_verbs_that_exist() -> None:
    from medqlora.commands.registry import commands

    for name in re.findall(r"configs/\w+\.yaml", DOCUMENTATION):
        assert (ROOT / name).is_file(), name
    shown = re.findall(r"^\s*(?:\$ )?medqlora (\w+)", DOCUMENTATION, re.MULTILINE)
    assert shown
    assert set(shown) <= set(commands())


def test_the_documentations_configurations_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION, re.DOTALL)
    indexes = [block for block in blocks if "medqlora.retrieval." in block]  # on a server, not a fit's
    assert len(indexes) < len(blocks)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root-ca.pem").touch()
    for block in blocks:
        (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
        if block in indexes:
            assert described(tmp_path / "mine.yaml", "--index").name
            continue
        options = (
            _parser().parser.parse_args([*words("qlora.yaml"), f"--config={tmp_path / 'mine.yaml'}"]).fit
        )
        assert options.data.source.class_path == "medqlora.data.JSONLines"


def test_the_readmes_two_commands_are_what_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pip install -e . && medqlora fit --config configs/demo.yaml" in README
    assert "pip install -e '.[dev]' && pytest" in README
    assert "-e '.[dev]'" in script
    assert "step pytest" in script


def test_the_readme_is_short_and_links_every_page() -> None:
    assert len(README.split()) <= 1300
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"docs/{page.name}" in README, page.name
