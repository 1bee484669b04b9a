"""With every socket refused the demo and runs on local files end well, and nothing so much as tries to reach out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import options, questions, write_rows

#: Runs commands in one process where Python's interpreter itself refuses connections and look-ups of names, by
#: whichever module they are made, and writes each attempt down. Python processes that it starts are run by it too.
LAUNCHER = """
import json, os, runpy, socket, subprocess, sys

ATTEMPTS = os.environ["ATTEMPTS"]
REFUSED = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}


def refuse(event, given):
    if event not in REFUSED:
        return
    if isinstance(given[0], socket.socket) and given[0].family == getattr(socket, "AF_UNIX", None):
        return  # of this machine alone
    with open(ATTEMPTS, "a") as file:
        print(event, *given[1:] if isinstance(given[0], socket.socket) else given, file=file)
    raise OSError(f"{event} is refused in this test")


sys.addaudithook(refuse)


class Popen(subprocess.Popen):
    def __init__(self, command, *rest, **options):
        if command[:2] == [sys.executable, "-m"]:
            command = [sys.executable, __file__, *command[2:]]
            open(ATTEMPTS + ".children", "a").write("one\\n")
        super().__init__(command, *rest, **options)


subprocess.Popen = Popen

if sys.argv[1] != "--commands":
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    raise SystemExit

from medqlora.cli import main

codes = []
for words in json.loads(sys.argv[2]):
    try:
        codes.append(main(words))
    except SystemExit as end:
        codes.append(end.code)

import datasets, huggingface_hub.constants, transformers

json.dump({
    "codes": codes,
    "hub's telemetry": not huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY,
    "download counts": bool(datasets.config.HF_UPDATE_DOWNLOAD_COUNTS),
    "environment": {name: os.environ.get(name) for name in sys.argv[3:]},
}, open(ATTEMPTS + ".result", "w"))
"""
#: variable → what keeps a library silent
SILENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "UNSLOTH_DISABLE_STATISTICS": "1",
}


class Offline:
    """Runs commands under the launcher, without what the tests' own environment says of the Hub."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.attempts = folder / "attempts"
        self.launcher = folder / "launcher.py"
        self.launcher.write_text(LAUNCHER, encoding="utf-8")

    def __call__(self, *commands: list[str]) -> dict[str, Any]:
        unset = {*SILENT, "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"}
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        ended = subprocess.run(
            [sys.executable, str(self.launcher), "--commands", json.dumps(commands), *SILENT],
            cwd=self.folder,
            env={
                **kept,
                "ATTEMPTS": str(self.attempts),
                "OMP_NUM_THREADS": "1",
                "HF_HOME": str(self.folder / "hub"),
            },
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert ended.returncode == 0, ended.stderr
        found = json.loads(Path(f"{self.attempts}.result").read_text(encoding="utf-8"))
        return {**found, "shown": ended.stdout, "errors": ended.stderr, "attempts": self._lines("")}

    def _lines(self, suffix: str) -> list[str]:
        path = Path(f"{self.attempts}{suffix}")
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def children(self) -> int:
        return len(self._lines(".children"))


@pytest.fixture
def offline(tmp_path: Path) -> Offline:
    return Offline(tmp_path)


def silent(found: dict[str, Any]) -> bool:
    assert found["environment"] == SILENT
    return not found["hub's telemetry"] and not found["download counts"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_and_the_tools_reach_for_nothing(offline: Offline) -> None:
    few = ["--data.source.train=24", "--data.source.dev=24", "--data.source.test=12"]
    few = [*few, "--model.max_new_tokens=4"]
    bench = ["bench", "--shape", "tiny", "--device", "cpu", "--warm_up", "1", "--steps", "1"]
    found = offline(
        ["fit", *few, "--trainer.max_steps=2"],
        ["test", *few],
        ["plan", "--gpu", "h200"],
        ["doctor"],
        [*bench, "--micro_batch_tokens", "512", "--checkpointing", "none", "--out", "bench"],
        ["ask", "Does trevin help adults with pain?", "--context", "It did.", "--max_new_tokens", "4"],
        ["runs"],
    )
    assert found["codes"] == [0] * 7, found["errors"]
    assert found["attempts"] == []
    assert offline.children() > 0  # the measurement was a process of its own, and refused too
    assert (offline.folder / "lightning_logs" / "version_1" / "report.html").is_file()
    assert silent(found)


@pytest.mark.slow
def test_runs_on_local_files_reach_for_nothing(
    offline: Offline, tiny_bases: dict[str, Path], tmp_path: Path
) -> None:
    words = options(tiny_bases["llama"], tmp_path)
    asked = write_rows(
        tmp_path / "ask.jsonl",
        [{key: row[key] for key in ("id", "question", "contexts")} for row in questions(4)],
    )
    ckpt = f"{tmp_path}/lightning_logs/version_0/checkpoints/last.ckpt"
    found = offline(
        ["fit", *words, "--trainer.max_steps=2"],
        ["test", *words],
        ["predict", *words, f"--data.questions={asked}", f"--answers.path={tmp_path / 'answers.jsonl'}"],
        ["export", f"--ckpt_path={ckpt}"],
        ["ask", "Does drug 3 help?", "--context", "It did.", "--max_new_tokens", "4"],
        ["plan", *words],
        ["doctor", *words],
    )
    assert found["codes"] == [0] * 7, found["errors"]
    assert found["attempts"] == []
    assert len((tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    assert silent(found)


@pytest.mark.slow
def test_a_base_of_the_hub_is_what_reaches_out_and_its_refusal_is_one_line(
    offline: Offline, tmp_path: Path
) -> None:
    """The other two tests could not fail if nothing were ever written down."""
    words = options(Path("somebody/some-base"), tmp_path)
    found = offline(["fit", *words])
    assert found["codes"] == [2]
    assert any("huggingface.co" in one for one in found["attempts"])
    assert (
        found["errors"]
        .strip()
        .splitlines()[-1]
        .startswith("medqlora: error: --model.backend.base: 'somebody/some-base' can't be had from the Hub")
    )


def test_what_the_user_set_is_left_as_it_is_and_the_rest_is_silent() -> None:
    kept = {name: value for name, value in os.environ.items() if name not in SILENT}
    shown = subprocess.run(
        [sys.executable, "-c", "import medqlora, json, os; print(json.dumps(dict(os.environ)))"],
        env={**kept, "DO_NOT_TRACK": "yes"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = json.loads(shown)
    assert {name: found.get(name) for name in SILENT} == {**SILENT, "DO_NOT_TRACK": "yes"}
