"""Runs one of Lightning's verbs, and turns what is wrong with its options into one line."""

import os
from typing import TYPE_CHECKING

from medqlora.commands.places import check_places
from medqlora.commands.registry import Command, commands
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.config.check import check_options
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
    begun = _prepared([command, *with_config(words)])
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
    return 0


def run_verb(words: list[str], command: str | None = None) -> "Run":
    """The finished run.

    Args:
        words: the verb and its options.
        command: what the user typed, when it wasn't the verb.

    Raises:
        InputError: as in `run`.
    """
    return _prepared(words, command).execute()


def shows_help(command: str, verb: str, words: list[str]) -> bool:
    """Prints the help of a command with the options of `verb`, if the words ask for it."""
    if not CommandLine.parse(words).wants_help:
        return False
    from medqlora.config.help import verb_help

    print(verb_help(command, verb, commands()[command].help), end="", flush=True)
    return True


def _prepared(words: list[str], command: str | None = None) -> "Run":
    """The run before it is built. What can be checked without torch and Lightning is checked before their import."""
    check_options(words[0], words[1:], files=True)
    check_places(words)
    import_unsloth_if_named(words)
    if words[0] == "fit":
        # torch reads it once: large pages, of which `return_freed_memory` needs many fresh ones
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with phase("Loading the program"):
        from medqlora.commands.run import Run

    return Run(words, command)
