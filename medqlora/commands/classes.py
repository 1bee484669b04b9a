"""Checks of the classes that a configuration names, between parsing and construction.

To know what a `class_path` names, its module is imported from where Python finds modules: a configuration can't bring
code along.
"""

import inspect
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from medqlora.errors import InputError


def check_classes(options: object, expected: Mapping[str, type]) -> None:
    """Refuses functions, and classes of another type, before anything is constructed.

    The parser compares a class with its option's type, but where that is a `Callable` it takes any function, and
    would call it: an optimizer `os.system`, or one in a callback's own options.

    Args:
        options: parsed and not yet instantiated; what a mapping is made of is looked through.
        expected: option → what its class has to be, for those that the parser doesn't compare.

    Raises:
        InputError: names the option and what it holds.
    """
    for key, value in walk(options, ""):
        option = key.replace(".init_args", "")
        if callable(value) and not isinstance(value, os.PathLike):  # the parser's own paths can be called
            name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
            raise InputError(f"--{option} {name}: a configuration names classes alone: leave it out")
        if not isinstance(value, Mapping) or not isinstance(value.get("class_path"), str):
            continue
        path = value["class_path"]
        named = named_object(path)
        kind = expected.get(option, object)
        if not isinstance(named, type) or not issubclass(named, kind):
            wanted = "class" if kind is object else f"subclass of {kind.__module__}.{kind.__qualname__}"
            raise InputError(f"--{option} {path}: it is no {wanted}: name one")
        extra = value.get("dict_kwargs")
        taken = inspect.signature(named).parameters.values() if extra else ()
        if extra and not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken):
            raise InputError(f"--{option}: {path} has no option '{next(iter(extra))}': leave dict_kwargs out")


def named_object(path: str) -> Any:
    """The object that a `class_path` names; None where its module has none of that name."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name, None) if module else None


def walk(value: object, key: str) -> Iterator[tuple[str, object]]:
    """Every value with its option's name, the outer ones first."""
    yield key, value
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from walk(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from walk(part, key)
