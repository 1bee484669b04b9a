"""What the tests of the benchmarks share: files in each shape, and a Hub that holds what a test puts there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[list[dict], str], str]:
    """Writes rows in the shape that the name says, an object a line or Parquet, and gives the path."""

    def write(rows: list[dict], name: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            from datasets import Dataset

            Dataset.from_list(rows).to_parquet(str(path))
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return str(path)

    return write


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple, list[dict]]:
    """(repository, config or nothing, split) → rows, as `datasets.load_dataset` gives them; another is an error."""
    import datasets

    held: dict[tuple, list[dict]] = {}

    def load_dataset(*names: str, split: str, revision: str | None = None) -> list[dict]:
        key = (*names, split) if revision is None else (*names, split, revision)
        if key not in held:
            raise ConnectionError(f"Couldn't reach {key}\nand a second line")
        return held[key]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return held
