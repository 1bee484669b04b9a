"""The demo's base: made once, the same every time, and complete or not there."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from warm_process import WarmProgram

from medqlora.models import tiny_base
from medqlora.models.tiny_base import Recipe, build_tiny_llama

SMALL = Recipe(texts=48, batch_size=8, hidden_size=64, layers=1, heads=2, intermediate_size=64)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDQLORA_CACHE", str(tmp_path))
    return tmp_path


def test_it_is_built_once_and_the_same_bytes_come_of_the_same_seed(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_tiny_llama(recipe=SMALL)
    weights = (folder / "model.safetensors").read_bytes()
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert build_tiny_llama(recipe=SMALL) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    monkeypatch.setenv("MEDQLORA_CACHE", str(cache / "again"))
    assert (build_tiny_llama(recipe=SMALL) / "model.safetensors").read_bytes() == weights


def test_building_leaves_torchs_random_state_as_it_was(cache: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_tiny_llama(recipe=SMALL)
    assert torch.equal(torch.rand(3), expected)


def test_a_build_that_fails_leaves_nothing_half_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("the power went out")

    with monkeypatch.context() as patch:
        patch.setattr(tiny_base, "_batches", fail)
        with pytest.raises(RuntimeError, match="power"):
            build_tiny_llama(recipe=SMALL)
    assert list((cache / "tiny_llama").iterdir()) == []


def test_two_processes_that_build_at_once_end_with_the_same_folder(cache: Path, tmp_path: Path) -> None:
    code = f"from medqlora.models.tiny_base import *; print(build_tiny_llama(recipe={SMALL!r}))"
    logs = [tmp_path / "first.txt", tmp_path / "second.txt"]
    both = [WarmProgram(code, log=log) for log in logs]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    folders = {log.read_text().strip().splitlines()[-1] for log in logs}
    assert folders == {str(build_tiny_llama(recipe=SMALL))}
    assert len(list((cache / "tiny_llama").iterdir())) == 1


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDQLORA_CACHE", str(tmp_path_factory.mktemp("tokenizer")))
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(build_tiny_llama(recipe=SMALL))


def test_each_label_after_a_prompt_is_one_token(tokenizer: object) -> None:
    for label in (" yes", " no", " maybe"):
        assert len(tokenizer(label, add_special_tokens=False)["input_ids"]) == 1  # type: ignore[operator]


@given(text=st.text())
def test_the_tokenizer_gives_any_text_back(tokenizer: object, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    assert tokenizer.decode(ids) == text.replace("<s>", "<s>")  # type: ignore[attr-defined]
