"""The private part of the standard library's argparse that is used here."""

import argparse


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    """Every option string of a parser, as "--json"; argparse lists its options in `_actions` alone (Python 3.10-3.13).

    Tests: `tests/unit/config/test_instant.py` misspells an option of `doctor` and of `runs`.
    """
    return [option for action in parser._actions for option in action.option_strings]


def flag_names(parser: argparse.ArgumentParser) -> list[str]:
    """The option strings of a parser that take no value."""
    return [name for name, action in parser._option_string_actions.items() if action.nargs == 0]
