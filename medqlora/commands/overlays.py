"""Configurations that change options of a class which another configuration names."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import yaml

from medqlora.errors import InputError

#: the options whose class the parser can't choose: options of the class may stand there without `init_args` too
ABSTRACT = ("model.backend", "data.source")


def config_text(path: Path) -> str:
    """A configuration's text, of JSON without the tabs that it may be indented with: YAML takes none.

    Raises:
        OSError, UnicodeDecodeError: it can't be read.
    """
    text = path.read_text(encoding="utf-8")
    return text.replace("\t", " ") if path.suffix.lower() == ".json" else text


def check_overlays(names: Sequence[str], given: Collection[str] = ()) -> list[str]:
    """Refuses `init_args` whose class neither this file nor one before it names; the parser speaks of something else.

    Args:
        names: the configurations, in the order in which they are read.
        given: the options that the command line gives, as "model.backend".

    Returns:
        The options of `given` whose class the configurations take for granted.

    Raises:
        InputError: with file and line. What else is wrong with a file is told where it is read.
    """
    classes: dict[str, str] = {}
    needed: list[str] = []
    files = [(name, list(_classes(_composed(name), ""))) for name in names]
    for place, (name, found) in enumerate(files):
        here = {key for key, class_path, _ in found if class_path}
        for key, class_path, line in found:
            if class_path:
                classes[key] = name
            elif key in given and key not in classes:
                needed.append(key)
            elif key not in classes and key not in here:
                later = next(
                    (
                        other
                        for other, rows in files[place + 1 :]
                        if any(row[0] == key and row[1] for row in rows)
                    ),
                    None,
                )
                fix = f"put --config {name} after --config {later}" if later else "add its class_path"
                if "[" not in key and not later:
                    fix += ", or name first a --config that has it"
                raise InputError(f"{name}:{line}: {key} has options of a class and no class_path: {fix}")
    return list(dict.fromkeys(needed))


def _composed(name: str) -> yaml.Node | None:
    try:
        return yaml.compose(config_text(Path(name).expanduser()), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _classes(node: yaml.Node | None, key: str) -> Iterator[tuple[str, bool, int]]:
    """Option, whether a class is named, and line (from 1): of each class, and each mapping with options of one."""
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _classes(item, f"{key}[{number}]")
    if not isinstance(node, yaml.MappingNode):
        return
    parts = {one.value: (one, value) for one, value in node.value if isinstance(one, yaml.ScalarNode)}
    if "class_path" in parts:
        yield key, True, parts["class_path"][0].start_mark.line + 1
    elif parts and "<<" not in parts and ("init_args" in parts or key in ABSTRACT):
        # (a merged mapping, "<<", may bring the class)
        first = parts.get("init_args") or next(iter(parts.values()))
        yield key, False, first[0].start_mark.line + 1
    for name, (_, value) in parts.items():
        inner = key if name == "init_args" else f"{key}.{name}" if key else name
        # an optimizer's name without a module is no class with options of its own
        named = isinstance(value, yaml.ScalarNode) and value.tag == "tag:yaml.org,2002:str"
        if named and (inner != "model.optimizer" or "." in value.value):
            yield inner, True, value.start_mark.line + 1
        yield from _classes(value, inner)
