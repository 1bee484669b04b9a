"""Runs one of Lightning's verbs, and turns what is wrong with its options into one line."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from medqlora.commands.early_read import check_test_set, read_early
from medqlora.commands.places import check_places
from medqlora.commands.registry import Command, commands
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.config.check import check_options
from medqlora.config.command_options import own_options
from medqlora.config.words import CommandLine, with_config
from medqlora.errors import InputError
from medqlora.utils.interrupts import FitError, Interrupted
from medqlora.utils.progress import phase

if TYPE_CHECKING:
    from medqlora.commands.run import Run

COMMANDS = (
    Command(
        "fit", "train LoRA adapters on a quantized base", also=("train", "finetune", "fine-tune"), rank=10
    ),
    Command("validate", "score an adapter on the validation questions", also=("val",), rank=20),
    Command(
        "predict", "answer a file of questions, a line of JSON each", also=("infer", "generate"), rank=40
    ),
)


def run(command: str, words: list[str]) -> int:
    """Runs a verb for the command line.

    Raises:
        InputError: options, data or models are wrong; an empty run folder has been removed.
        FitError: another error ended a fit that had left a checkpoint.
    """
    if shows_help(command, command, words):
        return 0
    if command == "fit" and is_given("folds", words):
        from medqlora.commands.folds import run as run_folds

        return run_folds(words)
    if command == "fit":
        check_alone(words, "folds", ("folds_at_once", "against"))
    if command == "predict" and is_given("library", words):
        from medqlora.commands.library_predict import run as run_library

        return run_library(words)
    execute(prepared([command, *with_config(words)]))
    return 0


def is_given(name: str, words: list[str]) -> bool:
    """Whether an option stands among the words."""
    return any(option.name == name for option in CommandLine.parse(words).options)


def check_alone(words: list[str], needed: str, names: tuple[str, ...]) -> None:
    """Raises InputError for options that belong to `needed`, which is not given."""
    for name in names:
        if is_given(name, words):
            raise InputError(f"--{name}: it belongs to --{needed}: pass that too, or leave it out")


def execute(begun: "Run") -> None:
    """Runs it to its end; an error or a signal tells the step of the newest checkpoint.

    Raises:
        InputError, FitError, Interrupted: as `run`.
    """
    try:
        begun.execute()
    except InputError:
        raise
    except Interrupted as stop:
        if stop.step is None:  # it came before the first step, or after the last
            stop.step = begun.newest_step()
        raise
    except Exception as error:
        step = begun.newest_step()
        if step is None:
            raise
        raise FitError(error, step) from error


def run_verb(words: list[str], command: str | None = None) -> "Run":
    """The finished run.

    Args:
        words: the verb and its options.
        command: what the user typed, when it wasn't the verb.

    Raises:
        InputError: as in `run`.
    """
    return prepared(words, command).execute()


def shows_help(command: str, verb: str, words: list[str]) -> bool:
    """Prints the help of a command with the options of `verb`, if the words ask for it."""
    if not CommandLine.parse(words).wants_help:
        return False
    from medqlora.config.help import verb_help

    print(verb_help(command, verb, commands()[command].help), end="", flush=True)
    return True


def prepared(words: list[str], command: str | None = None, into: Path | None = None) -> "Run":
    """The run before it is built. What can be checked without torch and Lightning is checked before their import.

    Args:
        words, command, into: see `medqlora.commands.run.Run`.

    Raises:
        InputError: an option is wrong, or a folder can't be written.
    """
    source = check_options(words[0], words[1:], own_options(words[0]), files=True)
    check_places(words)
    if words[0] in ("fit", "validate", "test") and not CommandLine.parse(words).has("print_config"):
        if words[0] == "test" or command == "full":  # `full` would train first
            check_test_set(source)
        read_early(source)
    import_unsloth_if_named(words)
    if words[0] == "fit":
        # torch reads it once: large pages, of which `return_freed_memory` needs many fresh ones
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with phase("Loading the program"):
        from medqlora.commands.run import Run

    return Run(words, command, into=into)
