"""The option references of docs/configuration.md and docs/serve.md; the commands' table of README.md and docs/index.md.

`python -m medqlora.config.reference` rewrites their marked blocks; a test fails when they differ.
"""

from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from medqlora.config.help import default_text, grouped, kind_text
from medqlora.config.schema import VERBS as _VERBS
from medqlora.config.schema import Kind, Option, class_options, class_summary, fields, known_classes, options
from medqlora.config.serving import ServeOptions

ROOT = Path(__file__).resolve().parents[2]
_BEGIN, _END = "<!-- generated: {name} -->", "<!-- end of generated: {name} -->"
_CLASSES: tuple[tuple[str, Kind], ...] = (("model.backend", "backend"), ("data.source", "source"))


def option_tables() -> str:
    """Every option of Lightning's verbs, a table a group and a class."""
    listed: dict[str, Option] = {}
    for verb in _VERBS:
        listed.update(options(verb))
    parts: list[str] = []
    for group, members in grouped(listed.values()):
        parts += [f"## {group or 'general'}", "", *_table(members)]
        for key, kind in _CLASSES:
            if group == key.partition(".")[0]:
                for class_path in known_classes(kind):
                    parts += [f"`{key}` `{class_path}`: {class_summary(kind, class_path)}", ""]
                    parts += _table((class_options(kind, class_path, key) or {}).values())
    return "\n".join(parts)


def serve_table() -> str:
    """The options of `medqlora serve`."""
    listed = []
    for option in fields(ServeOptions, ""):
        several = option.hint == tuple[str, ...]
        named = replace(option, name=f"--{option.name.lstrip('.')}")
        listed.append(replace(named, hint=str, default=None) if several else named)
    return "\n".join(_table(listed))


def command_table() -> str:
    """The commands, a line each."""
    commands = import_module("medqlora.commands.registry").commands()
    rows = [f"| `medqlora {name}` | {command.help} |" for name, command in commands.items()]
    return "\n".join(["| command | does |", "|---|---|", *rows, ""])


def with_block(text: str, name: str, block: str) -> str:
    """`text` with its marked block replaced.

    Raises:
        ValueError: it has no such block.
    """
    begin, end = _BEGIN.format(name=name), _END.format(name=name)
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise ValueError(f"there is no block '{name}'")
    return f"{before}{begin}\n\n{block}\n{end}{rest.partition(end)[2]}"


def pages() -> dict[Path, str]:
    """Page → its text with the blocks of this moment."""
    return {
        path: with_block(path.read_text(encoding="utf-8"), name, block())
        for path, name, block in (
            (ROOT / "docs" / "configuration.md", "options", option_tables),
            (ROOT / "docs" / "serve.md", "serve", serve_table),
            (ROOT / "README.md", "commands", command_table),
            (ROOT / "docs" / "index.md", "commands", command_table),
        )
    }


def _table(listed: Iterable[Option]) -> list[str]:
    rows = []
    for option in listed:
        default = "required" if default_text(option) == "required" else f"`{default_text(option)}`"
        kinds, text = kind_text(option).replace("|", ", "), option.help.replace("|", "\\|")
        rows.append(f"| `{option.name}` | {default} | {kinds} | {text} |")
    return ["| option | default | type | meaning |", "|---|---|---|---|", *rows, ""]


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
