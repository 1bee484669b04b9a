"""Fixtures for files from strangers."""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from strangers import Refused, harmful

from medqlora import cli


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """What code of a stranger would leave; after the test it is not there."""
    path = tmp_path / "harmed"
    yield path
    assert not path.exists(), "code of a stranger was run"


@pytest.fixture
def stranger(mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that can be imported and leaves the mark; `y` waits on the terminal."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "stranger.py").write_text(harmful(mark), encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    yield "stranger"
    assert "stranger" not in sys.modules


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that has to end with 2; its one line."""

    def refuse(*given: str) -> str:
        capsys.readouterr()
        assert cli.main(list(given)) == 2
        lines = [line for line in re.split(r"[\r\n]+", capsys.readouterr().err) if "medqlora: " in line]
        assert len(lines) == 1
        assert lines[0].startswith("medqlora: error: ")
        return lines[0].removeprefix("medqlora: error: ")

    return refuse
