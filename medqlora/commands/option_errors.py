"""jsonargparse's messages as one line each: where the option stands, what it holds, and the fix."""

import ast
import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from medqlora.commands.classes import walk
from medqlora.config.words import config_files
from medqlora.errors import InputError

_KEY = re.compile(r'^Parser key "([^"]+)":\s*')
_CLASS = re.compile(r"^-?\s*Problem with given class_path '([^']+)':\s*")
_NOT_ACCEPTED = re.compile(r"Option '([^']+)' is not accepted")
_UNRECOGNIZED = re.compile(r"[Uu]nrecognized arguments: (\S+)")
_SUBCOMMAND = re.compile(r"Subcommand '[^']+' does not accept option '([^']+)'")
_NO_VALUE = re.compile(r"argument (--\S+): expected (?:one|at least one) argument")
_REQUIRED = re.compile(r"following arguments are required: (\S+)|Option '(\S+)' is required")
_GIVEN_CLASS = re.compile(r"class_path='([^']+)'")
_NO_CLASS = re.compile(
    r"Problem with given class_path '([^']+)': No module named|Expected a dot import path string: (\S+)"
)
_ABSENT = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_VALUE = re.compile(r"(?:Given value|Got value): (.*)$")
_LITERAL = re.compile(r"typing\.Literal(\[[^\]]*\])")
_SIMPLE = re.compile(r"Expected an? <class '([\w.]+)'>")
_SOURCES = tuple(
    f"medqlora.data.{name}"
    for name in (
        "PubMedQA",
        "JSONLines",
        "SyntheticTrials",
        "MedQA",
        "MedMCQA",
        "MedicalMMLU",
        "BioASQ",
        "Mirage",
    )
)
_OURS = {
    "model.backend": ("medqlora.models.Transformers", "medqlora.models.Unsloth", "medqlora.models.TinyLlama"),
    "data.source": _SOURCES,
    "data.benchmarks": _SOURCES,
}
#: what other trainers call an option → ours
_OTHER_NAMES = {
    "lr": "model.learning_rate",
    "rank": "model.lora.r",
    "lora_r": "model.lora.r",
    "lora_rank": "model.lora.r",
    "lora_alpha": "model.lora.alpha",
    "lora_dropout": "model.lora.dropout",
    "target_modules": "model.lora.target_modules",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "output_dir": "trainer.default_root_dir",
    "model_name": "model.backend.base",
    "model_name_or_path": "model.backend.base",
    "base_model": "model.backend.base",
    "per_device_train_batch_size": "data.batch_size",
    "gradient_accumulation_steps": "data.batch_size",
    "max_seq_length": "data.max_prompt_tokens",
    "seed": "seed_everything",
    "dataset": "data.source",
    "resume": "ckpt_path",
    "resume_from_checkpoint": "ckpt_path",
}
_WANTED = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


def one_line(message: str, options: Iterable[str], words: Sequence[str]) -> str:
    """What to print for a parser's error.

    Args:
        message: as jsonargparse raised it.
        options: every option that the command takes, as "model.lora.r".
        words: what was given to the command. An option that stands in one of the configurations named
            there, and not on the command line itself, is shown with file and line.
    """
    message = " ".join(message.split())
    unknown = _UNRECOGNIZED.search(message) or _SUBCOMMAND.search(message)
    if unknown:
        if _UNRECOGNIZED.search(message) and not unknown[1].startswith("-"):
            return f"'{unknown[1]}' belongs to no option: write --OPTION {unknown[1]}, or leave it out"
        key = unknown[1].lstrip("-").split("=", 1)[0]
        return f"{_place(key, words)}: there is no such option{_nearest(key, options)}"
    if lacking := _NO_VALUE.search(message):
        return f"{lacking[1]}: its value is missing: write {lacking[1]} VALUE"
    required = _REQUIRED.search(message)
    if required and not _KEY.match(message):
        option = (required[1] or required[2]).split(".", 1)[-1]  # "fit.model.backend"
        return f"--{option} is missing: pass it, or a --config that sets it (configs/demo.yaml does)"
    whole, key, class_path = message, "", ""
    while match := _KEY.match(message) or _CLASS.match(message):
        if match.re is _KEY:
            key = f"{key}.{match[1]}" if key else match[1]
        else:
            class_path = match[1]
        message = message[match.end() :]
    if not key:
        return message
    if absent := _ABSENT.search(message):
        module, name = absent.groups()
        return (
            f"{_place(key, words)} {module}.{name}: there is no such class{_nearest(name, _classes(module))}"
        )
    if (nowhere := _NO_CLASS.search(whole)) and "Literal" not in whole:
        name = nowhere[1] or nowhere[2]
        return f"{_place(key, words)} {name}: there is no such class{_nearest_class(name, key)}"
    if not class_path and (given := _GIVEN_CLASS.search(message)):  # where a union's types are gone through
        class_path = given[1]
    if required:
        option = required[1] or required[2]
        place = f"{_place(key, words)} {class_path}"
        if not isinstance(_named(class_path), type):
            return f"{place}: it is no class: name one"
        return f"{place}: its option '{option}' is missing: write --{key}.{option} VALUE"
    if refused := _NOT_ACCEPTED.search(message):
        return (
            f"{_place(f'{key}.{refused[1]}', words)}: {class_path} has no option "
            f"'{refused[1]}'{_nearest(refused[1], _parameters(class_path))}"
        )
    inner = sorted(option for option in options if option.startswith(f"{key}."))
    if "Unable to load config" in message and inner:
        value = re.search(r"Unable to load config ['\"](.*?)['\"]", message)
        shown = f" {value[1]}" if value else ""
        return f"{_place(key, words)}{shown}: it has options of its own: write --{inner[0]}, --{inner[-1]}, …"
    value = _VALUE.search(message)
    shown = f" {value[1]}" if value else ""
    choices = [str(choice) for found in _LITERAL.findall(message) for choice in ast.literal_eval(found)]
    found = dict.fromkeys(kind for kind in _SIMPLE.findall(message) if kind != "NoneType")
    kinds = " or ".join(_WANTED.get(kind, kind) for kind in found)
    if choices:
        numbers = any(choice.isdigit() for choice in choices)  # of which the choices are a part
        wanted = f"it has to be {kinds}, or " if kinds and not numbers else "choose "
        wanted += "one of " + ", ".join(dict.fromkeys(choices))
        wanted += ", or a class_path" if "dot import path" in message else ""
        if key == "model.optimizer" and value:
            from medqlora.training.optimizer_names import nearest_name

            near = nearest_name(value[1].strip("'\""))
            wanted += f": did you mean '{near}'?" if near else ""
    elif kinds:
        wanted = f"it has to be {kinds}"
    else:
        wanted = message if value is None else message[: value.start()].strip()
    return f"{_place(key, words)}{shown}: {wanted}"


