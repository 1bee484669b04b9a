"""Commands register themselves, from this tree and from outside it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medqlora.commands.registry import commands

TOY = """
from medqlora.commands.registry import COMMANDS, Command

def run(command, words):
    print(command, *words)
    return 3

COMMANDS.add("toy", Command("toy", "does nothing of use", also=("doll",), run=run))
"""


def medqlora(folder: Path, *words: str, plugins: str = "toy_command") -> "subprocess.CompletedProcess[str]":
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "medqlora", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "MEDQLORA_PLUGINS": plugins},
    )


def test_a_command_from_outside_the_tree_is_listed_and_runs(tmp_path: Path) -> None:
    (tmp_path / "toy_command.py").write_text(TOY, encoding="utf-8")
    shown = medqlora(tmp_path, "--help").stdout
    assert "  toy       does nothing of use\n" in shown
    done = medqlora(tmp_path, "toy", "--x", "1")
    assert (done.returncode, done.stdout) == (3, "toy --x 1\n")
    assert "there is no command 'doll': did you mean 'toy'?" in medqlora(tmp_path, "doll").stderr


def test_a_plugin_that_cannot_be_imported_is_wrong_input(tmp_path: Path) -> None:
    done = medqlora(tmp_path, "--help", plugins="not_there")
    assert done.returncode == 2
    assert done.stderr.startswith("medqlora: error: MEDQLORA_PLUGINS=not_there: it can't be imported")


@pytest.mark.parametrize("name", commands())
def test_a_declared_command_is_the_one_of_its_module(name: str) -> None:
    from importlib import import_module

    module = import_module(commands()[name].module)
    declared = getattr(module, "COMMANDS", None) or (module.COMMAND,)
    (same,) = (one for one in declared if one.name == name)
    assert (same.help, same.also, same.rank) == (
        commands()[name].help,
        commands()[name].also,
        commands()[name].rank,
    )
    assert callable(module.run)
