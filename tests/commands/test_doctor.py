"""`medqlora doctor`: exit code 0 only where a fit would start, and a fix beside all that keeps it from starting."""

import importlib.metadata
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
from harness import options, run

from medqlora.cli import main
from medqlora.commands import doctor_checks
from medqlora.commands.doctor_checks import Finding
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
    assert "dev: 6 questions (2 yes, 2 no, 2 maybe)" in found["data"].found
    assert not (tmp_path / "lightning_logs").exists()
    assert str(tmp_path / "lightning_logs") in found["logs"].found
    assert run("fit", [*words, "--trainer.max_steps=1"]).trainer.global_step == 1  # it is true


def test_the_versions_are_those_that_are_installed(capsys: pytest.CaptureFixture[str]) -> None:
    found = {one.name: one for one in doctor_checks.versions()}
    for name in ("torch", "lightning", "transformers", "peft", "bitsandbytes", "datasets", "medqlora"):
        assert found[name].state == "ok"
        assert found[name].found == importlib.metadata.version(name)
    assert {"unsloth", "triton", "flash-attn"} <= found.keys()


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


def test_a_missing_root_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = diagnosed(capsys, "--trainer.default_root_dir=not/there")
    assert code == 1
    assert "there is no folder 'not/there'" in found["logs"].found
    assert not Path("not").exists()


def test_a_folder_on_a_file_system_that_takes_no_files_is_named() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc here")
    found = doctor_checks.folder("logs", Path("/proc/self/logs"), needed=True, option="--log")
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
    assert main(["doctor", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)


@pytest.mark.skipif(doctor_checks._version("flash-attn") is not None, reason="flash-attn is installed")
def test_a_configuration_that_needs_flash_attn_is_told_that_it_isnt_installed() -> None:
    cpu = torch.device("cpu")
    for wanted, state in (("flash_attention_2", "wrong"), ("auto", "note"), (None, "note")):
        found = {one.name: one for one in doctor_checks.attention(cpu, wanted)}
        assert found["flash-attn"].state == state
        assert found["SDPA"].state == "ok"


# ---- versions ----------------------------------------------------------------------------------------


def install(folder: Path, name: str, version: str) -> None:
    """What a package's installer leaves for `importlib.metadata`."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize("version", ["0.1.0", "99.0"])
def test_a_version_outside_of_the_bounds_is_wrong_and_the_fix_installs_one_within(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "peft", version)
    install(tmp_path / "site", "scipy", version)
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = {one.name: one for one in doctor_checks.versions()}
    assert wrong(found) == {"peft", "scipy"}  # scipy is shown, though it isn't when all is well
    bounds = next(text for text in importlib.metadata.requires("medqlora") or () if text.startswith("peft"))
    fix = str(found["peft"].fix)
    assert version in found["peft"].found
    assert fix.startswith("pip install 'peft")
    assert set(fix.removeprefix("pip install 'peft").rstrip("'").split(",")) == set(bounds[4:].split(","))


def test_a_malicious_release_is_named_and_never_imported(tmp_path: Path) -> None:
    site, trace = tmp_path / "site", tmp_path / "imported"
    install(site, "lightning", "2.6.3")
    (site / "lightning").mkdir()
    (site / "lightning" / "__init__.py").write_text(f"open({str(trace)!r}, 'w')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from medqlora.cli import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "2.6.3 was a malicious release" in done.stdout
    assert "pip uninstall lightning" in done.stdout
    assert not trace.exists()


# ---- device ------------------------------------------------------------------------------------------


@NO_GPU
def test_a_driver_that_torch_cant_use_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    (before,) = doctor_checks.devices()
    program.write_text("#!/bin/sh\necho 535.104.05\necho 535.104.05\n")
    program.chmod(0o755)
    (found,) = doctor_checks.devices()
    assert "none found" in before.found
    assert "the driver 535.104.05 is there" in found.found
    assert "install torch's CUDA build" in found.found


@NO_GPU
@pytest.mark.parametrize("script", ["exit 9", "sleep 20", "echo; echo"])
def test_an_nvidia_smi_that_fails_or_hangs_holds_nothing_up(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(doctor_checks, "_SMI_LIMIT_S", 0.5)
    (found,) = doctor_checks.devices()
    assert "none found" in found.found


def test_the_error_that_nf4_is_allowed_is_half_the_widest_gap_of_its_codes() -> None:
    from medqlora.models.quantization import import_bitsandbytes

    codes = import_bitsandbytes().functional.get_4bit_type("nf4", device="cpu").sort().values
    assert float(codes.diff().max()) / 2 == pytest.approx(doctor_checks._NF4_ERROR, abs=1e-6)


def test_a_bitsandbytes_that_gives_wrong_values_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from medqlora.models.quantization import import_bitsandbytes

    module, cpu = import_bitsandbytes(), torch.device("cpu")
    assert [one.state for one in doctor_checks.bitsandbytes(cpu)] == ["ok", "ok"]
    right = module.functional.dequantize_4bit
    with monkeypatch.context() as patch:
        patch.setattr(module.functional, "dequantize_4bit", lambda *given: right(*given).flip(0))
        nf4, adamw = doctor_checks.bitsandbytes(cpu)
        assert (nf4.state, adamw.state) == ("wrong", "ok")
    with monkeypatch.context() as patch:
        patch.setattr(module.functional, "dequantize_4bit", lambda *given: right(*given) * torch.nan)
        assert doctor_checks.bitsandbytes(cpu)[0].state == "wrong"
        assert doctor_checks.bitsandbytes(cpu, needed=False)[0].state == "note"
    for broken in (torch.optim.SGD, torch.optim.AdamW):  # another step; the right one, with 32-bit state
        with monkeypatch.context() as patch:
            patch.setattr(module.optim, "AdamW8bit", broken)
            nf4, adamw = doctor_checks.bitsandbytes(cpu)
            assert (nf4.state, adamw.state) == ("ok", "wrong")


def test_attention_that_sees_what_it_must_not_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = torch.nn.functional.scaled_dot_product_attention

    def leaks(*given: Any, is_causal: bool = False, **options: Any) -> torch.Tensor:
        return attend(*given, is_causal=False, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", leaks)
    sdpa = doctor_checks.attention(torch.device("cpu"))[0]
    assert (sdpa.name, sdpa.state) == ("SDPA", "wrong")


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
        assert doctor_checks.hub(needed=False, limit_s=0.3).state == "note"
        found = doctor_checks.hub(needed=True, limit_s=0.3)
    assert found.state == "wrong"
    monkeypatch.setenv("HF_ENDPOINT", "not an address")
    assert doctor_checks.hub(needed=True).state == "wrong"


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
@pytest.mark.parametrize("offline", ["0", "1"])
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
    assert doctor_checks.hub(needed=False) == Finding("Hub", "Hub", "note", f"off by {name}")
    assert doctor_checks.hub(needed=True).state == "wrong"
    assert asked == []