def not_made(error: ValueError, options: Any) -> InputError | None:
    """What the parser says of a class of the user's choice whose constructor failed; None for another error.

    Args:
        error: that the parser raised.
        options: parsed and not yet instantiated.
    """
    message = str(error)
    alone = re.search(r"Problem with given class_path '([^']+)':\s*(.*)", message)
    listed = re.search(
        r"Union subtypes.*?\n  - ([^\n]*).*Given value: \[.*?class_path='([^']+)'", message, re.DOTALL
    )
    if alone:
        class_path, why = alone.groups()
    elif listed:
        why, class_path = listed.groups()
    else:
        return None
    keys = [
        key
        for key, value in walk(options, "")
        if isinstance(value, Mapping) and value.get("class_path") == class_path
    ]
    option = f"--{keys[0].replace('.init_args', '')} " if keys else ""
    return InputError(f"{option}{class_path}: {why.strip()}")


def _place(key: str, words: Sequence[str]) -> str:
    """ "--key", or "file:line: key" where a configuration (the last one that does) sets it."""
    if any(word.split("=", 1)[0] == f"--{key}" for word in words):
        return f"--{key}"
    for name in reversed(config_files(words)):
        line = _line(Path(name).expanduser(), key.split("."))
        if line is not None:
            return f"{name}:{line}: {key}"
    return f"--{key}"


def _line(path: Path, parts: list[str]) -> int | None:
    """The line (from 1) where a YAML file sets the option; `init_args` may stand between its parts."""
    try:
        node: Any = yaml.compose(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    line = None
    for part in parts:
        found = _child(node, part) or _child(getattr(_child(node, "init_args"), "value_node", None), part)
        if found is None:
            return None
        line, node = found.line, found.value_node
    return line


class _Child:
    def __init__(self, line: int, value_node: Any) -> None:
        self.line = line
        self.value_node = value_node


def _child(node: Any, name: str) -> _Child | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if key.value == name:
            return _Child(key.start_mark.line + 1, value)
    return None


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    if (other := _OTHER_NAMES.get(name.rsplit(".", 1)[-1].replace("-", "_").lower())) in names:
        return f": did you mean '{other}'?"
    near = difflib.get_close_matches(name, names, 1, 0.6)
    if not near:  # a right name in the wrong place: model.rank for model.lora.r is far, lora.rank is not
        last = name.rsplit(".", 1)[-1]
        near = [candidate for candidate in names if candidate.rsplit(".", 1)[-1] == last][:1]
    return f": did you mean '{near[0]}'?" if near else " (see --help)"


def _nearest_class(name: str, key: str) -> str:
    """The one of ours that resembles `name`, or all of them, for an option that takes one of ours."""
    ours = {path.rsplit(".", 1)[-1]: path for path in _OURS.get(key, ())}
    if not ours:
        return ": write the class with its module, like torch.optim.AdamW"
    near = difflib.get_close_matches(name.rsplit(".", 1)[-1], ours, 1, 0.5)
    return f": did you mean '{ours[near[0]]}'?" if near else ": choose one of " + ", ".join(ours.values())


def _classes(module: str) -> list[str]:
    return list(getattr(import_module(module), "__all__", ()))


def _parameters(class_path: str) -> list[str]:
    named = _named(class_path)
    if hasattr(named, "option_names"):
        return list(named.option_names())
    return list(inspect.signature(named).parameters)


def _named(class_path: str) -> Any:
    """What the parser has found under this name already."""
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)
