"""What every way of asking has in common, without a model: fixed replies, names, warnings, and bodies that are odd."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from medqlora.config.serving import ServeOptions
from medqlora.data.question_set import Evidence
from medqlora.inference import Answer
from medqlora.records import Record
from medqlora.retrieval.retriever import Retrieved
from medqlora.retrieval.search import Hit
from medqlora.retrieval.store import Found
from medqlora.safety import NOTE
from medqlora.serving import Delta, Done, Event, Job, Scores, apart
from medqlora.serving.app import create_app
from medqlora.serving.audit import AuditLog
from medqlora.serving.engine import ServedModel
from medqlora.serving.errors import ServiceError
from medqlora.serving.guard import Limits
from medqlora.serving.metrics import Metrics
from medqlora.serving.patience import patiently
from medqlora.serving.pool import UnavailableError
from medqlora.serving.service import Service
from medqlora.serving.tokens import Rate, Tokens, new_token

DANGER = "I took 40 paracetamol tablets and want to die. What should I do?"
DRAWN = "Trained on invented data (drawn)."
SENTENCE = "The drug lowered the risk of stroke in the trial."


class KnownPool:
    """Answers by fixed scores, as adapters with a warning do; `most` jobs at once."""

    def __init__(self, labels: tuple[str, ...] = ("yes", "no"), most: int = 8) -> None:
        self.models = {name: ServedModel(name, "tiny", labels, wants_context=True) for name in ("one", "two")}
        self.ready, self.problems, self.open_jobs, self.most = 1, {}, 0, most

    async def run(self, job: Job) -> AsyncIterator[Event]:
        if self.open_jobs >= self.most:
            raise UnavailableError("full", 2)
        self.open_jobs += 1
        try:
            await asyncio.sleep(0.01)
            labels = job.record.labels
            answer = Answer(
                **{"id": job.id, "question": job.record.question, "kind": "answer", "warning": DRAWN},
                decision=labels[0] if labels else None,
                probabilities={label: 1 / len(labels) for label in labels},
                confidence=1 / len(labels) if labels else None,
                caution="no calibration",
            )
            text = Answer(**{**vars(answer), "rationale": SENTENCE})
            if job.stream:
                yield Scores(job.id, answer, 3)
                yield Delta(job.id, SENTENCE)
            yield Done(job.id, text if job.write else answer, 3)
        finally:
            self.open_jobs -= 1


class Passages:
    """An index with these passages."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts

    async def retrieved(self, record: Record) -> Retrieved:
        hits = tuple(
            Hit(
                Found(
                    *(number, f"d{number}", f"d{number}", "file", "A trial", "", "", "", "", None),
                    *("", False, False, "ABSTRACT", text, 0, len(text), ()),
                ),
                score=1.0,
                coverage=1.0,
            )
            for number, text in enumerate(self._texts)
        )
        return Retrieved(
            replace(record, contexts=self._texts), list(hits), Evidence(False, 0, len(hits), 1.0)
        )


def service(tmp_path: Path, pool: Any = None, sources: Any = None, **options: Any) -> Service:
    audit = AuditLog(str(tmp_path / "audit.jsonl"))
    metrics = Metrics(lambda: 0, lambda: 1)
    return Service(ServeOptions(**options), pool or KnownPool(), metrics, audit, {}, sources)


def post(made: Service, path: str, body: Any, tokens: Tokens | None = None, key: str = "") -> httpx.Response:
    limits = Limits(tokens, Rate("100/minute"), frozenset({"localhost"}), (), 1 << 20, 1 << 20)

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(made, limits))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            content = body if isinstance(body, bytes) else json.dumps(body)
            return await http.post(path, content=content, headers={"Authorization": f"Bearer {key}"})

    return asyncio.run(run())


def line(*asked: dict[str, Any]) -> bytes:
    return "\n".join(json.dumps(each) for each in asked).encode()


