"""What `medqlora` answers before any command runs: help, version, mistakes; at once, with nothing heavy imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import medqlora
from medqlora import cli
from medqlora.commands.registry import Command, commands
from medqlora.config import words as config_files
from medqlora.errors import InputError

HEAVY = (
    "torch",
    "lightning",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "jsonargparse",
    "numpy",
    "scipy",
)


def run(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    package = str(Path(medqlora.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
        timeout=240,
    )


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command_with_a_line_each(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    shown = capsys.readouterr().out.splitlines()
    for name, command in commands().items():
        assert any(each.split() == [name, *command.help.split()] for each in shown), name
    assert {"fit", "validate", "test", "predict", "full"} <= commands().keys()
    assert all(len(line) <= 110 for line in shown)


def test_every_listed_command_has_its_module() -> None:
    from importlib.util import find_spec

    assert all(find_spec(command.module) is not None for command in commands().values())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from medqlora.cli import main; main(['--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = run("-c", code)
    assert done.stderr.strip() == "[]"


def test_help_writes_nothing_into_the_working_folder(tmp_path: Path) -> None:
    run("-m", "medqlora", "--help", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version_is_the_packages(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 0
    assert capsys.readouterr().out == f"medqlora {medqlora.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("fti", "fit"), ("tset", "test"), ("predcit", "predict"), ("valdate", "validate")]
)
def test_a_mistyped_command_names_the_nearest_and_exits_with_2(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([typed]) == 2
    assert capsys.readouterr() == (
        "",
        f"medqlora: error: there is no command '{typed}': did you mean '{meant}'?\n",
    )


def test_a_command_like_none_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["xyzzy"]) == 2
    assert f"the commands are {', '.join(commands())}" in capsys.readouterr().err


def test_the_process_exits_with_the_commands_code_and_no_traceback() -> None:
    done = run("-m", "medqlora", "fti")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


# --- configurations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--config", "nope.yaml"], ["--config=nope.yaml"], ["-c", "nope.yaml"]])
def test_a_missing_configuration_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", *words]) == 2
    assert capsys.readouterr().err.startswith("medqlora: error: --config: there is no file 'nope.yaml': ")


def test_a_mistyped_configuration_names_the_nearest_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "qlora.yaml").touch()
    assert cli.main(["fit", "--config", "configs/qlor.yaml"]) == 2
    wanted = Path("configs", "qlora.yaml")
    assert f"there is no file 'configs/qlor.yaml': did you mean {wanted}?" in capsys.readouterr().err


def test_config_without_a_file_is_not_taken_for_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", "--config"]) == 2
    assert capsys.readouterr() == (
        "",
        "medqlora: error: --config: the file is missing: name one, like configs/demo.yaml\n",
    )


def test_without_a_configuration_the_demo_runs_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    words = config_files.with_config(["--trainer.max_steps", "1"])
    assert words[0] == "--config"
    assert Path(words[1]).name == "demo.yaml"
    assert words[2:] == ["--trainer.max_steps", "1"]
    assert capsys.readouterr().out.startswith("No --config given: running the demo, ")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--model.lora.r", "4", "--help"]])
def test_help_on_a_command_names_no_demo(words: list[str]) -> None:
    assert config_files.with_config(words) == words


def test_configurations_are_found_in_the_order_in_which_they_win() -> None:
    words = [
        "--config=a.yaml",
        "--config",
        "b.yaml",
        "--model.lora.r",
        "4",
        "-c",
        "c.yaml",
        "--config=d.yaml",
    ]
    assert config_files.config_files(words) == ["a.yaml", "b.yaml", "c.yaml", "d.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)),
        "model: &m {backend: *m}\n",
        f"model: {'[' * 3000}{']' * 3000}\n",
    ],
    ids=["aliases of aliases", "one that holds itself", "nesting"],
)
@pytest.mark.parametrize("command", ["fit", "plan"])
def test_a_small_configuration_that_stands_for_a_large_one_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, text: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert cli.main([command, f"--config={tmp_path / 'mine.yaml'}"]) == 2
    assert "stand for too many values" in capsys.readouterr().err


def test_a_configuration_whose_name_has_a_line_break_is_one() -> None:
    assert config_files.config_files(["--config=a\nb.yaml"]) == ["a\nb.yaml"]


# --- exit codes -------------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fit` that ends with what `FAILURE` says."""

    def fail(command: str, words: list[str]) -> int:
        if "input" in words:
            raise InputError("--option value: the fix")
        if "interrupt" in words:
            raise KeyboardInterrupt
        raise RuntimeError("\n\nthe first line\nthe second line")

    monkeypatch.setattr(cli, "commands", lambda: {"fit": Command("fit", "fails", run=fail)})


@pytest.mark.usefixtures("failing")
def test_wrong_input_is_one_line_and_2_anything_else_one_line_and_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["fit", "--help", "input"]) == 2
    assert capsys.readouterr().err == "medqlora: error: --option value: the fix\n"
    assert cli.main(["fit", "--help"]) == 1
    assert capsys.readouterr().err == (
        "medqlora: failed: RuntimeError: the first line (--debug shows where)\n"
    )


@pytest.mark.usefixtures("failing")
def test_debug_shows_where_an_error_came_from() -> None:
    with pytest.raises(InputError):
        cli.main(["fit", "--help", "input", "--debug"])
    with pytest.raises(RuntimeError):
        cli.main(["--debug", "fit", "--help"])


@pytest.mark.usefixtures("failing")
def test_an_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        cli.main(["fit", "--help", "interrupt"])
