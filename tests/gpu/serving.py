"""Load on an answering service: time to the first token, tokens per second, and p50 and p95 of `/v1/answer`.

    python tests/gpu/serving.py http://127.0.0.1:8000 --model NAME [--users 1 32 128] [--seconds 20] [--chat_only]
    python tests/gpu/serving.py --offline ADAPTER     decisions per second of the likelihood scorer, without a service

`--chat_only` measures `/v1/chat/completions` alone, which other servers have too, such as transformers' own. The
questions are PubMedQA's where MEDQLORA_PUBMEDQA names its file, else words of its lengths. Each user sends its next
question when the last one is answered. One JSON line per measurement; before them each number of users asks once,
so kernels are compiled and graphs captured outside of the measured time.
"""

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx


def questions(count: int) -> list[tuple[str, list[str]]]:
    """Pairs of a question and its contexts."""
    file = os.environ.get("MEDQLORA_PUBMEDQA")
    if file:
        records = list(json.loads(Path(file).read_text(encoding="utf-8")).values())
        return [(each["QUESTION"], each["CONTEXTS"]) for each in records[:count]]
    words = ["trial", "patients", "treated", "placebo", "outcome", "risk", "ratio", "weeks", "dose", "group"]
    generator = random.Random(0)
    return [("Does it help?", [" ".join(generator.choices(words, k=230))]) for _ in range(count)]


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Lines that end with a line feed; httpx's own also end at U+2028, which may stand in an event's text."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")


