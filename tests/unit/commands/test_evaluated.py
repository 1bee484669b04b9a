"""Which adapter is evaluated when none is named: the newest of the same base and data, else the newest, loudly."""

import json
from pathlib import Path
from typing import Any

import pytest

from medqlora.artifacts.runs import RunRecord, newest_adapter
from medqlora.commands.evaluated import choose_weights
from medqlora.commands.given_checkpoint import GivenCheckpoint
from medqlora.data import JSONLines, PubMedQA, Source, SyntheticTrials
from medqlora.models import Transformers
from medqlora.module import QLoRAModule


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import build_base

    return build_base(tmp_path_factory.mktemp("base"))


def rows(path: Path, name: str = "a") -> Path:
    path.write_text(
        json.dumps({"id": name, "question": f"Does {name} help?", "answer": "yes"}) + "\n", "utf-8"
    )
    return path


def finished(root: Path, number: int, base: Path, source: Source | None, name: str | None = None) -> Path:
    """A finished run's folder with an adapter that says what it was trained on; its `adapter/`."""
    import torch
    from safetensors.torch import save_file

    identity = Transformers(str(base)).identity()
    folder = root / f"version_{number}"
    RunRecord("fit", "finished", str(base), identity, finished=f"2026-01-{number + 1:02}").write(folder)
    adapter = folder / "adapter"
    adapter.mkdir()
    save_file({"a": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    if source is not None:
        data = {"name": source.name, **source.fingerprint()}
        record: dict[str, Any] = {"base": str(base), "base_identity": identity, "data": data}
        (adapter / "medqlora.json").write_text(json.dumps(record))
    return adapter


def chosen(
    root: Path, base: Path, source: Source | None, capsys: pytest.CaptureFixture[str]
) -> tuple[str, list[str]]:
    """The adapter that is taken, and what is said."""
    module = QLoRAModule(Transformers(str(base)))
    capsys.readouterr()
    choose_weights(module, "medical", GivenCheckpoint(None), root, source)
    return str(module.adapter), capsys.readouterr().out.splitlines()


def test_the_newest_of_the_same_data_is_preferred_to_a_newer_one_of_other_data(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = JSONLines(str(rows(tmp_path / "own.jsonl")))
    finished(tmp_path, 0, base, PubMedQA("elsewhere.json"))
    mine = finished(tmp_path, 1, base, PubMedQA("ori_pqal.json", fold=3))
    newer = finished(tmp_path, 2, base, own)
    assert chosen(tmp_path, base, PubMedQA(), capsys) == (
        str(mine),
        [
            f"Evaluating the newest finished run's adapter, {mine}",
            f"Note: {newer} is newer, but was trained on other data (JSONLines, {tmp_path / 'own.jsonl'})",
        ],
    )
    # what is asked of no data set goes by the time alone
    assert chosen(tmp_path, base, None, capsys) == (
        str(newer),
        [f"Evaluating the newest finished run's adapter, {newer}"],
    )
    assert newest_adapter(tmp_path) == newer


def test_own_files_are_the_same_data_by_their_path_or_their_bytes(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = rows(tmp_path / "own.jsonl"), rows(tmp_path / "other.jsonl", "b")
    mine = finished(tmp_path, 0, base, JSONLines(str(first), dev_fraction=0.5))
    finished(tmp_path, 1, base, JSONLines(str(other)))
    copy = rows(tmp_path / "copy.jsonl")
    assert chosen(tmp_path, base, JSONLines(str(copy), test=str(other)), capsys)[0] == str(mine)
    rows(first, "c")  # another content under the name
    assert chosen(tmp_path, base, JSONLines(str(first)), capsys)[0] == str(mine)


@pytest.mark.parametrize("recorded", [True, False])
def test_without_one_the_newest_of_the_base_is_taken_with_a_warning(
    recorded: bool, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path, 0, base, PubMedQA("ori_pqal.json"))
    newest = finished(tmp_path, 1, base, SyntheticTrials() if recorded else None)
    (tmp_path / "own.jsonl").write_text("", "utf-8")
    adapter, (first, second) = chosen(tmp_path, base, JSONLines(str(tmp_path / "own.jsonl")), capsys)
    assert adapter == str(newest)
    assert first == f"Evaluating the newest finished run's adapter, {newest}"
    name = "SyntheticTrials" if recorded else "its record does not say which"
    assert second.startswith(f"WARNING: it was trained on other data ({name}")
    assert "--model.adapter" in second


def test_the_same_data_and_newest_needs_no_word_more(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path, 0, base, SyntheticTrials())
    mine = finished(tmp_path, 1, base, PubMedQA("ori_pqal.json"))
    assert chosen(tmp_path, base, PubMedQA("test_set.json"), capsys) == (
        str(mine),
        [f"Evaluating the newest finished run's adapter, {mine}"],
    )
