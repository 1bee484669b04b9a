"""A property of a `torch.nn.Module` whose own AttributeError reaches the caller."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")
#: where an object keeps the error of a property until `raise_property_error` takes it
_ERROR = "_property_error"


class ModuleProperty(Generic[T]):
    """A read-only property for modules, used as `property` is.

    Python answers an AttributeError inside a property with a call of `__getattr__`, and `nn.Module.__getattr__`
    raises "object has no attribute 'chosen'" in its place. This property keeps the error; the module's
    `__getattr__` calls `raise_property_error` first.
    """

    def __init__(self, getter: Callable[[Any], T]) -> None:
        self.getter = getter
        self.__doc__ = getter.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, module: None, kind: type) -> "ModuleProperty[T]": ...
    @overload
    def __get__(self, module: object, kind: type | None = None) -> T: ...
    def __get__(self, module: object | None, kind: type | None = None) -> "T | ModuleProperty[T]":
        if module is None:
            return self
        try:
            return self.getter(module)
        except AttributeError as error:
            module.__dict__[_ERROR] = (self.name, error)
            raise

    def __set__(self, module: object, value: object) -> None:
        raise AttributeError(f"{self.name} can't be set")


def raise_property_error(module: object, name: str) -> None:
    """Raises the error that the property `name` has just ended with; does nothing for any other attribute."""
    kept = module.__dict__.get(_ERROR)
    if kept is not None and kept[0] == name:
        del module.__dict__[_ERROR]
        raise kept[1]
