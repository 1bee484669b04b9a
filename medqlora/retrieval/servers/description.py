"""The description of an index on a server: a YAML file that stands wherever an index file does.

class_path: medqlora.retrieval.OpenSearchIndex
init_args:
  url: https://localhost:9200
  name: literature
"""

import inspect
from importlib import import_module
from pathlib import Path
from typing import cast

from medqlora.config.files import Entry, read_config
from medqlora.errors import InputError
from medqlora.retrieval.searchable import IndexServer

_METHODS = (
    *("open", "select", "create", "write", "finish", "describe", "search", "walk", "fetch", "close", "meta"),
)


def is_description(path: str | Path) -> bool:
    """Whether a path names a description, by its extension."""
    return Path(path).suffix.casefold() in (".yaml", ".yml")


def described(path: str | Path, option: str) -> IndexServer:
    """The index that a description names; nothing is connected yet.

    Args:
        path: the description.
        option: what named it, for messages.

    Raises:
        InputError: there is no such file, or it names no class of an index, or options that the class doesn't have.
    """
    if not Path(path).expanduser().is_file():
        raise InputError(f"{option}: there is no file {path}: write one with class_path and init_args")
    entries = read_config(str(path)).root.entries or {}
    unknown = sorted(entries.keys() - {"class_path", "init_args"})
    if unknown:
        raise InputError(f"{path}: unknown option '{unknown[0]}': write class_path and init_args")
    name = entries["class_path"].value if "class_path" in entries else None
    if not isinstance(name, str) or "." not in name:
        raise InputError(f"{path}: class_path is missing: write medqlora.retrieval.OpenSearchIndex")
    given = entries["init_args"] if "init_args" in entries else Entry(None)
    return _made(str(path), name, {key: one.value for key, one in (given.entries or {}).items()})


def _made(path: str, name: str, arguments: dict[str, object]) -> IndexServer:
    module, _, kind_name = name.rpartition(".")
    try:
        kind = getattr(import_module(module), kind_name, None)
    except ImportError as error:
        raise InputError(f"{path}: class_path {name} can't be imported ({error}): correct it") from error
    if not isinstance(kind, type) or not all(hasattr(kind, method) for method in _METHODS):
        raise InputError(f"{path}: class_path {name} is no class of an index: see docs/evidence.md")
    parameters = inspect.signature(kind).parameters
    for key in arguments:
        if key not in parameters:
            known = ", ".join(parameters)
            raise InputError(f"{path}: init_args: {name} has no option '{key}': it has {known}")
    missing = [key for key, one in parameters.items() if one.default is one.empty and key not in arguments]
    if missing:
        raise InputError(f"{path}: init_args: {missing[0]} is missing: write it")
    try:
        return cast(IndexServer, kind(**arguments))
    except InputError as error:
        raise InputError(f"{path}: init_args: {error}") from error
