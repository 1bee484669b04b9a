"""What names an adapter: its folder, a run's folder, or the Hub; and a base that it wasn't trained on is told."""

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
from base_files import change_config, make_adapter
from harness import options, run
from tiny import build_base, hub_cache

from medqlora import cli
from medqlora.errors import InputError
from medqlora.models.adapters import base_remark, read_adapter
from medqlora.models.adapters.source import _FETCHED, find_adapter


@pytest.fixture(scope="module")
def base(tiny_bases: dict[str, Path]) -> Path:
    return tiny_bases["llama"]


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and one finished run."""
    folder = tmp_path_factory.mktemp("finished")
    run("fit", [*options(base, folder), "--trainer.max_steps=1", "--model.generate=false"])
    return folder


@pytest.fixture
def foreign(base: Path, tmp_path: Path) -> Path:
    """An adapter that wasn't made here."""
    return make_adapter(base, tmp_path / "foreign")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub's."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def refused(given: str | Path, option: str = "--model.adapter") -> str:
    with pytest.raises(InputError) as caught:
        find_adapter(str(given), option)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{option}: ")
    return str(caught.value)


# ---- folders ---------------------------------------------------------------------------------------


def test_a_run_folder_stands_for_its_adapter_and_that_is_said(finished: Path) -> None:
    folder = finished / "lightning_logs" / "version_0"
    assert find_adapter(str(folder / "adapter")) == (str(folder / "adapter"), None)
    found, line = find_adapter(f"{folder}/")
    assert found == str(folder / "adapter")
    assert line == f"Note: '{folder}/' is a run's folder: its adapter {folder / 'adapter'} is used"


