"""A finished run, for tests of merge and export."""

from pathlib import Path

import pytest
from harness import options, run


@pytest.fixture(scope="session")
def fitted(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with 24 validation and 9 test questions."""
    folder = tmp_path_factory.mktemp("run")
    run("fit", [*options(tiny_bases["llama"], folder, dev=24), "--trainer.max_epochs=1"])
    return folder


@pytest.fixture(scope="session")
def adapter(fitted: Path) -> Path:
    """Its adapter."""
    return fitted / "lightning_logs" / "version_0" / "adapter"
