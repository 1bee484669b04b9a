"""The commands: each module of this folder declares its own, and packages outside the tree add theirs.

A module declares `COMMAND = Command(…)` (or `COMMANDS`, a tuple of them) and has `run(command, words)`. The declaration
is read from the source without an import of the module: `medqlora --help` lists all commands at once. A module outside
the tree calls `COMMANDS.add(name, Command(…, run=…))`; see `medqlora.utils.registry` for how it is found.
"""

import ast
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path

from medqlora.utils.registry import Registry


@dataclass(frozen=True)
class Command:
    """One command of the executable.

    Args:
        name: the word after `medqlora`.
        help: what it does, in a line.
        also: what other tools call it.
        rank: its place in the list of commands; equal ranks go by name.
        module: whose `run(command, words)` does it, where `run` is not given; filled in for modules of this folder.
        run: takes the command's name and its words, and returns the exit code.
    """

    name: str
    help: str
    also: tuple[str, ...] = ()
    rank: int = 100
    module: str = ""
    run: Callable[[str, list[str]], int] | None = None

    def start(self, words: list[str]) -> int:
        """Runs it; the return value is the exit code."""
        run = self.run or import_module(self.module).run
        return int(run(self.name, words))


COMMANDS: Registry[Command] = Registry("command", "medqlora.commands")


@cache
def commands() -> dict[str, Command]:
    """Name → command, in the order of the list.

    Raises:
        InputError: a module of `MEDQLORA_PLUGINS` can't be imported.
    """
    for command in _declared():
        COMMANDS.add(command.name, command)
    return dict(sorted(COMMANDS, key=lambda pair: (pair[1].rank, pair[0])))


def _declared() -> Iterator[Command]:
    """The commands that the modules of this folder declare."""
    folder = Path(__file__).parent
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(folder)]):
        source = "" if module.ispkg else (folder / f"{module.name}.py").read_text(encoding="utf-8")
        start = source.find("\nCOMMAND")
        if start < 0 or module.name == "registry":
            continue
        declaration = ast.parse(source[start:].partition("\n\n")[0]).body[0]
        for call in ast.walk(declaration):
            if isinstance(call, ast.Call):
                yield replace(_command(call), module=f"{package}.{module.name}")


def _command(call: ast.Call) -> Command:
    names = list(inspect.signature(Command).parameters)
    given = {name: ast.literal_eval(value) for name, value in zip(names, call.args, strict=False)}
    return Command(**given, **{str(word.arg): ast.literal_eval(word.value) for word in call.keywords})
