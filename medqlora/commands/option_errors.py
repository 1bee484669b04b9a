"""jsonargparse's messages as one line each: where the option stands, its value, and the fix.

`medqlora.config.check` has checked the options before: what comes here is about classes of Lightning or of the user's
own, whose options only jsonargparse knows. It tells them apart in the text of its messages alone (4.42 to 4.53).
"""

import ast
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module

from medqlora.commands.classes import named_object, walk
from medqlora.config.files import read_config
from medqlora.config.names import nearest
from medqlora.config.words import CommandLine
from medqlora.errors import InputError

_KEY = re.compile(r'^Parser key "([^"]+)":\s*')
_CLASS = re.compile(r"^-?\s*Problem with given class_path '([^']+)':\s*")
#: of a union's types, those that a class was tried for; a piece ends where the next one begins
_TRIED = re.compile(
    r"- Problem with given class_path '([^']+)': (.*?)(?= - Problem with given class_path '|$)"
)
#: jsonargparse's own object for an option of a class
_OF_CLASS = re.compile(r"NestedArg\(key='([^']*)', val=")
_NOT_ACCEPTED = re.compile(r"Option '([^']+)' is not accepted")
_REQUIRED = re.compile(r"following arguments are required: (\S+)|Option '(\S+)' is required")
_GIVEN_CLASS = re.compile(r"class_path='([^']+)'")
_NO_CLASS = re.compile(
    r"Problem with given class_path '([^']+)': No module named|Expected a dot import path string: (\S+)"
)
_ABSENT = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_VALUE = re.compile(r"(?:Given value|Got value): (?!.*Given value: )(.*)$")
_LITERAL = re.compile(r"typing\.Literal(\[[^\]]*\])")
_SIMPLE = re.compile(r"Expected an? <class '([\w.]+)'>")
#: what jsonargparse tries by itself where no class is named
_BASES = (
    *("lightning.Callback", "lightning.pytorch.Callback", "lightning.pytorch.callbacks.Callback"),
    *("lightning.pytorch.callbacks.callback.Callback", "lightning.pytorch.loggers.Logger"),
)
_WANTED = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


def one_line(message: str, options: Iterable[str], words: Sequence[str]) -> str:
    """The line to print for a parser's error.

    Args:
        message: as jsonargparse raised it.
        options: every option of the command, as "model.lora.r".
        words: the command's words. An option that stands in one of the configurations named there, and not on the
            command line itself, is shown with file and line.
    """
    message = " ".join(message.split())
    text = message
    key, class_path, message = _unwrapped(message, "", "")
    if not key:
        return message
    tried = [pair for pair in _TRIED.findall(message) if pair[0] not in _BASES]
    if tried and tried[0][0] != class_path:
        key, class_path, message = _unwrapped(tried[0][1], key, tried[0][0])
    elif (of_class := _OF_CLASS.search(message)) and not class_path and not _GIVEN_CLASS.search(message):
        one = _place(f"{key}.{of_class[1]}", words)
        return f"{one}: it is an option of a class, and --{key} names none: write --{key} CLASS before it"
    place = _place(key, words)
    if absent := _ABSENT.search(message):
        module, name = absent.groups()
        public = getattr(import_module(module), "__all__", ())
        return f"{place} {module}.{name}: there is no such class{nearest(name, public)}"
    if (nowhere := _NO_CLASS.search(text)) and "Literal" not in text:
        name = nowhere[1] or nowhere[2]
        hint = "write the class with its module, like torch.optim.AdamW"
        return f"{place} {name}: there is no such class: {hint}"
    if not class_path and (given := _GIVEN_CLASS.search(message)):  # one of a union's types
        class_path = given[1]
    if required := _REQUIRED.search(message):
        if not isinstance(named_object(class_path), type):
            return f"{place} {class_path}: it is no class: name one"
        return (
            f"{place} {class_path}: its option '{required[1]}' is missing: write --{key}.{required[1]} VALUE"
        )
    if refused := _NOT_ACCEPTED.search(message):
        name = refused[1]
        hint = nearest(name, _parameters(class_path))
        return f"{_place(f'{key}.{name}', words)}: {class_path} has no option '{name}'{hint}"
    if "Unable to load config" in message and (inner := _inner(key, options)):
        value = re.search(r"Unable to load config ['\"](.*?)['\"]", message)
        shown = f" {value[1]}" if value else ""
        return f"{place}{shown}: it has options of its own: write --{inner[0]}, --{inner[-1]}, …"
    return f"{place}{_value_and_kind(message)}"


def _unwrapped(message: str, key: str, class_path: str) -> tuple[str, str, str]:
    """The option, the class and the rest of a message that begins with them."""
    while match := _KEY.match(message) or _CLASS.match(message):
        if match.re is _KEY:
            key = f"{key}.{match[1]}" if key else match[1]
        else:
            class_path = match[1]
        message = message[match.end() :]
    return key, class_path, message


def not_made(error: ValueError, options: object) -> InputError | None:
    """The error of a class whose constructor failed, with its option; None for another error.

    Args:
        error: that the parser raised.
        options: parsed and not yet instantiated.
    """
    message = str(error)
    alone = re.search(r"Problem with given class_path '([^']+)':\s*(.*)", message)
    listed = re.search(
        r"Union subtypes.*?\n  - ([^\n]*).*Given value: \[.*?class_path='([^']+)'", message, re.DOTALL
    )
    if alone:
        class_path, why = alone.groups()
    elif listed:
        why, class_path = listed.groups()
    else:
        return None
    keys = [
        key
        for key, value in walk(options, "")
        if isinstance(value, Mapping) and value.get("class_path") == class_path
    ]
    option = f"--{keys[0].replace('.init_args', '')} " if keys else ""
    return InputError(f"{option}{class_path}: {why.strip()}")


def _place(key: str, words: Sequence[str]) -> str:
    """ "--key", or "file:line: key" where a configuration (the last one that does) sets it."""
    line = CommandLine.parse(words)
    if not any(option.name == key for option in line.options):
        for name in reversed(line.configs):
            entry = read_config(name).root.get(key)
            if entry is not None:
                return f"{name}:{entry.line}: {key}"
    return f"--{key}"


def _inner(key: str, options: Iterable[str]) -> list[str]:
    return sorted(option for option in options if option.startswith(f"{key}."))


def _value_and_kind(message: str) -> str:
    """The end of a line on a value of the wrong type."""
    value = _VALUE.search(message)
    shown = f" {value[1]}" if value else ""
    choices = [str(choice) for listed in _LITERAL.findall(message) for choice in ast.literal_eval(listed)]
    kinds = dict.fromkeys(kind for kind in _SIMPLE.findall(message) if kind != "NoneType")
    named = " or ".join(_WANTED.get(kind, kind) for kind in kinds)
    if choices:
        numbers = any(choice.isdigit() for choice in choices)  # of which the choices are a part
        lead = f"it has to be {named}, or " if named and not numbers else "choose "
        last = ", or a class_path" if "dot import path" in message or "a callable class" in message else ""
        return f"{shown}: {lead}one of {', '.join(dict.fromkeys(choices))}{last}"
    if named:
        return f"{shown}: it has to be {named}"
    return f"{shown}: {message if value is None else message[: value.start()].strip()}"


def _parameters(class_path: str) -> list[str]:
    """The options of a class that the parser has imported."""
    kind = named_object(class_path)
    names = getattr(kind, "option_names", None)
    if not callable(kind):
        return []
    return list(names() if names is not None else inspect.signature(kind).parameters)
