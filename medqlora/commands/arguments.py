"""The options of the commands that are not Lightning's verbs."""

import argparse
import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, get_type_hints

from medqlora.compat.argparse import flag_names, option_names
from medqlora.config.docstrings import arguments
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


def run_action(
    command: str, actions: Mapping[str, Callable[[list[str]], int]], usage: str, words: list[str]
) -> int:
    """Runs the action that the first word names; without one, or for `--help`, prints the usage.

    Args:
        command: the word after `medqlora`.
        actions: name → runs it with the words after it, and returns the exit code.
        usage: text that lists the actions.
        words: after the command.

    Raises:
        InputError: there is no such action; or as the action.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage, end="", flush=True)
        return 0
    action = actions.get(words[0])
    if action is None:
        near = difflib.get_close_matches(words[0], actions, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"the actions are {', '.join(actions)}"
        raise InputError(f"{command} {words[0]}: there is no such action: {hint}")
    return action(words[1:])


def own_and_rest(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits words into those of this parser, free words included, and options of `fit` with their values.

    `parse_known_args` would take the value of an option that it doesn't know (`--config demo`) for a free word.
    """
    from medqlora.config.words import is_option  # reads YAML, which other commands do without

    known, flags = set(option_names(parser)), set(flag_names(parser))
    own: list[str] = []
    rest: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        name, equals, _ = word.partition("=")
        part = own if name in known or not is_option(word) else rest
        part.append(word)
        index += 1
        if is_option(word) and not equals and name not in flags and index < len(words):
            if part is rest and is_option(words[index]):
                continue
            part.append(words[index])
            index += 1
    return own, rest


def add_fields(
    parser: argparse.ArgumentParser, kind: type, choices: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Adds the fields of a dataclass as options, with their defaults and the help of its docstring.

    Args:
        parser: gets the options.
        kind: a dataclass with plain fields; a tuple of texts takes several words.
        choices: option → its values.
    """
    hints, helps = get_type_hints(kind), arguments(kind)
    for field in dataclasses.fields(kind):
        hint, allowed = hints[field.name], (choices or {}).get(field.name)
        many = hint == tuple[str, ...]
        read = hint if hint in (int, float) else str
        default = field.default
        shown = "" if default is None or default == () else f" (default: {str(default).replace('%', '%%')})"
        text = helps[field.name].replace("%", "%%") + shown
        metavar = None if allowed else {int: "N", float: "X"}.get(read, "TEXT")
        name = f"--{field.name}"
        if many:
            parser.add_argument(name, nargs="+", action=_Several, default=default, metavar=metavar, help=text)
        else:
            parser.add_argument(name, type=read, default=default, choices=allowed, metavar=metavar, help=text)


class _Several(argparse.Action):
    """Collects the words of an option that may also be given several times."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: "str | Sequence[object] | None",
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest) or ()
        setattr(namespace, self.dest, (*before, *(values or ())))
