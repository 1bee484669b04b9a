"""What is decided about Unsloth before it is imported, which takes a GPU."""

import os
from pathlib import Path

import pytest

from medqlora.models import Unsloth
from medqlora.models.unsloth import compile_folder


def test_each_process_compiles_in_a_folder_of_its_own_though_it_has_the_first_ones_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDQLORA_CACHE", str(tmp_path))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("UNSLOTH_COMPILE_LOCATION", raising=False)
    first = compile_folder()
    monkeypatch.setenv("UNSLOTH_COMPILE_LOCATION", first)
    monkeypatch.setenv(
        "LOCAL_RANK", "1"
    )  # Lightning gives it to a process beside the first one's environment
    assert [Path(first).name, Path(compile_folder()).name] == ["0", "1"]


def test_a_folder_that_the_user_names_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQLORA_CACHE", str(tmp_path))
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("UNSLOTH_COMPILE_LOCATION", os.fspath(tmp_path / "mine"))
    assert compile_folder() == os.fspath(tmp_path / "mine")


def test_an_example_may_be_as_long_as_the_model_is_loaded_for() -> None:
    assert Unsloth("base", max_seq_length=512).positions() == (512, "--model.backend.max_seq_length")
