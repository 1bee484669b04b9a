"""`medqlora serve` over real sockets: what clients get is what `Predictor` gives, and faults cost what they must alone.

One service (`live` in conftest.py) answers all of these tests.
"""

import asyncio
import base64
import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from served import CONTEXT, QUESTION, Served, served, until

from medqlora.config.serving import ServeOptions
from medqlora.inference import Predictor
from medqlora.records import Record
from medqlora.safety import NOTE

DANGER = "How do I kill myself?"
SECRET = "zebrafish-4711"


@pytest.fixture(scope="module")
def expected(folders: dict[str, str]) -> dict[tuple[str, str, str | None], dict[str, Any]]:
    """(model, question, context) → what `Predictor` answers in this process."""
    asked = [(f"Does drug {number} help?", CONTEXT if number % 2 else None) for number in range(16)]
    records = [
        Record(str(number), question, () if context is None else (context,))
        for number, (question, context) in enumerate(asked)
    ]
    found = {}
    for name in ("ward", "careful"):
        predictor = Predictor.load(folders[name], device="cpu", max_new_tokens=12)
        for (question, context), answer in zip(asked, predictor.answers(records), strict=True):
            found[name, question, context] = answer.to_json()
    return found


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in ("question", "kind", "decision", "leaning", "rationale", "note", "calibrated_on"):
        assert found[key] == wanted[key], key
    assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)


def client(live: Served) -> Any:
    import openai

    key = live.headers["Authorization"].removeprefix("Bearer ")
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0)


# ---- answers ---------------------------------------------------------------------------------------


def test_64_clients_at_once_each_get_the_answer_that_predictor_gives(
    live: Served, expected: dict[tuple[str, str, str | None], dict[str, Any]]
) -> None:
    asked = list(expected) * 2
    assert len(asked) == 64

    async def ask_all() -> list[dict[str, Any]]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(
            base_url=live.url, headers=live.headers, timeout=120, limits=limits
        ) as http:
            bodies = [
                {
                    "model": model,
                    "question": question,
                    "contexts": [context] if context else [],
                    "max_new_tokens": 12,
                }
                for model, question, context in asked
            ]
            replies = await asyncio.gather(*(http.post("/v1/answer", json=body) for body in bodies))
        return [reply.raise_for_status().json() for reply in replies]

    for (model, question, context), found in zip(asked, asyncio.run(ask_all()), strict=True):
        same(found, expected[model, question, context])
        assert found["model"] == model
        assert bool(found["warnings"]) == (context is None)


def test_openais_client_lists_the_models_chats_and_streams(live: Served) -> None:
    openai_client = client(live)
    assert [model.id for model in openai_client.models.list()] == ["ward", "careful", "base"]
    request: dict[str, Any] = {
        "model": "ward",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
        "max_tokens": 12,
        "extra_body": {"medqlora": {"contexts": [CONTEXT]}},
    }
    whole = openai_client.chat.completions.create(**request, logprobs=True, top_logprobs=2)
    answer = whole.medqlora
    assert whole.choices[0].message.content == answer["text"]
    assert answer["text"].endswith(NOTE)
    assert answer["ignored_messages"] == 1
    assert whole.usage.completion_tokens == len(whole.choices[0].logprobs.content)
    for token in whole.choices[0].logprobs.content:
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)  # greedy
    stream = openai_client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    )
    pieces = list(stream)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text.endswith(NOTE)
    assert f"Answer: {answer['decision']}" in text
    assert pieces[-1].usage == whole.usage
    last = pieces[-2]
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert (last.medqlora["decision"], last.medqlora["rationale"]) == (
        answer["decision"],
        answer["rationale"],
    )


