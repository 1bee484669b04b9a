"""The configurations that come with the package: `--config demo` names one wherever the command runs.

A checkout has them in `configs/` beside the package; a wheel has the same files in `medqlora/configs/`.
"""

import os
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


@cache
def shipped_configs() -> dict[str, Path]:
    """Name without ending ("qlora", "topics/neoplasms") → file; empty where an installation left the files out."""
    folders = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
    folder = next((one for one in folders if (one / "demo.yaml").is_file()), None)
    if folder is None:
        return {}
    files = [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*/*.yaml"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def config_path(name: str) -> str:
    """The file that `--config NAME` means.

    A file of the user's comes first. Then `demo`, `demo.yaml` and `configs/demo.yaml` mean the shipped file, seen from
    the working folder, and so do the names of those in a folder, as `topics/neoplasms`. Any other name stays as it is.
    """
    if Path(name).expanduser().is_file():
        return name
    short = name.replace(os.sep, "/").removeprefix("configs/").removesuffix(".yaml")
    found = shipped_configs().get(short)
    return name if found is None else seen_from_here(found)


def seen_from_here(path: Path) -> str:
    """A path relative to the working folder; as it is where that can't be."""
    try:
        return os.path.relpath(path)
    except (OSError, ValueError):  # no working folder any more, or another drive
        return str(path)
