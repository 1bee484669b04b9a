"""The help of options, from the `Args:` sections of docstrings."""

import inspect
import re

_FIELD = re.compile(r"^(\w+(?:, \w+)*): ?(.*)$")


def summary(kind: type) -> str:
    """The first paragraph of a class's docstring, as one line."""
    text = inspect.getdoc(kind) or ""
    return " ".join(text.partition("\n\n")[0].split())


def arguments(kind: type) -> dict[str, str]:
    """Option → its help, as one line; those of the base classes come first."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found.update(_section(inspect.cleandoc(base.__dict__.get("__doc__") or "")))
    return found


def _section(text: str) -> dict[str, str]:
    lines: dict[str, list[str]] = {}
    names: list[str] = []
    _, _, rest = text.partition("\nArgs:\n")
    for line in rest.split("\n"):
        if line and not line.startswith(" "):
            break
        match = _FIELD.match(line[4:]) if line[4:5] not in ("", " ") else None
        if match:
            names = match[1].split(", ")
            lines.update({name: [match[2]] for name in names})
        elif line.strip():
            for name in names:
                lines[name].append(line.strip())
    return {name: " ".join(" ".join(parts).split()) for name, parts in lines.items()}