def user(*texts: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts], **more}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/answer", {"question": DANGER}),
        ("/v1/answer", {"question": DANGER, "verify": True, "contexts": ["x"]}),
        ("/v1/answer", {"question": DANGER, "verify": True, "stream": True}),
        ("/v1/answer", {"question": DANGER, "model": "gone", "images": ["http://127.0.0.1:9/x.png"]}),
        ("/v1/batch", line({"question": DANGER, "verify": True, "model": "gone"})),
        ("/v1/chat/completions", user(DANGER, medqlora={"verify": True, "contexts": "x"})),
        ("/v1/chat/completions", user(DANGER, "Does aspirin help?", stream=True)),
        ("/v1/systemone", {"state": "", "questions": {"a": {"type": "noul", "instructions": DANGER}}}),
        # whatever else is wrong with the request
        ("/v1/answer", {"question": DANGER, "temperature": 1}),
        ("/v1/answer", {"question": f"{DANGER} \ud800"}),
        ("/v1/batch", line({"question": f"{DANGER} \ud800"})),
        ("/v1/answer", {"question": DANGER, "contexts": ["x" * 200_001]}),
        ("/v1/answer", {"question": DANGER, "contexts": 7, "stream": True}),
        ("/v1/batch", line({"question": DANGER, "max_new_tokens": 0})),
        ("/v1/batch", line({"question": DANGER, "contexts": ["x" * 200_001]})),
        ("/v1/chat/completions", user(DANGER, top_logprobs=3)),
        ("/v1/chat/completions", user(DANGER, n=2, stream=True)),
        ("/v1/chat/completions", user(DANGER, "")),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "x"}, {"content": DANGER}]}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": DANGER}, {"type": "file"}]}]},
        ),
        ("/v1/systemone", {"questions": {"b": {"type": "free"}, "a": {"instructions": DANGER}}}),
    ],
)
def test_a_dangerous_question_gets_the_fixed_reply_however_it_is_asked(
    tmp_path: Path, path: str, body: Any
) -> None:
    made = service(tmp_path)
    reply = post(made, path, body)
    assert reply.status_code == (422 if path == "/v1/systemone" else 200)
    assert "emergency number" in reply.text
    assert NOTE in reply.text
    assert b'medqlora_refusals_total{kind="emergency"} 1.0' in made.metrics.text()
    (written,) = (tmp_path / "audit.jsonl").read_text("utf-8").splitlines()
    assert (json.loads(written)["kind"], json.loads(written)["status"]) == ("safe_reply", reply.status_code)


@pytest.mark.parametrize("value", [b"NaN", b"1e999", b'"\\ud800"', b"[" * 990 + b"]" * 990])
def test_what_a_reply_can_not_repeat_is_refused_and_costs_no_other_line(tmp_path: Path, value: bytes) -> None:
    made = service(tmp_path)
    asked = b'{"question": "Does aspirin help?", "line_id": %b}\n{"question": "Is it safe?", "line_id": 2}'
    first, second = map(json.loads, post(made, "/v1/batch", asked % value).text.splitlines())
    assert (first["status"], second["line_id"], second["decision"]) == (400, 2, "yes")
    question = b'{"type": "score", "instructions": "How good?", "criteria": [%b, "good"]}' % value
    reply = post(made, "/v1/systemone", b'{"state": "", "questions": {"a": %b}}' % question)
    assert reply.status_code in (400, 422)


def test_typed_decisions_name_the_model_the_warning_and_the_doubts_of_each(tmp_path: Path) -> None:
    made = service(tmp_path, library="library")
    made.router = SimpleNamespace(  # type: ignore[assignment]
        route=lambda record: SimpleNamespace(name="two" if "heart" in record.question else "one")
    )
    questions = {
        name: {"type": "noul", "instructions": f"Does it help the {name}?"} for name in ("heart", "knee")
    }
    found = post(made, "/v1/systemone", {"state": "A trial.", "questions": questions}).json()
    assert found["model"] == "library"
    assert found["medqlora"]["models"] == {"heart": "two", "knee": "one"}
    assert found["medqlora"]["warnings"] == [DRAWN]
    assert found["medqlora"]["uncertain"] == {}


@pytest.mark.parametrize("labels", [("yes", "no"), ()], ids=["labels", "free answers"])
def test_a_streamed_chat_has_the_text_of_the_whole_one(tmp_path: Path, labels: tuple[str, ...]) -> None:
    made = service(tmp_path, KnownPool(labels))
    whole = post(made, "/v1/chat/completions", user("Does aspirin help?"))
    streamed = post(made, "/v1/chat/completions", user("Does aspirin help?", stream=True))
    pieces = [json.loads(part[6:]) for part in streamed.text.split("\n\n") if part.startswith("data: {")]
    text = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces)
    assert DRAWN in text
    assert text == whole.json()["choices"][0]["message"]["content"]


def test_passages_count_as_a_context_from_the_scores_on_and_none_found_is_said(tmp_path: Path) -> None:
    asked = {"question": "Does aspirin help?", "stream": True}
    for sources, warned in ((Passages("Aspirin helps."), []), (Passages(), ["none was found"])):
        reply = post(service(tmp_path, sources=sources), "/v1/answer", asked)
        events = [json.loads(part.split("data: ")[1]) for part in reply.text.split("\n\n") if part]
        for found in (events[0], events[-1]):
            assert len(found["warnings"]) == len(warned)
            assert all(words in found["warnings"][0] for words in warned)


