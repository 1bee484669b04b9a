"""Base models that the fused decoder's tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fused_models import LAYERS, VARIANTS
from tiny import build_base


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a variant's base model, built at its first use."""
    root = tmp_path_factory.mktemp("fused")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            family, changes = VARIANTS[name]
            build_base(root / name, family, layers=LAYERS, **changes)
        return root / name

    return folder
