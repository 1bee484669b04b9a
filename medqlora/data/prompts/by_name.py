"""Prompts by registered name ("medical") or by class path ("package.module.Class")."""

import difflib
import inspect
from collections.abc import Sequence
from functools import cache
from importlib import import_module

from medqlora.data.prompts.prompt import OPTION, PROMPTS, Prompt
from medqlora.data.prompts.rationale_first import SUFFIX, RationaleFirst
from medqlora.data.wording import reason
from medqlora.errors import InputError


def prompt_names() -> tuple[str, ...]:
    """The names of the registered prompts, those of plugins included."""
    return tuple(sorted(PROMPTS.names()))


def lookup(name: str, option: str = OPTION, *, rationale_first: bool = False) -> Prompt:
    """The prompt of this name or class path; its `name` is the one given here.

    Args:
        name: a registered name, or the class path of a subclass of `Prompt` whose constructor needs no arguments.
        option: the option or file that holds the name, for messages.
        rationale_first: whether the caller scores a decision after the rationale (`data.rationale: before`).

    Raises:
        InputError: there is no such prompt, module or class, or the class is no prompt; names the nearest.
    """
    name = str(name)
    if name.endswith(SUFFIX):
        if not rationale_first:
            raise InputError(
                f"{option}: this adapter was trained with data.rationale: before, and writes its rationale before the "
                "decision: `validate`, `test`, `predict`, `ask` and `fit --folds` evaluate it, this does not: train "
                "with --data.rationale after"
            )
        return RationaleFirst(lookup(name.removesuffix(SUFFIX), option))
    registered = PROMPTS.get(name)
    if registered is not None:
        return _made(registered, name)
    if "." not in name:
        near = _nearest(name.lower(), prompt_names())
        raise InputError(
            f"{option}: no prompt is called {name!r}: {near}choose one of {', '.join(prompt_names())}, or give the "
            "class path of a subclass of medqlora.data.Prompt"
        )
    kind = _class(name, option)
    try:
        return _made(kind, name)
    except TypeError as error:  # a parameter without a default, or an abstract method
        raise InputError(
            f"{option}: {name}: it can't be constructed without arguments ({error}): give each parameter of its "
            "constructor a default, and implement body() and template()"
        ) from error


@cache
def _made(kind: type[Prompt], name: str) -> Prompt:
    prompt = kind()
    prompt.name = name
    return prompt


def _class(path: str, option: str) -> type[Prompt]:
    module_name, _, class_name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{option}: {path}: there is no module {error.name!r}: correct the name, or put its folder into PYTHONPATH"
        ) from error
    except Exception as error:  # whatever the user's module raises while it is imported
        raise InputError(
            f"{option}: {path}: module {module_name} can't be imported ({type(error).__name__}: {reason(error)}): "
            "correct the module"
        ) from error
    kind = getattr(module, class_name, None)
    if kind is None:
        near = _nearest(class_name, [name for name, _ in inspect.getmembers(module, inspect.isclass)])
        raise InputError(
            f"{option}: {path}: module {module_name} has no class {class_name!r}: {near}correct the name"
        )
    if not (isinstance(kind, type) and issubclass(kind, Prompt)):
        raise InputError(
            f"{option}: {path}: it is no subclass of medqlora.data.Prompt: derive it from that class"
        )
    return kind


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""
