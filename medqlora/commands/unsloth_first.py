"""Unsloth patches transformers, PEFT and Lightning, so it is imported before them, and only when used."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from medqlora.commands.config_files import check_size, config_files
from medqlora.commands.overlays import config_text
from medqlora.errors import InputError


def import_unsloth_if_named(words: Sequence[str]) -> None:
    """Imports Unsloth when the options, or the last configuration that names a backend, name it.

    Raises:
        InputError: it is named, and not installed or without a GPU; or a configuration is not YAML, holds
            no options, or holds one twice.
    """
    named = named_backend(words)
    if named is not None and named.rsplit(".", 1)[-1] == "Unsloth":
        from medqlora.models.unsloth import import_unsloth

        import_unsloth()


def named_backend(words: Sequence[str]) -> str | None:
    """The `class_path` of the backend that the options, or the last configuration that has one, name.

    Raises:
        InputError: a configuration is not YAML, holds no options, or holds one twice.
    """
    named = None
    for name in config_files(words):
        named = _backend(_read(name)) or named
    for place, word in enumerate(words):
        if word.startswith("--model.backend=") or word.startswith("--model.backend.class_path="):
            named = word.split("=", 1)[1]
        elif word in ("--model.backend", "--model.backend.class_path") and place + 1 < len(words):
            named = words[place + 1]
    return named


def value_of(words: Sequence[str], option: str) -> Any:
    """What an option is given, by the options or the last configuration that has it; None where it is not.

    Args:
        words: a verb's options.
        option: with dots and without dashes, as "model.backend.base".

    Raises:
        InputError: as `named_backend`.
    """
    found = None
    for name in config_files(words):
        value = _read(name)
        for part in option.split("."):
            inner = value.get("init_args") if isinstance(value, dict) else None
            holder = inner if isinstance(inner, dict) and part in inner else value
            value = holder.get(part) if isinstance(holder, dict) else None
        found = found if value is None else value
    for place, word in enumerate(words):
        if word.startswith(f"--{option}="):
            found = word.split("=", 1)[1]
        elif word == f"--{option}" and place + 1 < len(words):
            found = words[place + 1]
    return found


def _read(name: str) -> Any:
    """A configuration as plain values; what jsonargparse would take, or say without file and line, is told."""
    path = Path(name).expanduser().absolute()
    try:
        stat = path.stat()
    except OSError:
        return _parsed(name, path, None)
    return _parsed(name, path, (stat.st_mtime_ns, stat.st_size))


@lru_cache(
    maxsize=32
)  # a run's config.yaml takes PyYAML a tenth of a second, and several options are looked up
def _parsed(name: str, path: Path, version: tuple[int, int] | None) -> Any:
    """The file's values; `version` tells one content of `path` from another."""
    check_size(name)
    try:
        text = config_text(path)
        loaded = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        place = getattr(error, "problem_mark", None)
        line = f":{place.line + 1}" if place is not None else ""
        reason = getattr(error, "problem", None) or error
        raise InputError(f"{name}{line}: not YAML ({reason}): correct it") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{name}: it holds no options: write them as in configs/demo.yaml, `name: value`")
    _reject_repeated(name, node, "")
    return loaded


def _reject_repeated(name: str, node: Any, prefix: str) -> None:
    """YAML's readers take the last of two equal keys silently; the first may be the one that was meant."""
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in first and key.value != "<<":
            raise InputError(
                f"{name}:{line}: {prefix}{key.value} is set a second time (first in line {first[key.value]}): "
                "keep one"
            )
        first[key.value] = line
        _reject_repeated(name, value, f"{prefix}{key.value}.")


def _backend(config: Any) -> str | None:
    try:
        backend = config["model"]["backend"]
        return str(backend["class_path"] if isinstance(backend, dict) else backend)
    except (KeyError, TypeError):
        return None
