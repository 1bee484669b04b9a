"""What the commands share that take --library: its adapters, loaded with its topic classifier."""

from typing import TYPE_CHECKING

from medqlora.artifacts.library import Library
from medqlora.config.model import Decoding
from medqlora.config.words import CommandLine
from medqlora.errors import InputError

if TYPE_CHECKING:
    from medqlora.inference.routed import RoutedPredictor
    from medqlora.inference.several import PassLimits


def load_library(
    folder: str,
    *,
    base: str | None = None,
    device: str = "auto",
    generate: bool = True,
    max_new_tokens: int = 96,
    decoding: Decoding = "auto",
    limits: "PassLimits | None" = None,
) -> "RoutedPredictor":
    """Loads a library's base model and adapters; arguments as of `SeveralAdapters.load`.

    Raises:
        InputError: the library or an adapter is damaged, or can't be loaded.
    """
    library = Library.open(folder)
    folders, router = library.folders(), library.router()
    from medqlora.inference.routed import RoutedPredictor
    from medqlora.inference.several import PassLimits, SeveralAdapters

    several = SeveralAdapters.load(
        list(folders.values()),
        base=base,
        device=device,
        generate=generate,
        max_new_tokens=max_new_tokens,
        option="--library",
        decoding=decoding,
        limits=limits or PassLimits(),
    )
    return RoutedPredictor(several, folders, router)


def one_value(line: CommandLine, name: str) -> str:
    """The value of an option of the command.

    Raises:
        InputError: it has none, or several.
    """
    values = line.all_values(name)
    if len(values) != 1:
        raise InputError(f"--{name}: it takes one value: write --{name} VALUE")
    return values[0]
