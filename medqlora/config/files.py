"""Configuration files: YAML or JSON, parsed once into values with their line numbers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import yaml

from medqlora.errors import InputError

#: upper bound of the values in a file, its aliases expanded; the shipped files have some hundred
_MAX_VALUES = 100_000
#: YAML 1.1 reads 1e-4 as text; the parser of the commands reads it as a number, and so does this
_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |\.[0-9_]+(?:[eE][-+][0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_REPLACED_TAGS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """Resolves scalars as jsonargparse does: no timestamps, and numbers such as 1e-4."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own shape
        letter: [(tag, pattern) for tag, pattern in pairs if tag not in _REPLACED_TAGS]
        for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_KNOWN_TAGS = {*yaml.SafeLoader.yaml_constructors, "tag:yaml.org,2002:merge"}


@dataclass(frozen=True)
class Entry:
    """One value of a configuration.

    Args:
        value: plain data.
        line: line of its key, from 1; None outside a file.
        entries: the items of a mapping by name.
        items: the items of a list.
        own_line: line of the value itself.
    """

    value: object
    line: int | None = None
    entries: Mapping[str, "Entry"] | None = None
    items: tuple["Entry", ...] | None = None
    own_line: int | None = None

    def get(self, key: str) -> "Entry | None":
        """The entry of a dotted key; the options of a class stand in `init_args`, or directly in its mapping."""
        entry: Entry | None = self
        for part in key.split("."):
            entries = (entry.entries if entry is not None else None) or {}
            inner = (entries["init_args"].entries or {}) if "init_args" in entries else {}
            entry = inner.get(part) or entries.get(part)
        return entry


@dataclass(frozen=True)
class ConfigFile:
    """A parsed configuration.

    Args:
        name: as the user wrote it.
        root: its mapping.
    """

    name: str
    root: Entry = field(repr=False)


def config_text(path: Path) -> str:
    """The text of a configuration; JSON without the tabs that may indent it, since YAML accepts none.

    Raises:
        OSError, UnicodeDecodeError: it can't be read.
    """
    text = path.read_text(encoding="utf-8")
    return text.replace("\t", " ") if path.suffix.lower() == ".json" else text


def read_config(name: str) -> ConfigFile:
    """Parses a configuration.

    Raises:
        InputError: it is not YAML, not a mapping, sets an option twice, or its aliases expand to too many values.
    """
    path = Path(name).expanduser().absolute()
    try:
        stat = path.stat()
    except OSError:
        return _parsed(name, path, None)
    return _parsed(name, path, (stat.st_mtime_ns, stat.st_size))


def parse_text(text: str) -> Entry:
    """A value of the command line, as YAML reads it; the text itself where it isn't YAML."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return Entry(None)
        _reject_tags(node)
        return _strip_lines(_entry(node, None))
    except (yaml.YAMLError, RecursionError, ValueError):
        return Entry(text)


@lru_cache(maxsize=32)  # a run's config.yaml takes PyYAML a tenth of a second
def _parsed(name: str, path: Path, version: tuple[int, int] | None) -> ConfigFile:
    """The parsed file; `version` tells apart contents of `path` at different times."""
    try:
        node = yaml.compose(config_text(path), Loader=_Loader)
        _check_size(name, node)
        _reject_repeated(name, node, "")
        _reject_tags(node)
        root = Entry(None) if node is None else _entry(node, 1)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or error
        raise InputError(f"{name}{line}: not YAML ({reason}): correct it") from error
    except RecursionError as error:
        raise _too_many(name) from error
    if root.entries is None:
        raise InputError(f"{name}: it holds no options: write them as in configs/demo.yaml, `name: value`")
    return ConfigFile(name, root)


def _entry(node: yaml.Node, line: int | None) -> Entry:
    own = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        items = tuple(_entry(item, item.start_mark.line + 1) for item in node.value)
        return Entry([item.value for item in items], line, items=items, own_line=own)
    constructor = _constructor()
    if isinstance(node, yaml.MappingNode):
        constructor.flatten_mapping(node)  # `<<` brings the pairs of another mapping, before its own
        keys = {
            constructor.construct_object(key, deep=True): (key, value)
            for key, value in node.value
            if isinstance(key, yaml.ScalarNode)
        }
        pairs = {key: _entry(value, name.start_mark.line + 1) for key, (name, value) in keys.items()}
        plain = {key: entry.value for key, entry in pairs.items()}
        return Entry(plain, line, entries={str(key): one for key, one in pairs.items()}, own_line=own)
    return Entry(constructor.construct_object(node, deep=True), line, own_line=own)


def _reject_tags(node: yaml.Node | None) -> None:
    """Raises yaml.constructor.ConstructorError for a tag of Python or of another application, wherever it is."""
    if node is None:
        return
    if node.tag not in _KNOWN_TAGS:
        raise yaml.constructor.ConstructorError(None, None, f"unknown tag {node.tag}", node.start_mark)
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                _reject_tags(part)


def _constructor() -> yaml.SafeLoader:
    return _Loader("")


def _strip_lines(entry: Entry) -> Entry:
    entries = None if entry.entries is None else {k: _strip_lines(e) for k, e in entry.entries.items()}
    items = None if entry.items is None else tuple(_strip_lines(item) for item in entry.items)
    return Entry(entry.value, None, entries, items)


def _check_size(name: str, root: yaml.Node | None) -> None:
    """Raises InputError for a small file that expands, by aliases of aliases or nesting, to too many values."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = _MAX_VALUES + 1  # while it is counted: a node that contains itself
            pairs = isinstance(node, yaml.MappingNode)
            parts = [part for pair in node.value for part in pair] if pairs else node.value
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if root is not None and size(root) > _MAX_VALUES:
        raise _too_many(name)


def _too_many(name: str) -> InputError:
    return InputError(f"{name}: its nesting or aliases stand for too many values: write it without them")


def _reject_repeated(name: str, node: yaml.Node | None, prefix: str) -> None:
    """YAML readers silently take the last of two equal keys; the first may be the intended one."""
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        text = str(key.value)
        if text in first and text != "<<":
            raise InputError(
                f"{name}:{line}: {prefix}{text} is set a second time (first in line {first[text]}): keep one"
            )
        first[text] = line
        _reject_repeated(name, value, f"{prefix}{text}.")


def is_config_name(word: str) -> bool:
    """Whether a word looks like the name of a configuration."""
    return word.lower().endswith((".yaml", ".yml", ".json"))
