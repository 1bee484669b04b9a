"""The options of the commands that are not Lightning's verbs."""

import argparse
import difflib
from typing import NoReturn

from medqlora.errors import InputError


class Parser(argparse.ArgumentParser):
    """Says what is wrong as an InputError in one line, with the nearest option there is."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(unknown.split("=")[0], known, 1) if unknown else []
        hint = f"did you mean '{near[0]}'?" if near else f"see {self.prog} --help"
        raise InputError(f"{message}: {hint}")
