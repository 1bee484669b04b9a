"""Registries: sources, prompts, metrics, fused families and commands that add themselves under a name.

A module adds its class when it is imported. The first look-up imports three kinds of modules: those of the registry's
own package, the entry points of installed packages in the registry's group, and the modules named in the environment
variable `MEDQLORA_PLUGINS` (separated by commas).
"""

import os
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from medqlora.errors import InputError

T = TypeVar("T")
PLUGINS = "MEDQLORA_PLUGINS"


class Registry(Generic[T]):
    """Names and what they stand for, in the order of registration.

    Args:
        kind: what an entry is, for messages ("prompt").
        group: the entry points' group ("medqlora.prompts").
        package: the package whose modules hold the built-in entries; "" for none.
    """

    def __init__(self, kind: str, group: str, package: str = "") -> None:
        self.kind = kind
        self.group = group
        self.package = package
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that adds what it decorates under `name`.

        Raises:
            ValueError: the name belongs to something else.
        """

        def add(entry: T) -> T:
            self.add(name, entry)
            return entry

        return add

    def add(self, name: str, entry: T) -> None:
        """Adds one entry.

        Raises:
            ValueError: the name belongs to something else.
        """
        if self._entries.setdefault(name, entry) is not entry:
            raise ValueError(f"{self.kind} '{name}' is registered twice")

    def names(self) -> tuple[str, ...]:
        """All names, plugins' included."""
        self._load()
        return tuple(self._entries)

    def get(self, name: str) -> T | None:
        """The entry of that name; None where there is none."""
        self._load()
        return self._entries.get(name)

    def built_in(self) -> dict[str, T]:
        """Name → entry, once the modules of the registry's own package are imported; plugins are not looked for."""
        import_modules(self.package)
        return dict(self._entries)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        self._load()
        return iter(tuple(self._entries.items()))

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        if self.package:
            import_modules(self.package)
        for point in entry_points(group=self.group):
            self.add(point.name, point.load())
        import_plugins()


def import_modules(package: str) -> None:
    """Imports every module of a package, in alphabetical order; subpackages are left out."""
    for module in pkgutil.iter_modules(import_module(package).__path__):
        if not module.ispkg:
            import_module(f"{package}.{module.name}")


def import_plugins() -> None:
    """Imports the modules of `MEDQLORA_PLUGINS`, which register what they bring.

    Raises:
        InputError: one of them can't be imported.
    """
    for name in filter(None, (part.strip() for part in os.environ.get(PLUGINS, "").split(","))):
        _import_plugin(name)


def _import_plugin(name: str) -> None:
    try:
        import_module(name)
    except ImportError as error:
        raise InputError(
            f"{PLUGINS}={name}: it can't be imported ({error}): correct the name, or put its folder into PYTHONPATH"
        ) from error
