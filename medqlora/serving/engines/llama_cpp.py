"""The engine on llama.cpp, for a laptop: a GGUF file of the merged model, one question at a time."""

from collections.abc import Mapping
from pathlib import Path

import torch

from medqlora.data import lookup
from medqlora.errors import InputError
from medqlora.inference.llama_cpp import LlamaCpp
from medqlora.inference.loading import build_backend, read_trained, refuse_images
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
)
from medqlora.serving.engines.answering import SELF_TEST, Spoken, served_model
from medqlora.serving.engines.names import unknown_model


class LlamaCppEngine:
    """Answers with a GGUF file; prompt, labels and calibration are those of the adapter's record.

    Args:
        model: the loaded file.
        spoken: how it is asked.
    """

    def __init__(self, model: LlamaCpp, spoken: Spoken) -> None:
        self._model = model
        self._spoken = spoken

    @classmethod
    def start(cls, spec: EngineSpec) -> "LlamaCppEngine":
        """Loads the file.

        Raises:
            InputError: the package is missing, the file can't be read, or there is no record of its training.
        """
        if len(spec.adapters) > 1:
            raise InputError("--engine llama.cpp: a GGUF file holds one adapter: pass one --adapter")
        name, folder = next(iter(spec.adapters.items()), (BASE, str(spec.base)))
        trained = read_trained(folder, "--adapter")
        refuse_images(trained, "--adapter", "--engine llama.cpp")
        backend = build_backend(trained, base=spec.base, backend="Transformers", device=torch.device("cpu"))
        calibration = trained.calibration
        served = served_model(
            name, Path(str(spec.gguf)).name, trained.labels, calibration, wants_context=trained.with_contexts
        )
        spoken = Spoken(
            served,
            lookup(trained.prompt),
            backend.tokenizer(),
            trained.max_prompt_tokens,
            calibration,
            spec.note,
            scope=trained.scope,
        )
        context = trained.max_prompt_tokens + spec.max_new_tokens
        model = LlamaCpp(Path(str(spec.gguf)).expanduser(), context, threads=spec.threads or 2)
        return cls(model, spoken)

    @property
    def models(self) -> Mapping[str, ServedModel]:
        return {self._spoken.served.name: self._spoken.served}

    @property
    def busy(self) -> bool:
        return False

    def prepare(self, job: Job) -> None:
        return None

    def work(self, inbox: Inbox, emit: Emit) -> None:
        job = inbox.take()
        if job is None:
            return
        if job.model not in self.models:
            emit([Failed(job.id, 404, unknown_model(job.model, self.models))])
            return
        if job.top_logprobs is not None:
            emit([Failed(job.id, 400, "--engine llama.cpp reports no log-probabilities of a text")])
            return
        try:
            encoded = self._spoken.encode(job)
        except InputError as error:
            emit([Failed(job.id, 400, str(error))])
            return
        logprobs = self._model.label_log_probabilities(encoded) if encoded.labels else ()
        lengths = [len(label) for label in encoded.labels]
        scored = self._spoken.answer(job, logprobs, lengths)
        count = len(encoded.prompt)
        if not job.write:
            emit([Done(job.id, scored, count)])
            return
        if job.stream:
            emit([Scores(job.id, scored, count)])
        written = self._model.write(
            encoded.prompt, job.max_new_tokens, temperature=job.temperature, seed=job.seed, stop=job.stop
        )
        if job.stream:
            emit([Delta(job.id, written.text)])
        answer = self._spoken.answer(job, logprobs, lengths, written.text)
        emit([Done(job.id, answer, count, written.tokens, written.finish)])

    def self_test(self) -> dict[str, tuple[float, ...]]:
        name = self._spoken.served.name
        encoded = self._spoken.encode(Job(f"self-test-{name}", name, SELF_TEST))
        return {name: self._model.label_log_probabilities(encoded)}

    def load(self, name: str, folder: str) -> ServedModel:
        raise InputError("--engine llama.cpp: a GGUF file holds one adapter: start another service")

    def unload(self, name: str) -> None:
        raise InputError("--engine llama.cpp: a GGUF file holds one adapter: stop the service")