class Load:
    """Users that ask one service.

    Args:
        url: of the service.
        model: the name to ask for.
        tokens: mean length of a text; texts that end together would make waves.
        contexts_apart: the contexts of a chat stand beside its messages, as this project's service takes them.
    """

    def __init__(self, url: str, model: str, tokens: int, *, contexts_apart: bool) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=300,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
        )
        self._model, self._tokens = model, tokens
        self._contexts_apart = contexts_apart
        self._asked = questions(500)
        self._next = 0

    def _question(self) -> tuple[str, list[str], int]:
        """A question, its contexts, and the length of its text: from half to one and a half of `tokens`."""
        self._next += 1
        length = self._tokens // 2 + 37 * self._next % (self._tokens + 1)
        return *self._asked[self._next % len(self._asked)], length

    async def chat(self) -> tuple[float, float, int]:
        """Seconds to the first token, seconds in all, and tokens, of one streamed answer."""
        question, contexts, length = self._question()
        words = [question] if self._contexts_apart else [*contexts, question]
        body: dict[str, object] = {
            "model": self._model,
            "messages": [{"role": "user", "content": "\n".join(words)}],
            "max_tokens": length,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._contexts_apart:
            body["medqlora"] = {"contexts": contexts}
        began, first, pieces, usage = time.perf_counter(), 0.0, 0, 0
        async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in _lines(response):
                if not line.startswith(b"data: ") or line == b"data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise httpx.HTTPError(str(event["error"]))
                usage = (event.get("usage") or {}).get("completion_tokens") or usage
                if any((choice.get("delta") or {}).get("content") for choice in event.get("choices", [])):
                    pieces += 1
                    first = first or time.perf_counter() - began
        return first, time.perf_counter() - began, usage or pieces

    async def answer(self, write: bool) -> tuple[float, float, int]:
        """The same of one answer in one piece; with `write` false a decision alone."""
        question, contexts, length = self._question()
        body = {"question": question, "contexts": contexts, "model": self._model, "rationale": write}
        if write:
            body["max_new_tokens"] = length
        began = time.perf_counter()
        response = await self._client.post("/v1/answer", json=body)
        response.raise_for_status()
        usage = response.json().get("usage") or {}
        return 0.0, time.perf_counter() - began, int(usage.get("completion_tokens") or 0)

    async def measure(self, kind: str, users: int, seconds: float) -> dict[str, object]:
        """One line of results of `users` that ask without a pause.

        Counted are the answers that end within `seconds`, from the moment on at which as many have ended as there are
        users (or 15 s have passed): then the service is in its stride. What is open at the end is given up.
        """
        results: list[tuple[float, float, int]] = []
        errors: list[str] = []

        async def user() -> None:
            while len(errors) < 5:
                try:
                    results.append(await (self.chat() if kind == "chat" else self.answer(kind == "answer")))
                except (httpx.HTTPError, ValueError) as error:  # noqa: PERF203  # each request may fail alone
                    errors.append(repr(error)[:200])

        tasks = [asyncio.ensure_future(user()) for _ in range(users)]
        began = time.perf_counter()
        while len(results) < users and time.perf_counter() - began < 15 and len(errors) < 5:
            await asyncio.sleep(0.02)
        first, began = len(results), time.perf_counter()
        await asyncio.sleep(seconds if len(errors) < 5 else 0)
        counted, elapsed = results[first:], time.perf_counter() - began
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not counted:
            return {"kind": kind, "users": users, "errors": errors[:2]}
        times = [each[1] for each in counted]
        own = [tokens / (total - start) for start, total, tokens in counted if total > start]
        return {
            "kind": kind,
            "users": users,
            "answers": len(counted),
            "answers_per_s": round(len(counted) / elapsed, 2),
            "tokens_per_s": round(sum(each[2] for each in counted) / elapsed, 1),
            "first_token_p50_s": round(percentile([each[0] for each in counted], 0.5), 3),
            "own_tokens_per_s": round(percentile(own, 0.5), 1),
            "p50_s": round(percentile(times, 0.5), 3),
            "p95_s": round(percentile(times, 0.95), 3),
            "errors": errors[:2],
        }


def offline(adapter: str, micro_batch_tokens: int, go: str | None) -> None:
    """Prints how fast `Predictor` scores the same questions, the fastest of two rounds.

    Once the model is loaded, it waits for the file `go`: so another program can be measured meanwhile.
    """
    from dataclasses import replace

    from medqlora.inference.predictor import Predictor
    from medqlora.records import YES_NO_MAYBE, Record

    predictor = replace(
        Predictor.load(adapter, generate=False), micro_batch_tokens=micro_batch_tokens, packed=True
    )
    records = [
        Record(str(number), question, tuple(contexts), labels=YES_NO_MAYBE)
        for number, (question, contexts) in enumerate(questions(500))
    ]
    while go is not None and not Path(go).exists():
        time.sleep(0.1)
    times = []
    for _ in range(3):  # the first compiles
        began = time.perf_counter()
        predictor.predict(records)
        times.append(time.perf_counter() - began)
    best = len(records) / min(times[1:])
    print(json.dumps({"kind": "offline", "seconds": times, "answers_per_s": round(best, 2)}), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--offline", metavar="ADAPTER")
    parser.add_argument("--go", metavar="FILE", help="of --offline")
    parser.add_argument("--micro_batch_tokens", type=int, default=8192, help="of --offline")
    parser.add_argument("--model", default="")
    parser.add_argument("--kinds", nargs="+", default=["chat", "answer", "decision"])
    parser.add_argument("--users", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--chat_only", action="store_true")
    parser.add_argument("--cold", action="store_true", help="without a round before the measurements")
    given = parser.parse_args()
    if given.offline:
        offline(given.offline, given.micro_batch_tokens, given.go)
        return
    load = Load(given.url, given.model, given.tokens, contexts_apart=not given.chat_only)
    kinds = ["chat"] if given.chat_only else given.kinds
    for users in () if given.cold else given.users:  # compiles and captures
        results = await asyncio.gather(*(load.chat() for _ in range(users)), return_exceptions=True)
        for error in [each for each in results if isinstance(each, BaseException)][:2]:
            print(json.dumps({"warm_up": users, "error": repr(error)[:200]}), flush=True)
    for kind in kinds:
        for users in given.users:
            print(json.dumps(await load.measure(kind, users, given.seconds)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
