"""`--model.optimizer` and `--model.lr_scheduler` as the parser reads them: a name, or a class with its options."""

from typing import TYPE_CHECKING

import yaml
from jsonargparse import get_loader, set_loader
from jsonargparse.typing import register_type

from medqlora.commands.classes import named_object
from medqlora.config.optimizers import NamedOptimizer, full_class_path, spelled_out
from medqlora.training.optim import check_optimizer, check_scheduler

if TYPE_CHECKING:
    from jsonargparse import Namespace


_parsers_loader = get_loader("yaml")


def take_names(words: list[str]) -> list[str]:
    """Teaches the parser the names; the words, with a name spelled out where options of its class follow."""
    register_type(NamedOptimizer, str, NamedOptimizer, fail_already_registered=False)
    if get_loader("yaml") is not _load:
        set_loader("yaml", _load, exceptions=(yaml.YAMLError,))
    return spelled_out(words)


def _load(text: str) -> object:
    """Reads YAML as the parser does; an optimizer's class gets its module.

    jsonargparse refuses a class without its module where several modules have one: `SGD` is torch's alone until
    something imports bitsandbytes.
    """
    return _with_modules(_parsers_loader(text))


def _with_modules(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: full_class_path(part)
            if key == "class_path" and isinstance(part, str)
            else _with_modules(part)
            for key, part in value.items()
        }
    return [_with_modules(part) for part in value] if isinstance(value, list) else value


def check_optimizer_option(options: "Namespace") -> None:
    """Raises InputError for an optimizer that can't be used.

    Args:
        options: the module's, parsed and not yet instantiated.
    """
    given = options["optimizer"]
    kind = given if isinstance(given, str) else named_object(given["class_path"])
    check_optimizer(kind, options["weight_decay"])


def check_scheduler_option(options: "Namespace") -> None:
    """Raises InputError for a schedule of the learning rate that can't be used; `options` as above."""
    given = options["lr_scheduler"]
    check_scheduler(given if isinstance(given, str) else named_object(given["class_path"]))
