"""Runs one of Lightning's verbs, and turns what is wrong with its options into one line."""

from typing import Any

from medqlora.commands.config_files import with_config
from medqlora.commands.option_errors import one_line
from medqlora.commands.unsloth_first import import_unsloth_if_named
from medqlora.errors import InputError


def run(command: str, words: list[str]) -> int:
    """Raises InputError for wrong options, data or models, after taking back an empty run folder."""
    run_verb([command, *with_config(words)])
    return 0


def run_verb(words: list[str], command: str | None = None) -> Any:
    """The finished `MedQLoRACLI`.

    Args:
        words: the verb and its options.
        command: what the user typed, when it wasn't the verb.

    Raises:
        InputError: as in `run`.
    """
    import_unsloth_if_named(words)
    from jsonargparse import ArgumentError

    from medqlora.commands.lightning_cli import MedQLoRACLI

    cli = MedQLoRACLI.__new__(MedQLoRACLI)
    try:
        cli.__init__(words, command)  # type: ignore[misc]
    except ArgumentError as error:
        raise InputError(one_line(str(error), cli.option_names(words[0]), words)) from error
    except InputError:
        if hasattr(cli, "trainer"):
            cli.remove_empty_run()
        raise
    except BaseException:
        cli.remove_empty_folder()
        raise
    return cli
