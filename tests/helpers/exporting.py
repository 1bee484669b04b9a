"""`medqlora export` and what it leaves, for tests."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medqlora.cli import main


def export_words(to: str, adapter: Path, out: Path, *more: str) -> list[str]:
    return ["export", "--to", to, "--adapter", str(adapter), "--out", str(out), "--device", "cpu", *more]


def last_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line that ends a command with exit code 2; bars of progress may stand before it."""
    capsys.readouterr()
    assert main(list(words)) == 2
    return capsys.readouterr().err.splitlines()[-1]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def report_of(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def changed_config(adapter: Path, folder: Path, **fields: object) -> Path:
    shutil.copytree(adapter, folder)
    for manifest in folder.glob("*manifest*"):
        manifest.unlink()
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder
