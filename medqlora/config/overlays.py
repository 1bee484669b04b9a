"""Configurations that change the options of a class that another configuration names."""

from collections.abc import Collection, Iterator, Sequence

from medqlora.config.files import Entry, read_config
from medqlora.errors import InputError

#: options whose class the parser can't choose: their class's options may stand there without `init_args` too
ABSTRACT = ("model.backend", "data.source")


def check_overlays(names: Sequence[str], given: Collection[str] = ()) -> list[str]:
    """Refuses `init_args` whose class is named neither in the same file nor in one before it.

    Args:
        names: the configurations, in the order in which they are read.
        given: the options on the command line, as "model.backend".

    Returns:
        The options of `given` whose class the configurations take for granted.

    Raises:
        InputError: with file and line; or a file can't be parsed.
    """
    classes: dict[str, str] = {}
    needed: list[str] = []
    files = [(name, list(_classes(read_config(name).root, ""))) for name in names]
    for index, (name, found) in enumerate(files):
        here = {key for key, class_path, _ in found if class_path}
        for key, class_path, line in found:
            if class_path:
                classes[key] = name
            elif key in given and key not in classes:
                needed.append(key)
            elif key not in classes and key not in here:
                later = [
                    other
                    for other, rows in files[index + 1 :]
                    if any(row_key == key and named for row_key, named, _ in rows)
                ]
                fix = f"put --config {name} after --config {later[0]}" if later else "add its class_path"
                if "[" not in key and not later:
                    fix += ", or name first a --config that has it"
                raise InputError(f"{name}:{line}: {key} has options of a class and no class_path: {fix}")
    return list(dict.fromkeys(needed))


def _classes(entry: Entry, key: str) -> Iterator[tuple[str, bool, int | None]]:
    """Option, whether a class is named, and line: of each class, and of each mapping with options of a class."""
    for number, item in enumerate(entry.items or ()):
        yield from _classes(item, f"{key}[{number}]")
    parts = entry.entries or {}
    if "class_path" in parts:
        yield key, True, parts["class_path"].line
    elif parts and ("init_args" in parts or key in ABSTRACT):
        first = parts.get("init_args") or next(iter(parts.values()))
        yield key, False, first.line
    for name, part in parts.items():
        inner = key if name == "init_args" else f"{key}.{name}" if key else name
        # an optimizer's name without a module is not a class with options of its own
        if isinstance(part.value, str) and (inner != "model.optimizer" or "." in part.value):
            yield inner, True, part.line
        yield from _classes(part, inner)