def test_every_command_takes_a_run_folder(
    base: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = finished / "lightning_logs" / "version_0"
    words = [*options(base, tmp_path), "--model.generate=false"]
    assert cli.main(["test", *words, f"--model.adapter={run_folder}"]) == 0
    assert "is a run's folder: its adapter" in capsys.readouterr().out
    report = json.loads((tmp_path / "lightning_logs/version_0/test_report.json").read_text())
    assert report["adapter"] == str(run_folder / "adapter")
    assert cli.main(["ask", "Does it help?", "--context", "It helped.", "--adapter", str(run_folder)]) == 0
    assert "is a run's folder: its adapter" in capsys.readouterr().out
    twice = ["--model.adapter", str(run_folder), str(run_folder / "adapter")]
    assert cli.main(["test", *words, *twice]) == 2
    assert "given twice" in capsys.readouterr().err


def test_folders_and_files_that_are_no_adapter_say_what_to_give(
    base: Path, finished: Path, foreign: Path, tmp_path: Path
) -> None:
    stopped = tmp_path / "version_7"
    (stopped / "checkpoints").mkdir(parents=True)
    assert "has no adapter/, which a finished run has: write one with `medqlora export" in refused(stopped)
    assert refused(foreign / "adapter_model.safetensors").endswith(f"is a file: give its folder, {foreign}")
    checkpoint = next((finished / "lightning_logs" / "version_0" / "checkpoints").glob("*.ckpt"))
    assert refused(checkpoint).endswith("pass a checkpoint as --ckpt_path")
    named = tmp_path / "named"
    shutil.copytree(foreign, named / "medical")  # as PEFT saves an adapter of that name
    assert f"did you mean '{named / 'medical'}'?" in refused(named)
    trained = tmp_path / "trained"
    for step in (500, 1000):  # as transformers' Trainer names them
        shutil.copytree(foreign, trained / f"checkpoint-{step}")
    assert f"did you mean '{trained / 'checkpoint-1000'}'?" in refused(trained)
    with pytest.raises(
        InputError, match=r"it is a whole model; pass it as --model\.backend\.base, with --model"
    ):
        read_adapter(str(base))


# ---- the Hub ---------------------------------------------------------------------------------------


def test_an_adapter_of_the_hub_is_tested_by_its_name(
    base: Path, foreign: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = hub_cache(cache, "owner/adapter", foreign)
    assert find_adapter("owner/adapter") == (
        str(snapshot),
        f"Note: the adapter 'owner/adapter' of the Hub is used, from {snapshot}",
    )
    words = [*options(base, tmp_path), "--model.generate=false", "--model.adapter=owner/adapter"]
    assert cli.main(["validate", *words]) == 0
    assert "the adapter 'owner/adapter' of the Hub is used" in capsys.readouterr().out


def test_one_of_our_own_runs_adapters_is_taken_from_the_hub(finished: Path, cache: Path) -> None:
    adapter = finished / "lightning_logs" / "version_0" / "adapter"
    snapshot = hub_cache(cache, "owner/ours", adapter)

    assert find_adapter("owner/ours")[0] == str(snapshot)
    assert read_adapter(str(snapshot))["base_identity"]
    # its manifest names every file, so that all of them have to be fetched
    listed = json.loads((adapter / "manifest.json").read_text())["files"]
    assert [name for name in listed if not any(Path(name).match(pattern) for pattern in _FETCHED)] == []


def test_what_cannot_be_had_from_the_hub_is_told(
    base: Path, foreign: Path, cache: Path, tmp_path: Path
) -> None:
    line = refused("owner/nowhere")
    assert line.startswith(
        "--model.adapter: there is no folder 'owner/nowhere', and it can't be had from the Hub ("
    )
    assert line.endswith("check the name and the connection, or download it elsewhere and pass the folder")
    hub_cache(cache, "owner/model", base)
    assert "'owner/model' on the Hub has no adapter_config.json, so it is no adapter" in refused(
        "owner/model"
    )
    (foreign / "adapter_model.safetensors").rename(foreign / "adapter_model.bin")
    hub_cache(cache, "owner/old", foreign)
    assert "has no adapter_model.safetensors (an adapter_model.bin, a pickle, is not read)" in refused(
        "owner/old"
    )


def test_a_path_that_is_not_there_is_no_name_of_the_hubs(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lightning_logs").mkdir()
    for path in ("lightning_logs/version_9", "nowhere", "./a/b", "lightning_logs/version_9/adapter"):
        assert find_adapter(path) == (path, None)  # `read_adapter` says that there is none


# ---- another base ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "asked", "told"),
    [
        ("meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B", False),
        ("meta-llama/Meta-Llama-3-8B", "/models/Meta-Llama-3-8B/", False),
        ("meta-llama/Meta-Llama-3-8B", "/c/models--meta-llama--Meta-Llama-3-8B/snapshots/0a1b", False),
        ("unsloth/llama-3-8b-bnb-4bit", "unsloth/llama-3-8b", False),
        ("unsloth/llama-3-8b-unsloth-bnb-4bit", "other/Llama-3-8B", False),
        ("mistralai/Mistral-7B-v0.1", "meta-llama/Meta-Llama-3-8B", True),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B", True),
        ("", "meta-llama/Meta-Llama-3-8B", False),
        (None, "meta-llama/Meta-Llama-3-8B", False),
    ],
)
def test_an_adapter_that_names_another_base_is_told(
    foreign: Path, named: str | None, asked: str, told: bool
) -> None:
    change_config(foreign, base_model_name_or_path=named)
    line = base_remark(str(foreign), asked)
    assert (line is not None) == told
    if line is not None:
        assert line == (
            f"Note: {foreign}/adapter_config.json names the base '{named}', and this run uses '{asked}': if they are "
            "different models, the results are not the adapter's"
        )


def test_the_name_that_a_local_copy_records_counts(foreign: Path, base: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    change_config(foreign, base_model_name_or_path="owner/original")
    assert base_remark(str(foreign), str(copy)) is not None
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "_name_or_path": "owner/original"}))
    assert base_remark(str(foreign), str(copy)) is None


def test_another_base_of_the_same_shape_is_told_by_a_foreign_adapter_and_refused_by_our_own(
    base: Path, foreign: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = build_base(tmp_path / "another", "llama", seed=1)
    words = [*options(other, tmp_path), "--model.generate=false"]
    assert cli.main(["validate", *words, f"--model.adapter={foreign}"]) == 0
    assert f"names the base '{base}', and this run uses '{other}'" in capsys.readouterr().out
    ours = finished / "lightning_logs" / "version_0"
    assert cli.main(["validate", *words, f"--model.adapter={ours}"]) == 2
    assert "was trained on the base" in capsys.readouterr().err
