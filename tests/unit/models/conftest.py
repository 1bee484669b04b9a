"""A base whose files a test may change."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from int4_bases import Twins, make_int4

from medqlora.models import hub


@pytest.fixture
def base(tiny_bases: dict[str, Path], tmp_path: Path) -> Iterator[Path]:
    """A copy that may be changed."""
    yield Path(shutil.copytree(tiny_bases["llama"], tmp_path / "base"))
    hub.clear_caches()


@pytest.fixture(scope="session")
def int4_twins(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """Makes GPTQ and AWQ bases of a family, each with its dequantized twin."""

    def made(family: str, layouts: Iterable[str]) -> dict[str, tuple[Path, Path]]:
        folder = tmp_path_factory.mktemp("int4")
        return {layout: make_int4(tiny_bases[family], folder, layout) for layout in layouts}

    return made
