"""`medqlora doctor`: exit code 0 only where a fit would start, and a fix beside all that keeps it from starting."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import nightly
from harness import options, refused, run

from medqlora.cli import main
from medqlora.commands.diagnosis.finding import Finding
from medqlora.commands.diagnosis.folders import folder
from medqlora.commands.diagnosis.hub import hub
from medqlora.errors import InputError

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own working folder and cache."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MEDQLORA_CACHE", str(tmp_path / "cache"))


def diagnosed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Finding]]:
    """The exit code, and a finding by name (the last of it); whatever is wrong has a fix, and the code tells of it."""
    capsys.readouterr()
    code = main(["doctor", *words, "--json"])
    report = json.loads(capsys.readouterr().out)
    found = [Finding(**one) for one in report["findings"]]
    wrong = [one for one in found if one.state == "wrong"]
    assert {one.state for one in found} <= {"ok", "note", "wrong"}
    assert all(one.fix for one in wrong)
    assert (code, report["starts"]) == ((1, False) if wrong else (0, True))
    return code, {one.name: one for one in found}


def wrong(found: dict[str, Finding]) -> set[str]:
    return {name for name, one in found.items() if one.state == "wrong"}


# ---- what is well ------------------------------------------------------------------------------------


def test_the_demo_would_start_and_nothing_is_fetched_built_or_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reached: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        reached.append(address)
        raise OSError("no network in this test")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert main(["doctor"]) == 0
    assert reached == []
    assert list(Path.cwd().iterdir()) == []
    assert not any((tmp_path / "cache").rglob("config.json"))
    lines = capsys.readouterr().out.splitlines()
    for start in (
        "  ok     Python ",
        "  ok     torch ",
        "  ok     NF4 on cpu ",
        "  ok     8-bit AdamW on cpu ",
    ):
        assert any(line.startswith(start) for line in lines), start
    assert lines[-1].endswith("demo.yaml` would start.")
    assert "1200 training questions" in "\n".join(lines)


def test_a_local_base_and_its_questions_are_read_as_fit_reads_them(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    code, found = diagnosed(capsys, *words)
    assert code == 0
    assert found["base"].found == str(tiny_bases["llama"])
    assert (found["data"].state, "6 validation questions are too few" in found["data"].found) == (
        "note",
        True,
    )
    assert main(["doctor", *words]) == 0
    assert "dev: 6 questions (2 yes, 2 no, 2 maybe)" in capsys.readouterr().out
    assert not (tmp_path / "lightning_logs").exists()
    assert str(tmp_path / "lightning_logs") in found["logs"].found
    assert run("fit", [*words, "--trainer.max_steps=1"]).trainer.global_step == 1  # it is true


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["doctor", "--help"])
    out = capsys.readouterr().out
    for part in ("--hub", "--json", "--config FILE", "exit\ncode is 0", "would the demo start here?"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 120


# ---- what is broken ----------------------------------------------------------------------------------


def test_a_base_that_isnt_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = diagnosed(capsys, *options(tmp_path / "nowhere", tmp_path))
    assert code == 1
    assert wrong(found) == {"configuration"}
    assert f"there is no folder '{tmp_path / 'nowhere'}'" in found["configuration"].found
    assert main(["doctor", *options(tmp_path / "nowhere", tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "fix: give a model's folder or its Hub name" in out
    assert out.splitlines()[-1].endswith("would not start. Wrong: configuration.")
    with pytest.raises(InputError, match="there is no folder"):
        run("fit", options(tmp_path / "nowhere", tmp_path))


@pytest.mark.parametrize("index", [None, ["a.safetensors", "b.safetensors"], "no index"])
def test_a_base_without_its_weights_is_named(
    index: Any, tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in tiny_bases["llama"].iterdir():
        if file.suffix == ".json":
            (base / file.name).write_bytes(file.read_bytes())
    if index is not None:
        (base / "a.safetensors").write_bytes((tiny_bases["llama"] / "model.safetensors").read_bytes())
        weight_map = {str(number): name for number, name in enumerate(index)}
        text = json.dumps({"weight_map": weight_map}) if isinstance(index, list) else index
        (base / "model.safetensors.index.json").write_text(text)
    code, found = diagnosed(capsys, *options(base, tmp_path))
    assert code == 1
    assert wrong(found) == {"weights"}
    said = {None: "no weights", "no index": "can't be read"}.get(index if index is None else str(index))
    assert (said or "lacks 1 of 2 files, the first b.safetensors") in found["weights"].found


def test_a_file_where_the_log_folder_should_be_is_named(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    (tmp_path / "lightning_logs").write_text("a file")
    code, found = diagnosed(capsys, *words)
    assert code == 1
    assert wrong(found) == {"logs"}
    assert "is no folder" in found["logs"].found
    logger = [
        "--trainer.logger=lightning.pytorch.loggers.TensorBoardLogger",
        f"--trainer.logger.save_dir={tmp_path / 'elsewhere'}",
    ]
    code, found = diagnosed(capsys, *words, *logger)  # the file is in nobody's way
    assert code == 0
    assert str(tmp_path / "elsewhere") in found["logs"].found
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_root_folder_is_one_that_a_fit_makes(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = diagnosed(capsys, "--trainer.default_root_dir=not/there")
    assert found["logs"].state == "ok"
    assert "not there yet, and can be made" in found["logs"].found
    assert not Path("not").exists()


def test_a_folder_on_a_file_system_that_takes_no_files_is_named() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc here")
    found = folder("logs", Path("/proc/self/logs"), needed=True, option="--log")
    assert (found.state, "it can't be written" in found.found) == ("wrong", True)
    assert "--log" in str(found.fix)


def test_a_file_where_the_cache_should_be_keeps_the_demo_from_starting_and_a_local_base_not(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file")
    code, found = diagnosed(capsys)
    assert code == 1
    assert wrong(found) == {"medqlora's cache"}
    assert "MEDQLORA_CACHE" in str(found["medqlora's cache"].fix)
    code, found = diagnosed(capsys, *options(tiny_bases["llama"], tmp_path))
    assert code == 0
    assert found["medqlora's cache"].state == "note"


def test_wrong_data_is_named_with_file_and_line(
    tiny_bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    file = tmp_path / "train.jsonl"
    file.write_text(file.read_text().replace('"answer": "no"', '"answer": "nope"', 1))
    code, found = diagnosed(capsys, *words)
    assert code == 1
    assert wrong(found) == {"configuration"}
    assert f"{file}:2" in found["configuration"].found


@NO_GPU
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.accelerator=gpu"], "--trainer.accelerator gpu"),
        (["--trainer.precision=16-mixed"], "16-mixed needs a CUDA GPU"),
        (["--data.batch_size=0"], "--data.batch_size is 0"),
        (["--data.batch_size=many"], "--data.batch_size many"),
        (["--model.lora.target_modules=[nothing_proj]"], "nothing_proj"),
        (["--model.lora.use_dora=true", "--model.backend.quantization=int8"], "use_dora"),
    ],
)
def test_options_that_cant_be_are_wrong(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = diagnosed(capsys, *words)  # of the demo, whose base isn't built here
    assert code == 1
    assert wrong(found) == {"configuration"}
    assert said in f"{found['configuration'].found}: {found['configuration'].fix}"


def test_a_wrong_value_in_a_configuration_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("model:\n  backend: medqlora.models.TinyLlama\n  learning_rate: fast\n")
    code, found = diagnosed(capsys, "--config", str(config))
    assert code == 1
    assert f"{config}:3" in found["configuration"].found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jsno"], "--jsno: there is no such option: did you mean 'json'?"),
        (["--data.batch_siz", "4"], "did you mean 'data.batch_size'?"),
        (["--config", "absent.yaml"], "--config: there is no file 'absent.yaml'"),
        (["--config"], "--config"),
    ],
)
def test_a_mistyped_option_gets_one_line_and_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "doctor", *words)


# ---- the Hub -----------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """The address of a server on this machine that answers 404 to all, and what it was asked."""
    asked: list[tuple[str, dict[str, str]]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append((self.command, dict(self.headers)))
            self.send_response(404)
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *given: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}", asked
        one.shutdown()
        thread.join()


@pytest.fixture
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_online")
def test_the_hub_is_asked_once_without_a_token_and_only_when_told_to(
    server: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address, asked = server
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert diagnosed(capsys)[1]["Hub"].state == "note"
    assert asked == []
    code, found = diagnosed(capsys, "--hub")
    assert (code, found["Hub"].state) == (0, "ok")
    ((method, headers),) = asked
    assert method == "HEAD"
    assert "secret" not in str(headers)


@pytest.mark.usefixtures("_online")
def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert hub(needed=False, limit_s=0.3).state == "note"
        found = hub(needed=True, limit_s=0.3)
    assert found.state == "wrong"
    monkeypatch.setenv("HF_ENDPOINT", "not an address")
    assert hub(needed=True).state == "wrong"


@pytest.mark.usefixtures("_online")
def test_a_base_of_the_hub_needs_the_hub_or_its_files_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    words = options(Path("nobody/there"), tmp_path)
    code, found = diagnosed(capsys, *words)
    assert code == 1
    assert wrong(found) == {"Hub", "configuration"}
    assert "'nobody/there' can't be had from the Hub" in found["configuration"].found


@pytest.mark.slow
@pytest.mark.parametrize("offline", ["0", pytest.param("1", marks=nightly)])
def test_a_base_in_the_hubs_cache_starts_without_the_hub(
    offline: str, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    commit, home = "a" * 40, tmp_path / "hf"
    base = home / "hub" / "models--somebody--tiny"
    shutil.copytree(tiny_bases["llama"], base / "snapshots" / commit)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(commit)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-m", "medqlora", "doctor", "--json", *options(Path("somebody/tiny"), tmp_path)],
        env={**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": address, "HF_HUB_OFFLINE": offline},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, done.stdout
    assert found["Hub"]["state"] == "note"
    assert ("off by HF_HUB_OFFLINE" in found["Hub"]["found"]) == (offline == "1")
    assert found["base"]["found"] == "somebody/tiny"
    assert "Retrying" not in done.stderr


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.usefixtures("_online")
def test_a_hub_that_is_switched_off_is_not_asked(
    name: str, server: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = server
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv(name, "1")
    assert hub(needed=False) == Finding("Hub", "Hub", "note", f"off by {name}")
    assert hub(needed=True).state == "wrong"
    assert asked == []
