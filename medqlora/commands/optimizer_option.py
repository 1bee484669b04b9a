"""`--model.optimizer` as the parser reads it: a name that people use, or a class with options of its own."""

from collections.abc import Mapping
from typing import Any

from jsonargparse.typing import register_type

from medqlora.commands.classes import named_object
from medqlora.config.optimizers import NamedOptimizer, spelled_out
from medqlora.training.optim import check_optimizer


def take_names(words: list[str]) -> list[str]:
    """Teaches the parser the names; the words, with a name spelled out where options of its class follow."""
    register_type(NamedOptimizer, str, NamedOptimizer, fail_already_registered=False)
    return spelled_out(words)


def check_optimizer_option(module: Mapping[str, Any]) -> None:
    """Raises InputError for an optimizer that can't be used.

    Args:
        module: the module's options, parsed and not yet instantiated.
    """
    given = module["optimizer"]
    kind = given if isinstance(given, str) else named_object(given["class_path"])
    check_optimizer(kind, module["weight_decay"])
