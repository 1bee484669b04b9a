"""Where an option was given, and how its value is shown in a message."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from medqlora.config.files import Entry
from medqlora.config.schema import Option


@dataclasses.dataclass(frozen=True)
class Place:
    """Where options are given: in a file, or on the command line.

    Args:
        file: None for the command line.
        line: of the option at hand, from 1.
    """

    file: str | None = None
    line: int | None = None

    def of(self, key: str) -> str:
        """The beginning of a message on the option `key`."""
        return f"--{key}" if self.file is None else f"{self.file}:{self.line}: {key}"

    def at(self, entry: Entry) -> "Place":
        """The place of an entry of the same file."""
        return self if self.file is None else Place(self.file, entry.line or self.line)


class GivenSource(NamedTuple):
    """The source of the data by the options alone.

    Attributes:
        class_path: its class; "" where it is not known, or stages may read others.
        given: option of the class → value.
    """

    class_path: str
    given: Mapping[str, object]


def is_default(option: Option, entry: Entry) -> bool:
    return type(option.default) is type(entry.value) and option.default == entry.value


def shown(value: object) -> str:
    """A value in a message, as YAML has it, with a space before it."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f" {text}" if text.strip() else ""


def is_file(value: object) -> bool:
    """Whether a value is the name of a file, from which Lightning's parser reads options."""
    try:
        return isinstance(value, str) and value != "" and Path(value).is_file()
    except (OSError, ValueError):
        return False


def may_be_imported(module: str) -> bool:
    """Whether the top package of a module can be found; nothing is imported."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError, AttributeError):
        return True
