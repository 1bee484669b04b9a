"""`medqlora serve` under load: figures for docs/serve.md, and what must hold whatever they are. Every night."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from served import CONTEXT, QUESTION, Served, until
from warm_process import WarmCommand

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("MEDQLORA_THOROUGH"), reason="minutes: set MEDQLORA_THOROUGH=1"),
]
REQUESTS = int(os.environ.get("MEDQLORA_SERVE_REQUESTS", "20000"))


def told(**figures: Any) -> None:
    """Prints figures for the documentation; pytest shows them with -s."""
    print(json.dumps(figures))


def percentile(times: Sequence[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


async def load(
    live: Served, clients: int, requests: int, body: dict[str, Any]
) -> tuple[float, list[float], list[int]]:
    """Seconds in all, seconds of each answer, and each status."""
    left = iter(range(requests))
    times: list[float] = []
    statuses: list[int] = []

    async def client(http: httpx.AsyncClient) -> None:
        for number in left:
            began = time.perf_counter()
            reply = await http.post("/v1/answer", json={**body, "question": f"Does drug {number % 97} help?"})
            times.append(time.perf_counter() - began)
            statuses.append(reply.status_code)

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=live.url, headers=live.headers, timeout=120, limits=limits) as http:
        began = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return time.perf_counter() - began, times, statuses


def test_64_clients_get_more_answers_a_second_than_one(live: Served) -> None:
    rates = {}
    for clients, requests in ((1, 60), (64, 640)):
        body = {"contexts": [CONTEXT], "max_new_tokens": 32}
        seconds, times, statuses = asyncio.run(load(live, clients, requests, body))
        assert set(statuses) == {200}
        rates[clients] = requests / seconds
        told(
            clients=clients,
            answers_per_s=round(rates[clients], 1),
            p50_s=round(percentile(times, 0.5), 3),
            p95_s=round(percentile(times, 0.95), 3),
        )
    assert rates[64] > rates[1]


def test_many_requests_leave_no_memory_behind(live: Served) -> None:
    import gc

    (worker,) = live.service.pool.pids
    body = {"contexts": [CONTEXT], "rationale": False}
    assert set(asyncio.run(load(live, 32, max(100, REQUESTS // 10), body))[2]) == {200}  # caches fill first
    gc.collect()
    before = {pid: psutil.Process(pid).memory_info().rss for pid in (os.getpid(), worker)}
    seconds, _, statuses = asyncio.run(load(live, 32, REQUESTS, body))
    gc.collect()
    grown = {pid: (psutil.Process(pid).memory_info().rss - size) / 2**20 for pid, size in before.items()}
    service, inference = (round(value, 1) for value in grown.values())
    told(requests=REQUESTS, seconds=round(seconds), service_mib=service, inference_mib=inference)
    assert set(statuses) == {200}
    assert live.service.pool.open_jobs == 0
    assert service < 30  # the test's own client is in it too
    assert inference < 30


def test_a_thousand_open_connections_and_slow_readers_keep_nobody_from_an_answer(live: Served) -> None:
    address = ("127.0.0.1", int(live.url.rpartition(":")[2]))
    key = live.headers["Authorization"]
    body = json.dumps({"question": QUESTION, "stream": True}).encode()
    head = f"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    idle = [socket.create_connection(address) for _ in range(980)]
    slow = [socket.create_connection(address) for _ in range(20)]
    try:
        for connection in slow:  # they ask, and read nothing
            connection.sendall(head.encode() + body)

        for connection in idle[:100]:  # they begin a request, and don't end it
            connection.sendall(b"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Len")
        began = time.perf_counter()
        assert live.post("/v1/answer", {"question": QUESTION, "max_new_tokens": 8}).status_code == 200
        told(open_connections=len(idle) + len(slow), answer_s=round(time.perf_counter() - began, 3))
        until(lambda: live.service.pool.open_jobs == 0, "slow readers keep their places")
    finally:
        for connection in [*idle, *slow]:
            connection.close()
    assert live.get("/readyz").status_code == 200


def test_no_request_that_its_document_allows_is_answered_by_a_fault(live: Served) -> None:
    program = shutil.which("schemathesis")
    if program is None:
        pytest.skip("no schemathesis here: pip install schemathesis")
    words = ["run", f"{live.url}/openapi.json", "--checks", "not_a_server_error"]
    words += [
        "--header",
        f"Authorization: {live.headers['Authorization']}",
        "--seed",
        "1",
        "--max-examples",
        "40",
    ]
    # it has no writer of JSON lines and PDFs; test_serve.py and test_serve_page.py have those
    words += ["--exclude-path", "/v1/batch", "--exclude-path", "/v1/text"]
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=550)
    told(schemathesis=done.stdout[-600:])
    assert done.returncode == 0, done.stdout[-3000:]


def test_sigterm_under_load_answers_what_is_open_and_leaves_no_process(
    folders: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    words = ["serve", "--adapter", folders["ward"], "--device", "cpu", "--port", "0", "--rows", "2"]
    words += ["--drain_s", "300", "--timeout_s", "300"]
    command = WarmCommand(words, cwd=tmp_path, log=log)
    url = until(
        lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text() if log.exists() else ""),
        "no start",
        180,
    )
    children = psutil.Process(command.pid).children(recursive=True)

    async def waiting(http: httpx.AsyncClient) -> float:
        shown = re.search(r"^medqlora_queue (\S+)$", (await http.get("/metrics")).text, re.MULTILINE)
        assert shown is not None
        return float(shown[1])

    async def ask_and_end() -> list[int]:
        async with httpx.AsyncClient(base_url=url[0], timeout=300) as http:
            asked = [
                asyncio.ensure_future(http.post("/v1/answer", json={"question": QUESTION})) for _ in range(24)
            ]
            # all have come in; on a slow machine the first are answered before the last one has
            while await waiting(http) + sum(each.done() for each in asked) < 24:
                pass
            command.terminate()
            replies = await asyncio.gather(*asked)
        return [reply.status_code for reply in replies]

    assert asyncio.run(ask_and_end()) == [200] * 24
    assert command.wait(240) == 0
    assert "SIGTERM: every open request was answered" in log.read_text()
    assert not [child for child in psutil.wait_procs(children, timeout=240)[1] if child.is_running()]
