"""A user without a home, or without a folder to write in, is told which variable or option to set."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from harness import options, refused

from medqlora.commands.places import check_cache, check_places
from medqlora.config.words import CommandLine
from medqlora.errors import InputError
from medqlora.models.tiny_base import build_tiny_llama
from medqlora.utils.cache import (
    cache_folder,
    cache_root,
    settle_without_home,
    why_not_writable,
)

DEMO = ["--model.backend=medqlora.models.TinyLlama"]
LIBRARIES = ("MPLCONFIGDIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that no folder can be made in; the tests may run as root, whom permissions don't keep out."""
    home = tmp_path / "home"
    home.write_text("a file")
    for name in ("MEDQLORA_CACHE", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", *LIBRARIES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home


def test_the_cache_is_the_variable_s_then_the_desktop_s_then_the_home_s(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_root() == nowhere / ".cache" / "medqlora"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "medqlora"
    monkeypatch.setenv("MEDQLORA_CACHE", str(tmp_path / "own"))
    assert cache_folder("a", "b") == tmp_path / "own" / "a" / "b"
    assert why_not_writable(tmp_path / "own" / "c") is None
    assert why_not_writable(nowhere / "c") == f"{nowhere} is no folder"


def test_a_user_id_without_a_home_has_no_cache(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # an id that no one has
    with pytest.raises(KeyError):
        pwd.getpwuid(os.getuid())
    with pytest.raises(OSError, match="no home folder"):
        cache_root()
    with pytest.raises(InputError, match=r"this user has no home folder.*set MEDQLORA_CACHE"):
        check_cache(DEMO)


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict", "full", "plan"])
def test_the_demo_without_a_place_for_its_base_names_the_variable(
    verb: str, nowhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, verb, reads=True)
    assert f"no place for the demo's base: the cache {nowhere}/.cache/medqlora can't be written" in said
    assert "set MEDQLORA_CACHE to a folder that can be written" in said
    assert sorted(tmp_path.iterdir()) == [nowhere]


def test_the_base_s_own_builder_says_so_too(nowhere: Path) -> None:
    with pytest.raises(InputError, match="set MEDQLORA_CACHE"):
        build_tiny_llama()


def test_it_is_found_before_anything_heavy_is_imported(nowhere: Path) -> None:
    code = (
        "import sys; from medqlora.cli import main\n"
        "assert main(['fit']) == 2 and main(['plan']) == 2\n"
        "heavy = {'torch', 'lightning', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("\n") == 2


def test_a_local_base_goes_on_without_the_cache_and_says_so(
    nowhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(tmp_path, tmp_path, train=1, dev=0, test=0)
    check_places(words)
    shown = capsys.readouterr()
    assert shown.err.startswith(f"Note: the cache {nowhere}/.cache/medqlora can't be written")
    assert not shown.out


def test_a_base_of_the_hub_without_a_place_to_download_it_names_the_variable(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(tmp_path, tmp_path, train=1, dev=0, test=0)
    words[1] = "--model.backend.base=org/name"
    with pytest.raises(
        InputError, match=r"^--model.backend.base org/name: no place to download it: .*set HF_HOME"
    ):
        check_places(words)
    assert not capsys.readouterr().err
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    check_places(words)
    monkeypatch.setenv("HF_HUB_CACHE", str(nowhere / "hub"))
    with pytest.raises(InputError, match=f"{nowhere}/hub can't be written"):
        check_places(words)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # nothing is downloaded
    check_places(words)


def test_a_folder_that_takes_no_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lightning_logs").write_text("a file")
    for words in (
        DEMO,
        [*DEMO, f"--trainer.default_root_dir={tmp_path}"],
        [*DEMO, "--trainer.default_root_dir", "."],
    ):
        with pytest.raises(InputError, match=r"^--trainer.default_root_dir .*lightning_logs is no folder"):
            check_places(words)
    check_places([*DEMO, "--trainer.fast_dev_run=true"])
    check_places([*DEMO, "--trainer.logger.save_dir=elsewhere"])


def test_libraries_that_cache_in_the_home_get_a_place_where_there_is_none(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import json, os; from medqlora.utils.cache import settle_without_home; settle_without_home(); "
    code += f"print(json.dumps({{name: os.environ.get(name) for name in {LIBRARIES!r}}}))"

    def settled(**more: str) -> dict[str, str | None]:
        environment = {**os.environ, **more}
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
        found: dict[str, str | None] = json.loads(ended.stdout)
        return found

    own = str(tmp_path / "own")
    found = settled(MEDQLORA_CACHE=own, TRITON_CACHE_DIR="kept")
    assert found.pop("TRITON_CACHE_DIR") == "kept"
    assert all(str(value).startswith(own) for value in found.values())
    found = settled()  # no cache either: what is compiled goes to the temporary folder, a model nowhere
    assert found.pop("HF_HOME") is None
    assert all(found.values())
    assert not any(settled(HOME=str(tmp_path)).values())


def test_a_user_id_without_a_name_gets_one(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    monkeypatch.setenv("MPLCONFIGDIR", "x")
    for name in LIBRARIES[1:3]:
        monkeypatch.setenv(name, "x")
    monkeypatch.setitem(os.environ, "USER", "")
    settle_without_home()
    assert os.environ["USER"] == f"uid{2**31 - 7}"


def test_a_value_is_the_command_line_s_then_the_last_configuration_s(tmp_path: Path) -> None:
    first, last = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("model: {backend: {class_path: x.Y, init_args: {base: one}}}\ndata: {seed: 3}\n")
    last.write_text("model: {backend: {base: two}}\n")
    words = [f"--config={first}", "--config", str(last)]
    assert CommandLine.parse(words[:1]).value("model.backend.base") == "one"
    assert CommandLine.parse(words).value("model.backend.base") == "two"
    assert CommandLine.parse([*words, "--model.backend.base", "three"]).value("model.backend.base") == "three"
    given = CommandLine.parse(words)
    assert (given.value("data.seed"), given.value("trainer.logger")) == (3, None)
