"""library.toml: written and read back, and refused where it is wrong."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medqlora.artifacts.library import Entry, Library
from medqlora.cli import main
from medqlora.compat.toml import read_toml, write_toml
from medqlora.errors import InputError
from medqlora.records import Record

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")


def entry(name: str, *topics: str) -> Entry:
    return Entry(
        name,
        f"adapters/{name}",
        "0" * 64,
        'C:\\base "x"',
        "sha256:1",
        topics,
        test={"accuracy": 0.5, "accuracy_ci95": [0.4, 0.6]},
    )


def test_what_is_written_is_toml_and_is_read_back() -> None:
    content = {
        "text": 'a "quote" \\ and \t tab, é, 𝛼, \x7f and \x01',
        "numbers": [1, -2.5, 1e-9],
        "yes": True,
        "empty": [],
        "a key": {"inner": {"x": 1}, "y": "z"},
        "rows": [{"name": "a", "part": {"n": 1}}, {"name": "b"}],
    }
    assert tomllib.loads(write_toml(content)) == content
    assert read_toml(write_toml({"none": None, "x": 1})) == {"x": 1}


def test_a_library_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    entries = {one.name: one for one in (entry("heart", "Heart Diseases", "Stroke"), entry("all"))}
    saved = Library(tmp_path, "all", entries).saved()
    found = Library.open(str(tmp_path))
    assert found == saved
    assert found.names == ["all", "heart"]
    assert [one.name for one in found.specialised] == ["heart"]
    assert found.entries["heart"].has_topic(Record("a", "?", topics=("Humans", "heart diseases")))
    assert not found.entries["heart"].has_topic(Record("a", "?", topics=("Heart",)))
    assert found.router() is None


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("version = 1", "version = 2", "version 2"),
        ('general = "all"', 'general = "none"', "general"),
        ("version = 1", "version = ", "not TOML"),
        ('adapter = "adapters/heart"', 'adapter = "../elsewhere"', "outside"),
        ('name = "heart"', 'name = "he art"', "NAME"),
        ('name = "heart"', 'name = "all"', "two adapters have the name 'all'"),
        ("version = 1", f"version = {'[' * 100_000}", "not TOML"),
        ('topics = ["Heart Diseases"]', "topics = 3", "topics"),
        ('sha256 = "00', 'sha257 = "00', "sha256"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(old: str, new: str, named: str, tmp_path: Path) -> None:
    Library(
        tmp_path, "all", {one.name: one for one in (entry("all"), entry("heart", "Heart Diseases"))}
    ).saved()
    file = tmp_path / "library.toml"
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")
    with pytest.raises(InputError, match=named):
        Library.open(str(tmp_path))


def test_an_adapter_that_is_a_link_out_of_the_library_is_refused(tmp_path: Path) -> None:
    made = Library(tmp_path / "library", "all", {"all": entry("all")})
    (tmp_path / "elsewhere").mkdir()
    (made.path / "adapters").mkdir(parents=True)
    (made.path / "adapters" / "all").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(InputError, match="outside the library"):
        made.saved().folders()


def test_a_folder_without_a_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"library\.toml"):
        Library.open(str(tmp_path))


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        (
            {"temperature": 1.3, "threshold": 0.714, "n": 50},
            "marked as uncertain below a confidence of 71% (learned on 50",
        ),
        (
            {"temperature": 1.3, "threshold": 2.0, "n": 12},
            "every answer is marked as uncertain: no confidence was high enough (learned on 12",
        ),
        ({}, "none: the confidence was not compared"),
    ],
)
def test_an_adapter_is_shown_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], calibration: dict[str, object], said: str
) -> None:
    compared = {
        "dataset": "PubMedQA",
        "n": 80,
        "difference": -0.05,
        "mcnemar_p_holm": 0.31,
        "verdict": "may be chance",
    }
    base = str(tmp_path / "tiny_llama" / ("0" * 16))
    heart = replace(
        entry("heart", "Heart Diseases", "Stroke"), base=base, calibration=calibration, compared=compared
    )
    Library(tmp_path, "all", {"all": entry("all"), "heart": heart}).saved()
    words = ["library", "show", "heart", "--library", str(tmp_path)]
    assert main(words) == 0
    shown = dict(
        line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if " " in line.strip()
    )
    assert shown["base"] == "the demo's base model"
    assert said in shown["calibration"]
    assert shown["topics"] == "Heart Diseases, Stroke"
    assert shown["test"].startswith("accuracy 50.0% (95% interval 40.0% to 60.0%)")
    assert shown["compared"].startswith("-5.0 points of accuracy")
    assert shown["compared"].endswith("p 0.310: may be chance")
    assert shown["general"] == "no"
    assert main([*words, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["base"], plain["calibration"]) == (base, calibration)
