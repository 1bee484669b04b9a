"""With every socket refused the demo and runs on local files end well, and nothing so much as tries to reach out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import options, questions, write_rows

#: Runs groups of commands, each in its folder, in one process where Python's interpreter itself refuses connections
#: and look-ups of names, by whichever module they are made, and writes each attempt down. Python processes that it
#: starts are run by it too.
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

groups = {}
for folder, commands in json.loads(sys.argv[2]).items():
    os.chdir(folder)
    codes = []
    for words in commands:
        try:
            codes.append(main(words))
        except SystemExit as end:
            codes.append(end.code)
    attempts = open(ATTEMPTS).read().splitlines() if os.path.exists(ATTEMPTS) else []
    groups[folder] = {"codes": codes, "attempts": attempts}

import datasets, huggingface_hub.constants, transformers

json.dump({
    "groups": groups,
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


FEW = ["--data.source.train=24", "--data.source.dev=24", "--data.source.test=12", "--model.max_new_tokens=4"]
BENCH = ["bench", "--shape", "tiny", "--device", "cpu", "--warm_up", "1", "--steps", "1", "--out", "bench"]
ASK = ["--context", "It did.", "--max_new_tokens", "4"]


class Ran(NamedTuple):
    """What the commands left, and what the process said of them."""

    folder: Path
    codes: list[int]
    attempts: list[str]
    errors: str
    children: int


@pytest.fixture(scope="module")
def ran(tiny_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """Three groups of commands in one process, without what the tests' own environment says of the Hub."""
    root = tmp_path_factory.mktemp("offline")
    demo, local, hub = (root / name for name in ("demo", "local", "hub"))
    for folder in (demo, local, hub):
        folder.mkdir()
    words = options(tiny_bases["llama"], local)
    rows = [{key: row[key] for key in ("id", "question", "contexts")} for row in questions(4)]
    asked = write_rows(local / "ask.jsonl", rows)
    ckpt = f"{local}/lightning_logs/version_0/checkpoints/last.ckpt"
    commands = {
        demo: [
            ["fit", *FEW, "--trainer.max_steps=2"],
            ["test", *FEW],
            ["plan", "--gpu", "h200"],
            ["doctor"],
            [*BENCH, "--micro_batch_tokens", "512", "--checkpointing", "none", "--engine", "fused"],
            ["ask", "Does trevin help adults with pain?", *ASK],
            ["runs"],
        ],
        local: [
            ["fit", *words, "--trainer.max_steps=2"],
            ["test", *words],
            ["predict", *words, f"--data.questions={asked}", f"--answers.path={local / 'answers.jsonl'}"],
            ["export", f"--ckpt_path={ckpt}"],
            ["ask", "Does drug 3 help?", *ASK],
            ["plan", *words],
            ["doctor", *words],
        ],
        hub: [["fit", *options(Path("somebody/some-base"), hub)]],  # last: it is what does reach out
    }
    attempts, launcher = root / "attempts", root / "launcher.py"
    launcher.write_text(LAUNCHER, encoding="utf-8")
    unset = {*SILENT, "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    given = json.dumps({str(folder): group for folder, group in commands.items()})
    ended = subprocess.run(
        [sys.executable, str(launcher), "--commands", given, *SILENT],
        cwd=root,
        env={**kept, "ATTEMPTS": str(attempts), "OMP_NUM_THREADS": "1", "HF_HOME": str(root / "home")},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(Path(f"{attempts}.result").read_text(encoding="utf-8"))
    assert found["environment"] == SILENT
    assert not found["hub's telemetry"]
    assert not found["download counts"]
    children = Path(f"{attempts}.children")
    count = len(children.read_text().splitlines()) if children.exists() else 0
    return {
        folder.name: Ran(folder, **found["groups"][str(folder)], errors=ended.stderr, children=count)
        for folder in commands
    }


@pytest.mark.slow
def test_the_demo_and_the_tools_reach_for_nothing(ran: dict[str, Ran]) -> None:
    demo = ran["demo"]
    assert demo.codes == [0] * 7, demo.errors
    assert demo.attempts == []
    assert demo.children > 0  # the measurement was a process of its own, and refused too
    assert (demo.folder / "lightning_logs" / "version_1" / "report.html").is_file()


@pytest.mark.slow
def test_runs_on_local_files_reach_for_nothing(ran: dict[str, Ran]) -> None:
    local = ran["local"]
    assert local.codes == [0] * 7, local.errors
    assert local.attempts == []
    assert len((local.folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 4


@pytest.mark.slow
def test_a_base_of_the_hub_is_what_reaches_out_and_its_refusal_is_one_line(ran: dict[str, Ran]) -> None:
    """The other two tests could not fail if nothing were ever written down."""
    hub = ran["hub"]
    assert hub.codes == [2]
    assert any("huggingface.co" in one for one in hub.attempts)
    line = "medqlora: error: --model.backend.base: 'somebody/some-base' can't be had from the Hub"
    assert hub.errors.strip().splitlines()[-1].startswith(line)


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