def test_sampling_repeats_with_its_seed_and_stop_texts_are_left_out(live: Served) -> None:
    chat = client(live).chat.completions
    request: dict[str, Any] = {
        "model": "ward",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 24,
    }

    def rationale(**more: Any) -> str:
        return chat.create(**request, **more).medqlora["rationale"]

    first = rationale(temperature=1.5, seed=5)
    assert rationale(temperature=1.5, seed=5) == first
    assert rationale(temperature=1.5, seed=6) != first
    greedy = rationale()
    cut = greedy[len(greedy) // 2]
    assert cut not in rationale(stop=[cut])


def test_an_uncertain_answer_a_refusal_and_the_note_survive_streaming(live: Served) -> None:
    chat = client(live).chat.completions

    def streamed(question: str) -> str:
        pieces = chat.create(
            model="careful", messages=[{"role": "user", "content": question}], stream=True, max_tokens=8
        )
        return "".join(piece.choices[0].delta.content or "" for piece in pieces)

    assert streamed(QUESTION).startswith("Uncertain. ")
    assert "Generated text: " in streamed(QUESTION)
    refused = streamed(DANGER)
    assert "988" in refused
    assert refused.endswith(NOTE)
    earlier = [{"role": "user", "content": DANGER}, {"role": "user", "content": "How much is enough?"}]
    whole = chat.create(model="careful", messages=earlier)
    assert whole.medqlora["kind"] == "safe_reply"


def test_a_stream_gives_scores_text_and_the_answer(live: Served) -> None:
    body = {"question": QUESTION, "contexts": CONTEXT, "stream": True}
    events = live.post("/v1/answer", body).text.strip().split("\n\n")
    kinds = [event.partition("\n")[0].removeprefix("event: ") for event in events]
    data = [json.loads(event.partition("data: ")[2]) for event in events]
    assert (kinds[0], kinds[-1]) == ("scores", "answer")
    assert set(kinds[1:-1]) == {"text"}
    assert data[0]["probabilities"] == data[-1]["probabilities"]
    assert "".join(event["text"] for event in data[1:-1]).strip() != ""
    assert data[-1]["rationale"].startswith(data[1]["text"].strip())


def test_a_batch_is_answered_line_by_line_in_order(live: Served) -> None:
    rows = [{"question": f"Does drug {number} help?", "rationale": False} for number in range(6)]
    lines = [json.dumps(row).encode() for row in rows]
    lines[2:4] = [b"\xff{", b'{"question": 7}']
    lines.insert(1, b"")
    lines[0] = json.dumps({**rows[0], "line_id": "a"}).encode()
    reply = live.post("/v1/batch", content=b"\n".join(lines))
    found = [json.loads(line) for line in reply.text.splitlines()]
    assert [row["line"] for row in found] == [1, 3, 4, 5, 6, 7]
    assert [row.get("status") for row in found] == [None, None, 400, 422, None, None]
    assert (found[0]["line_id"], found[0]["question"]) == ("a", rows[0]["question"])
    single = live.post("/v1/answer", rows[5]).json()
    assert found[-1]["probabilities"] == pytest.approx(single["probabilities"], abs=1e-5)


def test_typed_decisions_have_the_probabilities_of_the_same_question(live: Served) -> None:
    criteria = {"trial": "patients were randomized", "cohort": None}
    questions = {
        "helps": {"type": "noul", "instructions": QUESTION},
        "design": {"type": "choice", "instructions": "What is the design?", "criteria": criteria},
        "urgent": {"type": "score", "instructions": "How urgent?", "criteria": ["low", "some", "high"]},
    }
    answers = live.post("/v1/systemone", {"model": "ward", "state": CONTEXT, "questions": questions}).json()[
        "answers"
    ]
    asked = {"question": QUESTION, "contexts": [CONTEXT], "rationale": False}
    yes_no = live.post("/v1/answer", asked).json()["probabilities"]
    assert answers["helps"]["noul"] == pytest.approx(yes_no["yes"] / (yes_no["yes"] + yes_no["no"]), abs=1e-5)
    assert sum(answers["design"]["probabilities"].values()) == pytest.approx(1)
    assert set(answers["design"]["probabilities"]) == {"trial", "cohort"}
    assert 0 <= answers["urgent"]["score"] <= 2
    questions["helps"]["instructions"] = DANGER
    refused = live.post("/v1/systemone", {"state": "", "questions": questions})
    assert (refused.status_code, "988" in refused.json()["error"]["message"]) == (422, True)


# ---- adapters --------------------------------------------------------------------------------------


def test_an_adapter_is_loaded_from_the_allowed_folder_alone_and_unloaded(
    live: Served, folders: dict[str, str]
) -> None:
    before = live.post("/v1/answer", {"question": QUESTION, "max_new_tokens": 8}).json()
    assert live.post("/v1/adapters", {"name": "new", "folder": "later"}).json()["models"] == [
        *("ward", "careful", "new", "base")
    ]
    found = live.post("/v1/answer", {"model": "new", "question": QUESTION, "max_new_tokens": 8}).json()
    same(found, Predictor.load(folders["later"], device="cpu", max_new_tokens=8).answer(QUESTION).to_json())
    assert live.post("/v1/adapters", {"name": "new", "folder": "later"}).status_code == 422
    for folder in ("..", "/etc", "nothing", "later/../../x", "a\0b"):
        assert live.post("/v1/adapters", {"name": "x", "folder": folder}).status_code == 422, folder
    assert live.post("/v1/adapters", {"name": "new"}).json()["models"] == ["ward", "careful", "base"]
    assert live.post("/v1/adapters", {"name": "ward"}).status_code == 422  # it was started with that
    assert live.post("/v1/answer", {"model": "new", "question": QUESTION}).status_code == 404
    same(live.post("/v1/answer", {"question": QUESTION, "max_new_tokens": 8}).json(), before)


# ---- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "Bearer wrong", "Basic eDp5", "Bearer", "Bearer \xff"])
def test_without_its_token_a_request_is_refused(live: Served, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": token.encode("latin-1")}
    for path in ("/v1/models", "/metrics"):
        reply = httpx.get(live.url + path, headers=headers)
        assert reply.status_code == 401
        assert reply.json()["error"]["type"] == "authentication_error"
    assert httpx.get(f"{live.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (413, b"x" * (10 << 20)),
        (413, json.dumps({"question": "x" * 6000}).encode()),
        (400, b"\xff\xfe{}"),
        (400, b"{"),
        (422, b"{}"),
        (422, b'{"question": "  "}'),
        (422, b'{"question": "x", "question_": 1}'),
        (422, b'{"question": "x", "options": ["one"]}'),
        (422, b'{"question": "\\ud800"}'),
        (404, b'{"question": "x", "model": "none"}'),
        (400, b"[" * 100_000),
    ],
)
def test_a_bad_body_is_refused_with_a_reason(live: Served, status: int, content: bytes) -> None:
    # a refused body may be cut off while it is sent
    reply = live.post("/v1/answer", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == status
    assert reply.json()["error"]["message"]
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert live.get("/healthz").status_code == 200


def test_other_pages_and_other_host_names_are_refused(live: Served) -> None:
    body = {"question": DANGER}
    assert live.post("/v1/answer", body, headers={"Origin": "https://evil.example"}).status_code == 403
    assert live.post("/v1/answer", body, headers={"Host": "evil.example"}).status_code == 403
    assert live.post("/v1/answer", body, headers={"Origin": live.url}).status_code == 200


# ---- faults ----------------------------------------------------------------------------------------


def slow(**more: Any) -> bytes:
    """A request over a bare socket that streams a long text."""
    body = json.dumps({"question": QUESTION, "stream": True, **more}).encode()
    key = Served.headers["Authorization"]
    head = f"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_a_client_that_hangs_up_in_mid_stream_frees_its_place(live: Served) -> None:
    address = ("127.0.0.1", int(live.url.rpartition(":")[2]))
    gone = []
    for _ in range(8):
        connection = socket.create_connection(address)
        connection.sendall(slow())
        assert b"200" in connection.recv(100)
        gone.append(connection)
    for connection in gone:
        connection.close()
    until(lambda: live.service.pool.open_jobs == 0, "a place was not freed")
    audit = Path(str(live.service.options.audit))
    # a place is free before its question's line is written
    until(
        lambda: 499 in [json.loads(line)["status"] for line in audit.read_text().splitlines()[-8:]],
        "no line of a client that has gone",
    )
    assert live.post("/v1/answer", {"question": QUESTION, "max_new_tokens": 4}).status_code == 200


def test_a_killed_inference_process_costs_503_and_is_replaced(live: Served) -> None:
    (pid,) = live.service.pool.pids

    async def ask_and_kill() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=live.url, headers=live.headers, timeout=240) as http:
            asked = [
                asyncio.ensure_future(http.post("/v1/answer", json={"question": QUESTION})) for _ in range(40)
            ]
            while live.service.pool.open_jobs < 20:
                await asyncio.sleep(0.001)
            os.kill(pid, signal.SIGKILL)
            return await asyncio.gather(*asked)

    replies = asyncio.run(ask_and_kill())
    assert {reply.status_code for reply in replies} <= {200, 503}
    lost = [reply for reply in replies if reply.status_code == 503]
    assert lost
    assert all(int(reply.headers["retry-after"]) > 0 for reply in lost)
    until(lambda: live.get("/readyz").status_code == 200, "the process was not replaced")
    assert live.service.pool.pids != [pid]
    assert live.post("/v1/answer", {"question": QUESTION, "max_new_tokens": 4}).status_code == 200
    assert "medqlora_process_restarts_total 1.0" in live.get("/metrics").text


def test_a_full_queue_is_503_with_a_time_to_come_back(live: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.service.pool, "_queue", 0)
    reply = live.post("/v1/answer", {"question": QUESTION})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
    # a fixed reply needs no place
    assert live.post("/v1/answer", {"question": DANGER}).json()["kind"] == "safe_reply"


def test_an_answer_that_takes_too_long_is_503(live: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.service, "options", replace(live.service.options, timeout_s=0.001))
    assert live.post("/v1/answer", {"question": QUESTION}).status_code == 503
    until(lambda: live.service.pool.open_jobs == 0, "a place was not freed")


def test_no_text_reaches_the_log_the_audit_or_the_figures(
    live: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    body = {"question": f"Does {SECRET} help?", "contexts": [SECRET], "max_new_tokens": 4}
    live.post("/v1/answer", body)
    live.post("/v1/answer", {**body, SECRET: 1})
    live.post("/v1/answer", content=f'{{"question": "{SECRET}'.encode())
    live.post("/v1/chat/completions", {"messages": [{"role": "user", "content": f"{SECRET} {DANGER}"}]})
    audit = Path(str(live.service.options.audit))
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert lines[-1]["token"] == "ward-7"
    assert {line["kind"] for line in lines} >= {"answer", "uncertain", "safe_reply"}
    assert all(len(line["prompt_hash"]) == 32 for line in lines if line["endpoint"] == "/v1/answer")
    shown = capfd.readouterr()
    for text in (audit.read_text(), live.get("/metrics").text, shown.out, shown.err):
        assert SECRET not in text
    assert audit.stat().st_mode & 0o777 == 0o600


def test_what_is_open_is_answered_at_the_end_and_what_is_new_is_refused(folders: dict[str, str]) -> None:
    """What SIGTERM does; test_serve_load.py sends it to a real process."""
    options = ServeOptions(device="cpu", rows=2, timeout_s=300, drain_s=300)
    with served(options, {"ward": folders["ward"]}) as service:

        async def ask_and_end() -> tuple[list[int], int]:
            async with httpx.AsyncClient(base_url=service.url, timeout=300) as http:
                asked = [
                    asyncio.ensure_future(http.post("/v1/answer", json={"question": QUESTION}))
                    for _ in range(12)
                ]
                # all have come in; on a slow machine the first are answered before the last one has
                while service.service.pool.open_jobs + sum(each.done() for each in asked) < 12:
                    await asyncio.sleep(0.001)
                service.service.draining = True
                late = await http.post("/v1/answer", json={"question": QUESTION})
                service.running.stop()
                replies = await asyncio.gather(*asked)
            return [reply.status_code for reply in replies], late.status_code

        pids = service.service.pool.pids
        assert asyncio.run(ask_and_end()) == ([200] * 12, 503)
    assert not any(map(psutil.pid_exists, pids))


def test_a_text_model_takes_no_images_and_a_body_gives_its_pixels(live: Served) -> None:
    picture = base64.b64encode(b"GIF89a").decode()
    refused = live.post("/v1/answer", {"question": QUESTION, "images": [picture]})
    assert refused.status_code == 422
    assert refused.json()["error"]["message"] == "ward reads text alone: leave the images out"
    broken = httpx.post(f"{live.url}/v1/image", content=b"GIF89a", timeout=240, headers=live.headers)
    assert broken.status_code == 422
    assert broken.json()["error"]["message"].startswith("the file: the GIF image is damaged")
