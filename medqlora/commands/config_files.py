"""Which configurations a command's words name, and what these may name in turn.

The parser is told the same words later. To know what a `class_path` names it has to import its module, from
where Python finds modules and nowhere else: a configuration can't bring one along.
"""

import difflib
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from medqlora.commands.overlays import check_overlays, config_text
from medqlora.errors import InputError

CONFIG_OPTIONS = ("--config", "-c")
#: values in a configuration, its aliases written out: ours have some hundred
_MOST_VALUES = 100_000


def config_files(words: Sequence[str]) -> list[str]:
    """The files named by `--config FILE` or `--config=FILE`, in order: the last wins."""
    names = []
    for place, word in enumerate(words):
        if match := re.fullmatch(r"(?:--config|-c)=(.+)", word, re.DOTALL):
            names.append(match[1])
        elif word in CONFIG_OPTIONS and place + 1 < len(words):
            names.append(words[place + 1])
    return names


def with_config(words: list[str]) -> list[str]:
    """`words` with the configurations first, in their order, and the demo's where none is named.

    An option on the command line wins over every configuration, wherever it stands. jsonargparse reads words from
    left to right, so that a configuration would undo the options before it, and an option of a class would come
    before the class is known.

    Raises:
        InputError: a named configuration doesn't exist, `--config` names none, a word belongs to no option, or a
            configuration has options of a class that none names.
    """
    configs, options = _apart(words)
    names = config_files(configs)
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            raise InputError(f"--config {name}: it is a folder: name a file in it")
        if not path.is_file():
            near = difflib.get_close_matches(name, [str(path) for path in Path("configs").glob("*.yaml")], 1)
            hint = f"did you mean {near[0]}?" if near else "the ones that come along are in configs/"
            raise InputError(f"--config: there is no file '{name}': {hint}")
        check_size(name)
    # a class that is named on the command line alone has to be known before a configuration that has its options
    first = [word for key in check_overlays(names, _given(options)) for word in _named(options, key)]
    words = [*first, *configs, *options]
    if names or "-h" in words or "--help" in words:
        return words
    demo = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"
    if not demo.is_file():
        return words
    shown = os.path.relpath(demo)
    print(f"No --config given: running the demo, {shown}", flush=True)
    return ["--config", shown, *words]


def _apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that name configurations, and the others.

    Raises:
        InputError: as `with_config`.
    """
    configs: list[str] = []
    options: list[str] = []
    place, may_stray = 0, True
    while place < len(words):
        word = words[place]
        place += 1
        if word in CONFIG_OPTIONS:
            if place == len(words) or words[place].startswith("--"):
                raise InputError(f"{word}: the file is missing: name one, like configs/demo.yaml")
            configs += [word, words[place]]
            place += 1
        elif re.match(r"(?:--config|-c)=", word):
            if word.endswith("="):
                raise InputError(f"{word[:-1]}: the file is missing: name one, like configs/demo.yaml")
            configs.append(word)
        elif may_stray and not word.startswith("-"):
            option = "--config" if _looks_like_config(word) else "--OPTION"
            raise InputError(f"'{word}' belongs to no option: write {option} {word}, or leave it out")
        else:
            options.append(word)
            may_stray = False
            continue
        may_stray = True  # a configuration is one word: the next one is none of its values
    return configs, options


def _given(options: Sequence[str]) -> set[str]:
    return {word[2:].split("=", 1)[0] for word in options if word.startswith("--")}


def _named(options: Sequence[str], key: str) -> list[str]:
    """The words that give `--key` a value."""
    found: list[str] = []
    for place, word in enumerate(options):
        if word.startswith(f"--{key}="):
            found = [word]
        elif word == f"--{key}" and place + 1 < len(options):
            found = [word, options[place + 1]]
    return found


def _looks_like_config(word: str) -> bool:
    return word.lower().endswith((".yaml", ".yml", ".json"))


def check_size(name: str) -> None:
    """Refuses a small file that stands for more than can be held, by aliases of aliases or nesting.

    Raises:
        InputError: as said; what else is wrong with it is told where it is read.
    """
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = _MOST_VALUES + 1  # of one that holds itself
            pairs = isinstance(node, yaml.MappingNode)
            parts = [one for pair in node.value for one in pair] if pairs else node.value
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    try:
        node = yaml.compose(config_text(Path(name).expanduser()), Loader=yaml.SafeLoader)
        many = node is not None and size(node) > _MOST_VALUES
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    except RecursionError:
        many = True
    if many:
        raise InputError(f"{name}: its nesting or aliases stand for too many values: write it without them")


def check_classes(options: Any, expected: Mapping[str, type]) -> None:
    """Refuses functions, and classes of another type, before anything is constructed.

    The parser compares a class with its option's type, but where that is a `Callable` it takes any function, and
    would call it: an optimizer `os.system`, or one in a callback's own options.

    Args:
        options: parsed and not yet instantiated; what a mapping is made of is looked through.
        expected: option → what its class has to be, for those that the parser doesn't compare.

    Raises:
        InputError: names the option and what it holds.
    """
    for key, value in walk(options, ""):
        option = key.replace(".init_args", "")
        if callable(value) and not isinstance(value, os.PathLike):  # the parser's own paths can be called
            name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
            raise InputError(f"--{option} {name}: a configuration names classes alone: leave it out")
        if not isinstance(value, Mapping) or not isinstance(value.get("class_path"), str):
            continue
        path = value["class_path"]
        found = named_object(path)
        kind = expected.get(option, object)
        if not isinstance(found, type) or not issubclass(found, kind):
            wanted = "class" if kind is object else f"subclass of {kind.__module__}.{kind.__qualname__}"
            raise InputError(f"--{option} {path}: it is no {wanted}: name one")
        extra = value.get("dict_kwargs")
        taken = inspect.signature(found).parameters.values() if extra else ()
        if extra and not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken):
            raise InputError(f"--{option}: {path} has no option '{next(iter(extra))}': leave dict_kwargs out")


def named_object(path: str) -> Any:
    """What a `class_path` names; None where its module has nothing of the name."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name, None) if module else None


def walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every value with its option's name, the outer ones first."""
    yield key, value
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from walk(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from walk(part, key)
