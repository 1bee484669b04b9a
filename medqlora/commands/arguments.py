"""The options of the commands that are not Lightning's verbs."""

import argparse
import difflib
from typing import NoReturn

from medqlora.errors import InputError


class Parser(argparse.ArgumentParser):
    """Says what is wrong as an InputError in one line, with the nearest option there is.

    Args:
        command: the word after `medqlora`.
        description: what the command does.
        examples: what stands below its options, line for line.
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
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown.split("=")[0], known, 1) if unknown else []
        hint = f"did you mean '{near[0]}'?" if near else f"see {self.prog} --help"
        raise InputError(f"{message}: {hint}")
