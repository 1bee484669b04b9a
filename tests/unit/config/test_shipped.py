"""The configurations that come along are found by name from any folder."""

from pathlib import Path

import pytest

from medqlora.config.shipped import config_path, shipped_configs

CONFIGS = Path(__file__).parents[3] / "configs"


def test_every_configuration_is_found_by_name_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = sorted(CONFIGS.rglob("*.yaml"))
    assert {path.resolve() for path in shipped_configs().values()} == set(files)
    for file in files:
        name = file.relative_to(CONFIGS).with_suffix("").as_posix()
        for typed in (name, f"{name}.yaml", f"configs/{name}.yaml"):
            assert Path(config_path(typed)).resolve() == file
    assert config_path("cardiovascular") == "cardiovascular"  # in a folder of its own


def test_a_file_of_the_users_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "configs" / "topics" / "cardiovascular.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("seed_everything: 1\n")
    assert config_path("configs/topics/cardiovascular.yaml") == "configs/topics/cardiovascular.yaml"
    assert Path(config_path("topics/cardiovascular")).resolve() != own
