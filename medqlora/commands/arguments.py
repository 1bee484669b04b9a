"""The options of the commands that are not Lightning's verbs."""

import argparse
import difflib
from typing import NoReturn

from medqlora.compat.argparse import option_names
from medqlora.errors import InputError


class Parser(argparse.ArgumentParser):
    """Raises an InputError of one line, with the nearest known option, in place of argparse's exit.

    Args:
        command: the word after `medqlora`.
        description: what the command does.
        examples: printed below its options, unchanged.
    """

    def __init__(self, command: str, description: str, examples: str | None = None) -> None:
        super().__init__(
            prog=f"medqlora {command}",
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        near = difflib.get_close_matches(unknown.split("=")[0], option_names(self), 1) if unknown else []
        hint = f"did you mean '{near[0]}'?" if near else f"see {self.prog} --help"
        raise InputError(f"{message}: {hint}")
