"""The folders that a test's own process has to import from."""

import os
from pathlib import Path

_TESTS = Path(__file__).parents[1]


def import_path() -> str:
    """PYTHONPATH with the tests' helpers and modules before what it holds already."""
    folders = [str(_TESTS / name) for name in ("helpers", "runs")]
    return os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
