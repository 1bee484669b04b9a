"""Runs one of Lightning's verbs, and turns what is wrong with its options into one line."""

from typing import Any

from medqlora.commands.option_errors import one_line
from medqlora.commands.places import check_places
from medqlora.commands.registry import Command
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.config.check import check_options
from medqlora.config.words import with_config
from medqlora.errors import InputError
from medqlora.utils.interrupts import FitError, Interrupted

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
    """Runs it for the command line.

    Raises:
        InputError: options, data or models are wrong; an empty run folder has been taken back.
        FitError: another error ended a fit that had left a checkpoint.
    """
    words = [command, *with_config(words)]
    cli = _unborn(words)
    try:
        _run(cli, words, None)
    except InputError:
        raise
    except Interrupted as stop:
        if stop.step is None:  # it came before the first step, or after the last
            stop.step = cli.newest_step()
        raise
    except Exception as error:
        step = cli.newest_step()
        if step is None:
            raise
        raise FitError(error, step) from error
    return 0


def run_verb(words: list[str], command: str | None = None) -> Any:
    """The finished `MedQLoRACLI`.

    Args:
        words: the verb and its options.
        command: what the user typed, when it wasn't the verb.

    Raises:
        InputError: as in `run`.
    """
    cli = _unborn(words)
    _run(cli, words, command)
    return cli


def _unborn(words: list[str]) -> Any:
    """The command before it begins: it does all in `__init__`, and what that leaves is wanted when it raises too."""
    check_options(words[0], words[1:])
    check_places(words)
    import_unsloth_if_named(words)
    from medqlora.commands.lightning_cli import MedQLoRACLI

    return MedQLoRACLI.__new__(MedQLoRACLI)


def _run(cli: Any, words: list[str], command: str | None) -> None:
    from jsonargparse import ArgumentError

    try:
        cli.__init__(words, command)
    except ArgumentError as error:
        raise InputError(one_line(str(error), cli.option_names(words[0]), words)) from error
    except InputError as error:
        _end_in_time(cli, error)
        if hasattr(cli, "trainer"):
            cli.remove_empty_run()
        raise
    except BaseException as error:
        _end_in_time(cli, error)
        cli.remove_empty_folder()
        raise


def _end_in_time(cli: Any, error: BaseException) -> None:
    """One of several processes that fails is gone soon: its end may not wait for the others.

    Lightning destroys NCCL's group as the process ends, which waits until the others do too
    (https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api/comms.html#ncclcommdestroy); they may be waiting
    for this one.
    """
    if hasattr(cli, "trainer") and cli.trainer.world_size > 1:
        from medqlora.distributed.processes import end_in_time

        code = 2 if isinstance(error, InputError) else getattr(error, "exit_code", 1)
        end_in_time(cli.trainer.strategy, code)
