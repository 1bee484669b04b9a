"""The exact versions that this environment has of all that medqlora[dev] brings, and how they differ from a list.

python .ci/versions.py list                                  the packages, a line each, as requirements/ holds them
python .ci/versions.py newest                                the direct dependencies without their upper bounds
python .ci/versions.py compare requirements/tested-cpu.txt   a Markdown table of what is newer or gone
"""

import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("dev", "gguf", "serve")


def direct() -> list[Requirement]:
    """What medqlora[dev, gguf, serve] names, by the installed package's own record."""
    listed = [Requirement(line) for line in metadata.requires("medqlora") or ()]
    environments = [{"extra": extra} for extra in ("", *EXTRAS)]
    return [one for one in listed if one.marker is None or any(map(one.marker.evaluate, environments))]


def closure(todo: list[Requirement]) -> dict[str, str]:
    """Name → version of these packages and of all that they need, as installed here."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        name = normalized(wanted.name)
        key = (name, frozenset(wanted.extras))
        if key in seen or name == "medqlora":
            continue
        seen.add(key)
        try:
            found = metadata.distribution(wanted.name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        versions[name] = found.version
        for line in found.requires or ():
            inner = Requirement(line)
            extras = [{"extra": extra} for extra in ("", *wanted.extras)]
            if inner.marker is None or any(map(inner.marker.evaluate, extras)):
                todo.append(inner)
    return dict(sorted(versions.items()))


def without_upper(requirement: Requirement) -> str:
    """The requirement with its lower bounds and exclusions alone."""
    kept = sorted(str(bound) for bound in requirement.specifier if bound.operator in (">=", ">", "!="))
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{','.join(kept)}"


def read(lines: Iterable[str]) -> dict[str, str]:
    """Name → version of a list of `name==version` lines."""
    pairs = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {normalized(name): version.strip() for name, _, version in pairs}


def table(tested: dict[str, str], here: dict[str, str]) -> str:
    """The differences as Markdown."""
    rows = [
        f"| {name} | {tested.get(name, 'none')} | {here.get(name, 'none')} |"
        for name in sorted({*tested, *here})
        if tested.get(name) != here.get(name)
    ]
    head = ["| package | tested | here |", "|---|---|---|"]
    return "\n".join([*head, *rows]) if rows else "The same versions as tested."


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def main(words: list[str]) -> int:
    if words[:1] == ["list"]:
        print("\n".join(f"{name}=={version}" for name, version in closure(direct()).items()))
    elif words[:1] == ["newest"]:
        print("\n".join(sorted({without_upper(one) for one in direct()})))
    elif words[:1] == ["compare"] and len(words) == 2:
        print(table(read(Path(words[1]).read_text(encoding="utf-8").splitlines()), closure(direct())))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
