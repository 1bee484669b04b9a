"""What the tests of the benchmarks share: files in each shape, and a Hub that holds what a test puts there."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medqlora.data import JSONLines
from medqlora.records import Record


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


Read = Callable[..., tuple[list[Record], str]]


@pytest.fixture
def read_rows_as_train(tmp_path: Path) -> Read:
    """Writes rows as a training file (CSV where the name says so) and gives its records and remarks."""

    def read(rows: list[dict], name: str = "t.jsonl", **options: Any) -> tuple[list[Record], str]:
        path = tmp_path / name
        if path.suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        source = JSONLines(str(path), dev_fraction=0, **options)
        return source.read().train, "\n".join(source.remarks)

    return read
