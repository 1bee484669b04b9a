"""The engine on a vLLM server: it has the weights, this project the prompt, the decision and its calibration.

Decisions are the log-likelihoods of the labels over the complete vocabulary, as everywhere: vLLM reports those of a
prompt's own tokens (`prompt_logprobs`), and each label is sent behind the prompt. vLLM batches and caches prefixes.
Start it with the command of `medqlora export --to vllm`; the adapters' names there are those of `--adapter NAME=DIR`.
"""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from medqlora.data import end_token_ids, lookup
from medqlora.errors import InputError
from medqlora.inference.loading import build_backend, read_trained, refuse_images
from medqlora.records import Encoded
from medqlora.serving.engine import (
    BASE,
    Delta,
    Done,
    Emit,
    EngineSpec,
    Failed,
    Inbox,
    Job,
    Scores,
    ServedModel,
    TokenLogprob,
)
from medqlora.serving.engines.answering import SELF_TEST, Spoken, served_model
from medqlora.serving.engines.names import unknown_model
from medqlora.utils.types import Json

#: seconds for one call; the service gives a request up earlier
_CALL_S = 600.0


class VLLMEngine:
    """Asks a vLLM server, several questions at a time.

    Args:
        url: the server's address.
        spoken: name → how the model is asked, the base model last.
        ends: token ids that end a text.
        names: name → vLLM's name of the model.
        at_once: most questions that are asked at a time.
    """

    def __init__(
        self,
        url: str,
        spoken: Mapping[str, Spoken],
        ends: Sequence[int],
        names: Mapping[str, str],
        at_once: int,
    ) -> None:
        self._url = url.rstrip("/")
        self._spoken = dict(spoken)
        self._ends = list(ends)
        self._names = dict(names)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="vllm")
        self._emitting = threading.Lock()

    @classmethod
    def start(cls, spec: EngineSpec) -> "VLLMEngine":
        """Reads the adapters' records, and asks the server which models it has.

        Raises:
            InputError: the server does not answer, or lacks a model; or an adapter can't be read.
        """
        url = str(spec.url).rstrip("/")
        try:
            served = _call(f"{url}/v1/models")
        except OSError as error:
            raise InputError(
                f"--url {url}: no answer ({error}): start vLLM there, or give its address"
            ) from error
        listed = served.get("data")
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        names = {str(entry.get("id")): entry for entry in entries}
        bases = [name for name, entry in names.items() if not entry.get("parent")]
        target = next(iter(spec.adapters.values()), spec.base)
        trained = read_trained(str(target), "--adapter")
        refuse_images(trained, "--adapter", "--engine vllm")
        backend = build_backend(trained, base=spec.base, backend="Transformers", device=torch.device("cpu"))
        tokenizer = backend.tokenizer()
        spoken: dict[str, Spoken] = {}
        known: dict[str, str] = {}
        for name, folder in spec.adapters.items():
            if name not in names:
                raise InputError(
                    f"--adapter {name}={folder}: the server at {url} has no model {name!r}, only {', '.join(names)}: "
                    "start it with --lora-modules, or give the name that it has"
                )
            own = read_trained(folder, "--adapter")
            shown = served_model(
                name, backend.base, own.labels, own.calibration, wants_context=own.with_contexts
            )
            prompt = lookup(own.prompt)
            spoken[name] = Spoken(
                shown,
                prompt,
                tokenizer,
                own.max_prompt_tokens,
                own.calibration,
                spec.note,
                scope=own.scope,
            )
            known[name] = name
        if bases:
            calibration = None if spec.adapters else trained.calibration
            shown = served_model(BASE, backend.base, trained.labels, calibration)
            spoken[BASE] = Spoken(
                shown,
                lookup(trained.prompt),
                tokenizer,
                trained.max_prompt_tokens,
                calibration,
                spec.note,
                scope=None if spec.adapters else trained.scope,
            )
            known[BASE] = bases[0]
        return cls(url, spoken, end_token_ids(lookup(trained.prompt), tokenizer), known, max(4, spec.rows))

    @property
    def models(self) -> Mapping[str, ServedModel]:
        return {name: spoken.served for name, spoken in self._spoken.items()}

    @property
    def busy(self) -> bool:
        return False  # its threads answer by themselves

    def prepare(self, job: Job) -> None:
        return None

    def work(self, inbox: Inbox, emit: Emit) -> None:
        while (job := inbox.take()) is not None:
            self._threads.submit(self._answer, job, inbox, emit)

    def self_test(self) -> dict[str, tuple[float, ...]]:
        found = {}
        for name, spoken in self._spoken.items():
            job = Job(f"self-test-{name}", name, SELF_TEST)
            found[name] = self._scores(name, spoken.encode(job))
        return found

    def load(self, name: str, folder: str) -> ServedModel:
        raise InputError("vLLM loads its own adapters: restart it with --lora-modules")

    def unload(self, name: str) -> None:
        raise InputError("vLLM loads its own adapters: restart it without this one")

    def _answer(self, job: Job, inbox: Inbox, emit: Emit) -> None:
        """One job, in a thread of its own."""

        def tell(event: Scores | Delta | Done | Failed) -> None:
            with self._emitting:
                emit([event])

        spoken = self._spoken.get(job.model)
        try:
            if spoken is None:
                tell(Failed(job.id, 404, unknown_model(job.model, self._spoken)))
                return
            encoded = spoken.encode(job)
            logprobs = self._scores(job.model, encoded)
            lengths = [len(label) for label in encoded.labels]
            scored = spoken.answer(job, logprobs, lengths)
            count = len(encoded.prompt)
            if not job.write:
                tell(Done(job.id, scored, count))
                return
            if job.stream:
                tell(Scores(job.id, scored, count))
            text, tokens, finish = "", 0, "stop"
            found: list[TokenLogprob] = []
            for piece in self._written(job, encoded):
                if inbox.cancelled(job.id):
                    inbox.forget(job.id)
                    return  # closing the connection ends it there
                text += piece.text
                tokens += piece.tokens
                finish = piece.finish or finish
                found += piece.logprobs
                if job.stream:
                    tell(Delta(job.id, text.strip()))
            answer = spoken.answer(job, logprobs, lengths, text.strip())
            tell(Done(job.id, answer, count, tokens, finish, tuple(found)))
        except InputError as error:
            tell(Failed(job.id, 400, str(error)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            tell(
                Failed(
                    job.id, 503, f"the vLLM server gave no answer ({type(error).__name__}): ask again later"
                )
            )

    def _scores(self, model: str, encoded: Encoded) -> tuple[float, ...]:
        """log p(label | prompt) of each label in nats."""
        if not encoded.labels:
            return ()
        reply = _call(
            f"{self._url}/v1/completions",
            {
                "model": self._names[model],
                "prompt": [[*encoded.prompt, *label] for label in encoded.labels],
                "max_tokens": 1,
                "temperature": 0,
                "prompt_logprobs": 0,
            },
        )
        choices = reply["choices"]
        assert isinstance(choices, list)
        by_index = sorted(choices, key=lambda choice: int(choice["index"]))
        totals = []
        for choice, label in zip(by_index, encoded.labels, strict=True):
            steps = choice["prompt_logprobs"][-len(label) :]
            totals.append(
                sum(float(step[str(token)]["logprob"]) for step, token in zip(steps, label, strict=True))
            )
        return tuple(totals)

    def _written(self, job: Job, encoded: Encoded) -> "Iterator[_Piece]":
        """The generated text in pieces."""
        body: dict[str, Json] = {
            "model": self._names[job.model],
            "prompt": list(encoded.prompt),
            "max_tokens": job.max_new_tokens,
            "temperature": job.temperature,
            "stop_token_ids": list(self._ends),
            "stream": True,
        }
        if job.seed is not None:
            body["seed"] = job.seed
        if job.stop:
            body["stop"] = list(job.stop)
        if job.top_logprobs is not None:
            body["logprobs"] = job.top_logprobs
        request = urllib.request.Request(
            f"{self._url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with _DIRECT.open(request, timeout=_CALL_S) as reply:
            for line in reply:
                data = line.decode("utf-8").strip().removeprefix("data:").strip()
                if data and data != "[DONE]":
                    yield _Piece(json.loads(data)["choices"][0])


class _Piece:
    """A piece of a streamed completion."""

    def __init__(self, choice: Mapping[str, object]) -> None:
        self.text = str(choice.get("text") or "")
        self.finish = str(choice["finish_reason"]) if choice.get("finish_reason") else None
        self.logprobs: list[TokenLogprob] = []
        given = choice.get("logprobs")
        if isinstance(given, dict):
            tops = given.get("top_logprobs") or [{}] * len(given["tokens"])
            for token, value, top in zip(given["tokens"], given["token_logprobs"], tops, strict=True):
                self.logprobs.append(TokenLogprob(token, float(value), tuple((top or {}).items())))
        # without log-probabilities a piece is a token, but for an empty last one
        self.tokens = len(self.logprobs) or int(bool(self.text))


#: without the proxy that the environment may name: the server is the user's own
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _call(url: str, body: Mapping[str, Json] | None = None) -> dict[str, object]:
    """The JSON that a URL answers. Raises OSError, also for an HTTP error."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with _DIRECT.open(request, timeout=_CALL_S) as reply:
        found = json.loads(reply.read())
    if not isinstance(found, dict):
        raise OSError("its answer is no JSON object")
    return found
