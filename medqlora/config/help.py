"""The help of Lightning's verbs, from the schema of their options."""

import shutil
import textwrap
from collections.abc import Iterable, Iterator

from medqlora.config.command_options import COMMAND_OPTIONS
from medqlora.config.schema import (
    REQUIRED,
    Kind,
    Option,
    class_options,
    class_summary,
    known_classes,
    options,
)
from medqlora.config.values import type_name

_USAGE = """usage: medqlora {command} [--config FILE ...] [--OPTION VALUE ...]

{line}

Configurations compose; an option on the command line wins over all of them. Without --config the demo runs.

general:
  -h, --help
      Show this help.
  --config FILE
      Read options from a YAML or JSON file. May be repeated: the last one wins.
  --print_config
      Print the resulting configuration and do nothing else.
  --debug
      Show where an error came from.
"""
#: characters of choices that go on the line of the option
_LONG = 50
#: the options with a class of their own: their help follows that of their group
_CLASSES: tuple[tuple[str, Kind], ...] = (("model.backend", "backend"), ("data.source", "source"))


def verb_help(command: str, verb: str, line: str) -> str:
    """The text of `medqlora COMMAND --help`.

    Args:
        command: what the user types.
        verb: Lightning's, whose options the command takes.
        line: what the command does, in a line.
    """
    width = max(60, min(shutil.get_terminal_size((110, 24)).columns, 110))
    parts = [_USAGE.format(command=command, line=line)]
    for own in COMMAND_OPTIONS.get(command, ()):
        parts.append(f"  --{own.name} {own.value}\n")
        parts.append(
            textwrap.fill(own.help, width, initial_indent="      ", subsequent_indent="      ") + "\n"
        )
    for group, listed in grouped(options(verb).values()):
        if group:
            parts.append(f"\n{group}:\n")
        parts += _entries(listed, width)
        for key, kind in _CLASSES:
            if group == key.partition(".")[0]:
                parts += _class_entries(key, kind, width)
    parts.append(
        "\nA CLASS is a class_path, package.module.Class, of your own too; its options are --OPTION.NAME.\n"
        f"`medqlora {command} --model.backend.help CLASS` shows those of any class; "
        "so do\n--data.source.help, --trainer.logger.help, ….\n"
    )
    return "".join(parts)


def grouped(listed: Iterable[Option]) -> list[tuple[str, list[Option]]]:
    """Options by their first name, in order: "model.lora.r" is in "model"; those without a group in ""."""
    found: dict[str, list[Option]] = {}
    for option in listed:
        group = option.name.partition(".")[0] if "." in option.name else ""
        found.setdefault(group, []).append(option)
    return list(found.items())


def kind_text(option: Option) -> str:
    """What an option takes, in a word or its choices."""
    if option.kind in ("backend", "source") or option.many:
        return "CLASS"
    if option.kind:
        return "NAME|CLASS"
    return "VALUE" if option.hint is object else type_name(option.hint)


def default_text(option: Option) -> str:
    """A default as YAML has it; "required" where there is none."""
    default = option.default
    if default is REQUIRED:
        return "required"
    if isinstance(default, bool) or default is None:
        return {True: "true", False: "false", None: "null"}[default]
    if isinstance(default, float) and default == int(default):
        return str(int(default))
    return str(default)


def _class_entries(key: str, kind: Kind, width: int) -> Iterator[str]:
    for class_path in known_classes(kind):
        listed = class_options(kind, class_path, key) or {}
        yield f"\n{key} {class_path}:\n"
        yield (
            textwrap.fill(class_summary(kind, class_path), width, initial_indent="  ", subsequent_indent="  ")
            + "\n"
        )
        yield from _entries(listed.values(), width)


def _entries(listed: Iterable[Option], width: int) -> Iterator[str]:
    for option in listed:
        kinds, text = kind_text(option), option.help
        if len(kinds) > _LONG:
            kinds, text = "CHOICE", f"{text} One of {kinds.replace('|', ', ')}."
        default = "required" if option.default is REQUIRED else f"default: {default_text(option)}"
        yield f"  --{option.name} {kinds}  ({default})\n"
        yield textwrap.fill(text, width, initial_indent="      ", subsequent_indent="      ") + "\n"
