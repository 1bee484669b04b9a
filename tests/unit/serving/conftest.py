"""An engine with two adapters on a tiny base, one for each file of tests."""

from pathlib import Path

import pytest
from served import trained_adapter

from medqlora.safety import NOTE
from medqlora.serving.engine import EngineSpec
from medqlora.serving.engines.local import LocalEngine


@pytest.fixture(scope="module")
def spec(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    root = tmp_path_factory.mktemp("adapters")
    adapters = {
        name: str(trained_adapter(tiny_bases["llama"], root / name, threshold=0.0, seed=seed))
        for seed, name in enumerate(("ward", "other"))
    }
    return EngineSpec("local", adapters, None, None, "cpu", NOTE, 16, 4096, 8)


@pytest.fixture(scope="module")
def engine(spec: EngineSpec) -> LocalEngine:
    return LocalEngine.start(spec)
