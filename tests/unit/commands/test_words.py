"""Words in another order, or of another tool, are understood or told for what they are, before anything is loaded."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import options, refused, run

import medqlora
from medqlora.cli import main
from medqlora.config.overlays import check_overlays
from medqlora.config.words import CommandLine, named_backend, with_config
from medqlora.errors import InputError

CLASS = """\
model:
  backend:
    class_path: medqlora.models.TinyLlama
data:
  source: medqlora.data.SyntheticTrials
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two configurations."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(CLASS, encoding="utf-8")
    (tmp_path / "b.yaml").write_text("model:\n  lora: {r: 16}\n", encoding="utf-8")
    return tmp_path


# ---- options before the command ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--config", "x", "fit"],
            "--config: options stand after the command: write medqlora fit --config x",
        ),
        (["--config=x", "fit"], "--config: options stand after the command: write medqlora fit --config=x"),
        (
            ["--model.lora.r", "8", "fit", "--config", "a b"],
            "--model.lora.r: options stand after the command: write medqlora fit --model.lora.r 8 --config 'a b'",
        ),
        (
            ["--data.prompt", "test", "fit"],
            "--data.prompt: options stand after the command: write medqlora fit --data.prompt test",
        ),
        (
            ["--compare_base", "test"],
            "--compare_base: options stand after the command: write medqlora test --compare_base",
        ),
        (["--config", "x"], "--config: the command comes first: medqlora fit --config x"),
        (["--fit"], "there is no command '--fit': did you mean 'fit'?"),
        (["-fit"], "there is no command '-fit': did you mean 'fit'?"),
        (["FIT"], "there is no command 'FIT': did you mean 'fit'?"),
        (["train"], "there is no command 'train': did you mean 'fit'?"),
        (["evaluate"], "there is no command 'evaluate': did you mean 'test'?"),
        (["x.yaml"], "'x.yaml' is no command: write medqlora fit --config x.yaml"),
    ],
)
def test_words_before_the_command_are_told_for_what_they_are(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *words) == f"medqlora: error: {said}\n"


def test_none_of_it_imports_anything_heavy() -> None:
    code = (
        "import sys; from medqlora.cli import main\n"
        "for words in (['--config', 'x', 'fit'], ['fit', 'x.yaml'], ['fit', '--config'], ['train']):\n"
        "    assert main(words) == 2\n"
        "heavy = {'torch', 'lightning', 'transformers', 'numpy', 'jsonargparse'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("words", [["-h", "runs"], ["--help", "runs"], ["help", "runs"]])
def test_help_before_the_command_is_the_command_s(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    assert "medqlora runs" in capsys.readouterr().out


# ---- configurations and options in any order -------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["--x", "1", "--config", "a.yaml"], ["--config", "a.yaml", "--x", "1"]),
        (["--config", "a.yaml", "--x", "1"], ["--config", "a.yaml", "--x", "1"]),
        (
            ["--x=1", "-c", "b.yaml", "--y", "2", "--config=a.yaml", "--z"],
            ["-c", "b.yaml", "--config=a.yaml", "--x=1", "--y", "2", "--z"],
        ),
        (["--note=--config=b.yaml", "--config", "a.yaml"], ["--config", "a.yaml", "--note=--config=b.yaml"]),
        (["--x", "-1", "--config", "a.yaml"], ["--config", "a.yaml", "--x", "-1"]),
        (["--y", "p", "q", "--config", "a.yaml"], ["--config", "a.yaml", "--y", "p", "q"]),
    ],
)
def test_configurations_are_read_first_in_their_order_and_options_keep_theirs(
    words: list[str], first: list[str], files: Path
) -> None:
    assert with_config(words) == first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config"], "--config: the file is missing"),
        (["-c"], "-c: the file is missing"),
        (["--config="], "--config: the file is missing"),
        (["--config", "--model.lora.r", "8"], "--config: the file is missing"),
        (["--config", "."], "--config .: it is a folder"),
        (["--config", "c.yaml"], "--config: there is no file 'c.yaml'"),
        (["a.yaml"], "'a.yaml' belongs to no option: write --config a.yaml"),
        (["--config", "a.yaml", "b.yaml"], "'b.yaml' belongs to no option: write --config b.yaml"),
        (["--config=a.yaml", "b.YML"], "'b.YML' belongs to no option: write --config b.YML"),
        (
            ["extra", "--config", "a.yaml"],
            "'extra' belongs to no option: write --OPTION extra, or leave it out",
        ),
    ],
)
def test_a_word_without_an_option_is_told(words: list[str], said: str, files: Path) -> None:
    with pytest.raises(InputError) as error:
        with_config(words)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("at", range(4))