def test_claims_are_checked_however_short_the_queue_is_and_are_counted(tmp_path: Path) -> None:
    made = service(tmp_path, KnownPool(most=1), Passages(*["The drug lowered the risk."] * 4), queue=1)
    reply = post(made, "/v1/answer", {"question": "Does it help?", "verify": True})
    assert [len(claim["passages"]) for claim in reply.json()["claims"]] == [4]
    assert b"medqlora_claims_total{verdict=" in made.metrics.text()


def test_labels_that_say_nothing_of_a_claim_are_told_before_a_text_is_written(tmp_path: Path) -> None:
    made = service(tmp_path, KnownPool(("mild", "severe")), Passages("x"))
    reply = post(made, "/v1/answer", {"question": "How bad is it?", "verify": True, "stream": True})
    assert reply.status_code == 422
    assert "say nothing of a claim" in reply.text


def test_a_full_queue_is_waited_for_until_the_time_is_up() -> None:
    asked: list[int] = []

    async def ask() -> str:
        asked.append(1)
        if len(asked) < 2:
            raise ServiceError(503, "full", code="queue")
        return "answer"

    assert asyncio.run(patiently(ask, 5)) == "answer"
    asked.clear()
    with pytest.raises(ServiceError, match="full"):
        asyncio.run(patiently(ask, 0.1))
    assert len(asked) == 1


def test_a_line_that_waits_for_the_queue_is_counted_and_recorded_once(tmp_path: Path) -> None:
    made = service(tmp_path, KnownPool(most=2))
    reply = post(
        made, "/v1/batch", line(*({"question": f"Does drug {number} help?"} for number in range(12)))
    )
    assert [json.loads(each)["decision"] for each in reply.text.splitlines()] == ["yes"] * 12
    written = [json.loads(each) for each in (tmp_path / "audit.jsonl").read_text("utf-8").splitlines()]
    assert [each["status"] for each in written] == [200] * 12
    assert b'limit="queue"' not in made.metrics.text()
    alone = service(tmp_path, KnownPool(most=0))
    assert post(alone, "/v1/answer", {"question": "Does it help?"}).status_code == 503
    assert b'medqlora_refused_requests_total{limit="queue"} 1.0' in alone.metrics.text()


def test_only_a_few_files_of_clients_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now: list[int] = [0, 0]

    async def output(*given: Any) -> bytes:
        now[0] += 1
        now[1] = max(now)
        await asyncio.sleep(0.01)
        now[0] -= 1
        return b"x"

    monkeypatch.setattr(apart, "_output_of", output)

    async def run() -> list[bytes]:
        late = ServiceError(422, "late")
        return await asyncio.gather(*(apart.output_of("module", b"", late) for _ in range(20)))

    assert asyncio.run(run()) == [b"x"] * 20
    assert now == [0, apart.AT_ONCE]


def test_no_adapter_takes_the_name_of_the_library_or_of_the_base(tmp_path: Path) -> None:
    made = service(tmp_path, library="library", adapter_folder=str(tmp_path))
    key = new_token(str(tmp_path / "tokens"), "ward", admin=True)
    tokens = Tokens.read(str(tmp_path / "tokens"))
    for name in ("library", "base"):
        reply = post(made, "/v1/adapters", {"name": name, "folder": "x"}, tokens, key)
        assert (reply.status_code, f"name: '{name}' is the" in reply.text) == (422, True)


def test_the_description_names_every_field_of_an_answer(tmp_path: Path) -> None:
    made = service(tmp_path, sources=Passages("The drug lowered the risk."))
    limits = Limits(None, Rate("100/minute"), frozenset({"localhost"}), (), 1 << 20, 1 << 20)
    paths = create_app(made, limits).openapi()["paths"]
    content = paths["/v1/answer"]["post"]["responses"]["200"]["content"]["application/json"]
    properties, required = content["schema"]["properties"], set(content["schema"]["required"])
    asked = {"question": "Does it help?"}
    for body in (asked, {**asked, "verify": True}, {**asked, "contexts": ["x"]}, {"question": DANGER}):
        found = post(made, "/v1/answer", body).json()
        assert required <= set(found) <= set(properties)
        for name, value in found.items():
            allowed = properties[name].get("type", "string")
            assert value is not None or "null" in allowed, name
    extra = paths["/v1/chat/completions"]["post"]["responses"]["200"]["content"]["application/json"]
    assert extra["schema"]["properties"]["medqlora"]["required"] == [
        *content["schema"]["required"],
        "ignored_messages",
    ]
