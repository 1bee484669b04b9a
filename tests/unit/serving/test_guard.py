"""The guard before the application: rate, origins, sizes, and the end of the service."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from medqlora.serving.guard import Guard, Limits, Message, Receive, Send
from medqlora.serving.metrics import Metrics
from medqlora.serving.tokens import Rate, Tokens, new_token


async def application(scope: Any, receive: Receive, send: Send) -> None:
    """Replies with the body that it got."""
    message: Message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


@pytest.fixture
def key(tmp_path: Path) -> str:
    return new_token(str(tmp_path / "tokens"), "ward")


def guarded(
    tmp_path: Path, *, rate: str = "100/minute", cors: tuple[str, ...] = (), draining: bool = False
) -> Guard:
    limits = Limits(
        Tokens.read(str(tmp_path / "tokens")),
        Rate(rate),
        frozenset({"here"}),
        cors,
        body_bytes=10,
        batch_bytes=100,
    )
    return Guard(application, limits, Metrics(lambda: 0, lambda: 0), lambda: draining)


def ask(guard: Guard, count: int = 1, method: str = "POST", **request: Any) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(guard)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            return [await http.request(method, **{"url": "/v1/answer", **request}) for _ in range(count)]

    return asyncio.run(run())


def test_a_token_that_used_up_its_rate_gets_429_and_a_time_to_come_back(tmp_path: Path, key: str) -> None:
    replies = ask(
        guarded(tmp_path, rate="2/minute"), 3, headers={"Authorization": f"Bearer {key}"}, content=b"{}"
    )
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert replies[2].headers["retry-after"] == "60"
    assert replies[2].json()["error"]["type"] == "rate_limit_error"


def test_a_page_of_a_named_origin_may_ask_and_others_may_not(tmp_path: Path, key: str) -> None:
    guard = guarded(tmp_path, cors=("https://ward.example",))
    headers = {"Authorization": f"Bearer {key}", "Origin": "https://ward.example"}
    (reply,) = ask(guard, headers=headers, content=b"{}")
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, "https://ward.example")
    asked = {"Origin": "https://ward.example", "Access-Control-Request-Method": "POST"}
    (preflight,) = ask(guard, method="OPTIONS", headers=asked)
    assert (preflight.status_code, preflight.headers["access-control-allow-methods"]) == (204, "GET, POST")
    for origin in ("https://evil.example", "null", "https://ward.example.evil"):
        (reply,) = ask(guard, headers={**headers, "Origin": origin}, content=b"{}")
        assert reply.status_code == 403
        assert "access-control-allow-origin" not in reply.headers


def test_a_body_without_a_length_is_cut_at_the_limit_too(tmp_path: Path, key: str) -> None:
    async def pieces() -> Any:
        for _ in range(5):
            yield b"four"

    headers = {"Authorization": f"Bearer {key}"}
    assert ask(guarded(tmp_path), headers=headers, content=pieces())[0].status_code == 413
    assert ask(guarded(tmp_path), headers=headers, content=pieces(), url="/v1/batch")[0].text == "four" * 5


def test_while_it_drains_new_requests_get_503(tmp_path: Path, key: str) -> None:
    (reply,) = ask(
        guarded(tmp_path, draining=True), headers={"Authorization": f"Bearer {key}"}, content=b"{}"
    )
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    assert ask(guarded(tmp_path, draining=True), method="GET", url="/healthz")[0].status_code == 200


def test_an_error_of_the_application_is_500_without_its_message(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(scope: Any, receive: Receive, send: Send) -> None:
        raise RuntimeError("zebrafish")

    guard = guarded(tmp_path)
    guard._app = broken
    (reply,) = ask(guard, headers={"Authorization": f"Bearer {key}"}, content=b"{}")
    assert reply.status_code == 500
    shown = capsys.readouterr().out
    assert "RuntimeError in /v1/answer (test_guard.py:" in shown
    assert "zebrafish" not in shown + reply.text
