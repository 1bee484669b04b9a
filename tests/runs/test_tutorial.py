"""Every night the tutorial is done as it is written: its Python, its commands, its server and its request."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from doc_commands import ROOT, blocks
from warm_process import WarmCommand

PAGE = ROOT / "docs" / "tutorial.md"
#: of the page's server; the test takes a free one
PORT = "8123"


def answers(address: str) -> bool:
    """Whether the server is ready."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


class Server:
    """`medqlora serve` in a process of its own, as a reader starts it."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.log = log
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "medqlora", *words], stdout=stream, stderr=stream, cwd=log.parent
            )

    def wait_for(self, address: str, limit_s: float = 600.0) -> None:
        """Waits until it answers."""
        end = time.monotonic() + limit_s
        while not answers(address):
            assert time.monotonic() < end, self.log.read_text("utf-8")
            assert self._process.poll() is None, self.log.read_text("utf-8")
            time.sleep(0.5)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(240)

    def end(self) -> int:
        """Ends it as Ctrl-C in another terminal would; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(120)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif("MEDQLORA_THOROUGH" not in os.environ, reason="every night: the tutorial takes minutes")
def test_the_tutorial_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs: dict[str, str] = {}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    server: Server | None = None
    for _, language, lines in blocks(PAGE):
        if language == "python":
            exec("\n".join(lines), {})
        if language:
            continue
        for number, line in enumerate(lines):
            words = shlex.split(line.replace(PORT, port), comments=True)
            if words[:2] == ["medqlora", "serve"]:
                server = Server(words[1:], tmp_path / "serve.log")
                request.addfinalizer(server.kill)
                server.wait_for(f"http://127.0.0.1:{words[words.index('--port') + 1]}")
            elif words[:1] == ["medqlora"]:
                log = tmp_path / f"{len(outputs)}-{number}.log"
                assert WarmCommand(words[1:], cwd=tmp_path, log=log).wait(600) == 0, log.read_text("utf-8")
                outputs[words[1]] = log.read_text("utf-8")
            elif words[:1] == ["curl"]:
                body, address = words[words.index("-d") + 1].encode(), f"http://{words[2]}"
                with urllib.request.urlopen(urllib.request.Request(address, body), timeout=120) as reply:
                    assert json.loads(reply.read())["decision"] == "yes"
    assert server is not None
    assert server.end() == 0, server.log.read_text("utf-8")
    assert list(outputs) == ["data", "init", "fit", "test", "ask", "merge", "push"]
    score = re.search(r"^accuracy +([\d.]+)%", outputs["test"], re.MULTILINE)
    assert score is not None
    assert float(score[1]) > 90
    assert "Changed decisions: 0" in outputs["merge"]
    assert "Nothing was sent" in outputs["push"]
