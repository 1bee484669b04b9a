"""A base whose files a test may change."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from medqlora.models import hub


@pytest.fixture
def base(tiny_bases: dict[str, Path], tmp_path: Path) -> Iterator[Path]:
    """A copy that may be changed."""
    yield Path(shutil.copytree(tiny_bases["llama"], tmp_path / "base"))
    hub.clear_caches()
