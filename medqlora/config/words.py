"""The words of a command line, parsed once: options with their values, and the configurations they name."""

import difflib
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from medqlora.config.files import Entry, is_config_name, read_config
from medqlora.config.overlays import check_overlays
from medqlora.config.shipped import config_path, seen_from_here, shipped_configs
from medqlora.errors import InputError
from medqlora.utils.console import say

CONFIG_OPTIONS = ("config", "c")
#: options that take no value, or take it after "=" alone
_FLAGS = ("help", "h", "print_config")
_NUMBER = re.compile(r"^-(?:\d+|\d*\.\d+)(?:[eE][-+]?\d+)?$")


@dataclass(frozen=True)
class Option:
    """An option as it was typed.

    Args:
        name: without dashes, and without the "+" that appends to a list; "" for words without an option.
        value: None where none was given.
        strays: further words after the value.
        typed: all of its words.
        append: typed as --name+.
    """

    name: str
    value: str | None
    strays: tuple[str, ...]
    typed: tuple[str, ...]
    append: bool = False


@dataclass(frozen=True)
class CommandLine:
    """The options of a command, in their order; without the command itself."""

    options: tuple[Option, ...]

    @classmethod
    def parse(cls, words: Sequence[str]) -> "CommandLine":
        """Groups words into options."""
        options: list[Option] = []
        index = 0
        while index < len(words):
            start, word = index, words[index]
            index += 1
            name, value, append = "", None, False
            if is_option(word):
                name, equals, text = word.lstrip("-").partition("=")
                append, name = name.endswith("+"), name.removesuffix("+")
                value = text if equals else None
                if not equals and name not in _FLAGS and index < len(words) and not is_option(words[index]):
                    value = words[index]
                    index += 1
            else:
                index = start
            first_stray = index
            while index < len(words) and not is_option(words[index]):
                index += 1
            typed = tuple(words[start:index])
            options.append(Option(name, value, tuple(words[first_stray:index]), typed, append))
        return cls(tuple(options))

    @property
    def words(self) -> list[str]:
        return [word for option in self.options for word in option.typed]

    @cached_property
    def configs(self) -> tuple[str, ...]:
        """The named configurations, in their order: the last one wins."""
        return tuple(str(one.value) for one in self.options if one.name in CONFIG_OPTIONS and one.value)

    @property
    def wants_help(self) -> bool:
        return any(option.name in ("h", "help") for option in self.options)

    def only(self, keep: Callable[[Option], bool]) -> "CommandLine":
        return CommandLine(tuple(option for option in self.options if keep(option)))

    def without(self, *names: str) -> "CommandLine":
        """These words without the options `names` and their values."""
        return self.only(lambda option: option.name not in names)

    def has(self, *prefixes: str) -> bool:
        """Whether an option whose name begins with one of `prefixes` is given."""
        return any(option.name.startswith(prefixes) for option in self.options)

    def text(self, name: str) -> str | None:
        """The last value of an option on the command line; None where it has none there."""
        values = [one.value for one in self.options if one.name == name and one.value is not None]
        return values[-1] if values else None

    def value(self, name: str) -> object:
        """The value of an option, from the command line or the last configuration that has it; else None.

        Args:
            name: with dots and without dashes, as "model.backend.base".

        Raises:
            InputError: a configuration can't be parsed.
        """
        found: object = None
        for config in self.configs:
            entry = read_config(config).root.get(name)
            found = found if entry is None or entry.value is None else entry.value
        text = self.text(name)
        return found if text is None else text

    def class_path(self, name: str) -> str | None:
        """The class that an option names, from the command line or the last configuration that has it.

        Raises:
            InputError: a configuration can't be parsed.
        """
        found: str | None = None
        for config in self.configs:
            found = named_class(read_config(config).root.get(name)) or found
        given = [one.value for one in self.options if one.name in (name, f"{name}.class_path") and one.value]
        return given[-1] if given else found

    def all_values(self, name: str) -> list[str]:
        """Every value of an option that may be repeated, or be followed by several values."""
        values: list[str] = []
        for option in self.options:
            if option.name == name:
                values += [] if option.value is None else [option.value]
                values += option.strays
        return values


