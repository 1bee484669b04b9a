"""One `medqlora serve` for the tests of its API and its page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Served, served, trained_adapter

from medqlora.config.serving import ServeOptions
from medqlora.serving.tokens import new_token


@pytest.fixture(scope="session")
def folders(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name → adapter: the second one's threshold is out of reach."""
    root = tmp_path_factory.mktemp("adapters")
    made = {
        name: trained_adapter(tiny_bases["llama"], root / name, threshold=threshold, seed=seed)
        for seed, (name, threshold) in enumerate({"ward": 0.0, "careful": 2.0, "later": 0.0}.items())
    }
    return {name: str(folder) for name, folder in made.items()}


@pytest.fixture(scope="session")
def live(folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    tokens = folder / "tokens.txt"
    key = new_token(str(tokens), "ward-7", admin=True)
    options = ServeOptions(
        device="cpu",
        tokens=str(tokens),
        rate="100000/minute",
        audit=str(folder / "audit.jsonl"),
        adapter_folder=str(Path(folders["later"]).parent),
        max_new_tokens=96,
        body_mib=0.5,
        context_chars=5000,
        queue=100,
    )
    Served.headers = {"Authorization": f"Bearer {key}"}
    with served(options, {name: folders[name] for name in ("ward", "careful")}) as running:
        yield running