def test_an_option_wins_over_every_configuration_wherever_it_stands(
    at: int, tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, base, *rest = options(tiny_bases["llama"], tmp_path, train=4, dev=0, test=0)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("model: {backend: {init_args: {base: elsewhere}}, lora: {r: 16}}\n", encoding="utf-8")
    words = [config, f"--config={overlay}", *rest]
    words[at:at] = [base, "--model.lora.r", "2"]
    cli: Any = run("fit", with_config([*words, "--trainer.max_steps=1", "--model.preflight=false"]))
    assert (cli.model.lora.r, cli.model.backend.base) == (2, str(tiny_bases["llama"]))


# ---- options of a class that is named elsewhere -----------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "model:\n  backend:\n    init_args:\n      seed: 3\n",
        "model:\n  backend:\n    seed: 3\n",
        '{"model":\n{"backend":\n{"init_args": {"seed": 3}}}}',
    ],
)
def test_options_of_a_class_go_with_the_class_named_before_them(text: str, files: Path) -> None:
    (files / "o.yaml").write_text(text, encoding="utf-8")
    assert check_overlays(["a.yaml", "o.yaml"]) == []
    with pytest.raises(InputError) as error:
        check_overlays(["o.yaml", "a.yaml"])
    assert str(error.value) == (
        "o.yaml:3: model.backend has options of a class and no class_path: put --config o.yaml after --config a.yaml"
    )
    with pytest.raises(InputError) as error:
        check_overlays(["b.yaml", "o.yaml"])
    assert str(error.value) == (
        "o.yaml:3: model.backend has options of a class and no class_path: add its class_path, or name first a "
        "--config that has it"
    )


def test_a_class_named_on_the_command_line_is_known_before_its_options(files: Path) -> None:
    (files / "o.yaml").write_text("model: {backend: {init_args: {seed: 3}}}\n", encoding="utf-8")
    named = ["--model.backend", "medqlora.models.TinyLlama"]
    assert with_config([*named, "--config=o.yaml"]) == [*named, "--config=o.yaml", *named]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("trainer:\n  callbacks:\n  - init_args: {patience: 3}\n", "3: trainer.callbacks[0]"),
        ("trainer:\n  logger:\n    init_args: {save_dir: x}\n", "3: trainer.logger"),
        ("model:\n  optimizer:\n    init_args: {momentum: 0.5}\n", "3: model.optimizer"),
        (
            "model:\n  backend:\n    init_args: {inner: {init_args: {a: 1}}}\n    class_path: x.Y\n",
            "3: model.backend.inner",
        ),
    ],
)
def test_every_option_of_a_class_is_looked_at(text: str, line: str, files: Path) -> None:
    (files / "o.yaml").write_text(text, encoding="utf-8")
    (files / "n.yaml").write_text("model: {optimizer: adamw}\n", encoding="utf-8")  # a name is no class
    with pytest.raises(InputError, match="has options of a class and no class_path") as error:
        check_overlays(["n.yaml", "o.yaml"])
    assert str(error.value).startswith(f"o.yaml:{line}")


def test_a_class_of_a_merged_mapping_is_one(files: Path) -> None:
    text = "x: &x {class_path: torch.optim.SGD}\nmodel:\n  optimizer:\n    <<: *x\n    init_args: {momentum: 0.5}\n"
    (files / "o.yaml").write_text(text, encoding="utf-8")
    assert check_overlays(["o.yaml"]) == []


def test_a_configuration_in_json_may_be_indented_with_tabs(files: Path) -> None:
    (files / "o.json").write_text(
        '{\n\t"model": {\n\t\t"backend": "x.Y",\n\t\t"lora": {"r": 4}}}', encoding="utf-8"
    )
    assert with_config(["--config=o.json"]) == ["--config=o.json"]
    assert named_backend(["--config=o.json"]) == "x.Y"
    assert CommandLine.parse(["--config=o.json"]).value("model.lora.r") == 4


# ---- python -OO --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["-OO", "-m", "medqlora"], ["-m", "medqlora"]])
def test_python_without_docstrings_is_refused_in_a_line(words: list[str]) -> None:
    environment = {**os.environ, "PYTHONOPTIMIZE": "2"}
    ended = subprocess.run(
        [sys.executable, *words, "fit"], capture_output=True, text=True, env=environment, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "medqlora: error: PYTHONOPTIMIZE=2 (python -OO) removes docstrings, and transformers needs them to load a "
        "model: unset it, or use 1\n"
    )


def test_no_check_of_the_user_s_input_or_of_the_result_is_an_assert() -> None:
    """python -O leaves asserts out: those that are there narrow a type, or hold between two lines of one file."""
    narrowing = re.compile(r"\s*assert ((\w|\.)+ is not None|isinstance\(.*\))(, .*)?(  # .*)?$")
    asserts = [
        f"{path}: {line}"
        for path in sorted(Path(medqlora.__file__).parent.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.lstrip().startswith("assert ") and not narrowing.match(line)
    ]
    assert not asserts
