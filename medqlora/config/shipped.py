"""The configurations that come with the package: `--config demo` names one wherever the command runs.

A checkout has them in `configs/` beside the package; a wheel has the same files in `medqlora/configs/`.
"""

import os
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


@cache
def shipped_configs() -> dict[str, Path]:
    """Name without ending ("qlora") → file, by name; empty where the files were left out of an installation."""
    folders = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
    folder = next((one for one in folders if (one / "demo.yaml").is_file()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def config_path(name: str) -> str:
    """The file that `--config NAME` means.

    A file of the user's comes first. Then `demo`, `demo.yaml` and `configs/demo.yaml` mean the shipped file, seen from
    the working folder. Any other name stays as it is.
    """
    if Path(name).expanduser().is_file():
        return name
    parent, base = os.path.split(name)
    stem = base.removesuffix(".yaml")
    found = shipped_configs().get(stem) if parent in ("", "configs") else None
    return name if found is None else seen_from_here(found)


def seen_from_here(path: Path) -> str:
    """A path relative to the working folder; as it is where that can't be."""
    try:
        return os.path.relpath(path)
    except (OSError, ValueError):  # no working folder any more, or another drive
        return str(path)