def is_option(word: str) -> bool:
    """Whether a word is an option rather than a value, as argparse decides it."""
    if not word.startswith("-") or word == "-" or _NUMBER.match(word):
        return False
    return " " not in word.partition("=")[0]


def named_class(entry: Entry | None) -> str | None:
    """The class that a configuration's entry names."""
    if entry is None:
        return None
    inner = (entry.entries or {}).get("class_path")
    value = inner.value if inner is not None else entry.value
    return value if isinstance(value, str) else None


def config_files(words: Sequence[str]) -> list[str]:
    """The files named by `--config FILE` or `--config=FILE`, in order: the last one wins."""
    return list(CommandLine.parse(words).configs)


def named_backend(words: Sequence[str]) -> str | None:
    """The `class_path` of the backend; see `CommandLine.class_path`."""
    return CommandLine.parse(words).class_path("model.backend")


def resume_command(words: Sequence[str]) -> str:
    """The command that resumes the run that `words` began."""
    kept = CommandLine.parse(words[1:]).without("ckpt_path").words
    return shlex.join(["medqlora", *words[:1], *kept, "--ckpt_path", "last"])


def with_config(words: Sequence[str]) -> list[str]:
    """`words` with the configurations first, in their order, and the demo's where none is named.

    An option on the command line wins over every configuration, wherever it stands. jsonargparse reads words from
    left to right: a configuration would overwrite the options before it, and an option of a class would come
    before the class is known.

    Raises:
        InputError: a named configuration doesn't exist, `--config` names none, a word belongs to no option, or a
            configuration has options of a class that none names.
    """
    line = CommandLine.parse(words)
    for option in line.options:
        _check_form(option)
    line = CommandLine(tuple(map(_with_shipped, line.options)))
    for name in line.configs:
        _check_there(name)
    configs = line.only(lambda option: option.name in CONFIG_OPTIONS)
    options = line.only(lambda option: option.name not in CONFIG_OPTIONS)
    # a class that is named on the command line alone has to be known before a configuration that has its options
    needed = check_overlays(line.configs, {option.name for option in options.options})
    first = [word for key in needed for word in _last(options, key)]
    ordered = [*first, *configs.words, *options.words]
    if line.configs or line.wants_help:
        return ordered
    demo = shipped_configs().get("demo")
    if demo is None:
        return ordered
    shown = seen_from_here(demo)
    say(f"No --config given: running the demo, {shown}")
    return ["--config", shown, *ordered]


def _with_shipped(option: Option) -> Option:
    """A configuration's option with the file that its name means; other options as they are."""
    if option.name not in CONFIG_OPTIONS or not option.value:
        return option
    path = config_path(option.value)
    if path == option.value:
        return option
    return replace(option, value=path, typed=(option.typed[0].partition("=")[0], path))


def _last(options: CommandLine, key: str) -> tuple[str, ...]:
    """The words that give `--key` its value."""
    given = [option for option in options.options if option.name == key and option.value is not None]
    return given[-1].typed[: len(given[-1].typed) - len(given[-1].strays)] if given else ()


def _check_form(option: Option) -> None:
    """Raises InputError for a configuration's option without a value, and for words that belong to no option.

    A stray word after another option is left to the check of that option: `--model.adapter` takes several.
    """
    config = option.name in CONFIG_OPTIONS
    if config and not option.value:
        typed = option.typed[0].partition("=")[0]
        raise InputError(f"{typed}: the file is missing: name one, like configs/demo.yaml")
    if option.strays and (config or not option.name):
        word = option.strays[0]
        fix = "--config" if is_config_name(word) else "--OPTION"
        raise InputError(f"'{word}' belongs to no option: write {fix} {word}, or leave it out")


def _check_there(name: str) -> None:
    """Raises InputError for a configuration that doesn't exist."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise InputError(f"--config {name}: it is a folder: name a file in it")
    if not path.is_file():
        shipped = shipped_configs()
        own = [str(path) for path in Path("configs").glob("*.yaml")]
        near = difflib.get_close_matches(name, [*own, *shipped], 1)
        listed = f": {', '.join(shipped)}" if shipped else ""
        hint = f"did you mean {near[0]}?" if near else f"name a file, or one that comes along{listed}"
        raise InputError(f"--config: there is no file '{name}': {hint}")
