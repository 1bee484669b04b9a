"""`--model.optimizer` as the parser reads it: a name that people use, or a class with options of its own."""

from typing import TYPE_CHECKING

from jsonargparse.typing import register_type

from medqlora.commands.classes import named_object
from medqlora.config.optimizers import NamedOptimizer, spelled_out
from medqlora.training.optim import check_optimizer

if TYPE_CHECKING:
    from jsonargparse import Namespace


def take_names(words: list[str]) -> list[str]:
    """Teaches the parser the names; the words, with a name spelled out where options of its class follow."""
    register_type(NamedOptimizer, str, NamedOptimizer, fail_already_registered=False)
    return spelled_out(words)


def check_optimizer_option(options: "Namespace") -> None:
    """Raises InputError for an optimizer that can't be used.

    Args:
        options: the module's, parsed and not yet instantiated.
    """
    given = options["optimizer"]
    kind = given if isinstance(given, str) else named_object(given["class_path"])
    check_optimizer(kind, options["weight_decay"])
