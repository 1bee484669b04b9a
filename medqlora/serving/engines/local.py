"""The engine on `Predictor`: a loaded base model, and the adapters on it, in this process."""

import copy
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace

import torch

from medqlora.data import end_token_ids, lookup
from medqlora.errors import InputError
from medqlora.inference.decoding import DecodeEngine
from medqlora.inference.loading import Trained, build_backend, pick_device, read_trained, remarks_of
from medqlora.inference.predictor import Predictor
from medqlora.models import Backend
from medqlora.models.adapters import adapter_config
from medqlora.models.adapters.several import FIRST, NO_ADAPTER, Adapters, is_plain
from medqlora.serving.engine import (
    BASE,
    Delta,
    Done,
    Emit,
    EngineSpec,
    Event,
    Failed,
    Inbox,
    Job,
    Scores,
    ServedModel,
)
from medqlora.serving.engines.answering import SELF_TEST, Spoken, record_of, served_model
from medqlora.serving.engines.continuous import NO_MEMORY, ContinuousTexts
from medqlora.serving.engines.decoding import decode
from medqlora.serving.engines.line import LabelScores, Limit, Line, Loaded, PaddedLimit, Waiting
from medqlora.serving.engines.names import unknown_model
from medqlora.serving.engines.rows import Row

#: on a GPU a pass over prompts takes about 40 ms, up to so many of their tokens: fewer wait for others
GATHERED_TOKENS = 2048
#: and at most so many steps of the texts under way, one for two of them
GATHER_STEPS = 16
_TOO_LONG = "the question is too long for the memory that is free now"


class LocalEngine:
    """Batches jobs of all adapters on one base model under a token budget.

    What waits is scored as soon as the model is free; nothing is held back to fill a batch. So decisions are known
    before any text. With the decode engine the texts then join those under way, between two tokens, and each leaves
    when it ends. Other models generate the batch's texts together. Rows of several adapters stand side by side.

    Args:
        predictor: the loaded model; `spec.adapters`' first, or the base model.
        backend: that loaded it.
        trained: what was loaded.
        spec: the engine's options.
        decoding: the decode engine of the model; None where it doesn't run it.
    """

    def __init__(
        self,
        predictor: Predictor,
        backend: Backend,
        trained: Trained,
        spec: EngineSpec,
        decoding: DecodeEngine | None,
    ) -> None:
        self._predictor = predictor
        self._backend = backend
        self._spec = spec
        self._line = Line()
        self._gather_steps = GATHER_STEPS if predictor.device.type == "cuda" else 0
        # questions are encoded in another thread than texts are decoded in
        self._encoding = threading.Lock()
        self._encoder = copy.deepcopy(predictor.tokenizer)
        self._texts = None
        if decoding is not None:
            tokens = spec.batch_tokens
            self._texts = ContinuousTexts(decoding, predictor.tokenizer, rows=spec.rows, tokens=tokens)
        #: a text under way → its job and scores
        self._writing: dict[Row, tuple[Waiting, LabelScores]] = {}
        #: of texts that were finished outside of `work`
        self._late: list[Event] = []
        self._adapters = Adapters(predictor.model, backend)
        self._loaded: dict[str, Loaded] = {}
        first = next(iter(spec.adapters), None)
        if first is not None:
            self._loaded[first] = self._entry(first, trained, FIRST)
        self._loaded[BASE] = self._entry(BASE, trained, NO_ADAPTER)

    @classmethod
    def start(cls, spec: EngineSpec) -> "LocalEngine":
        """Loads the base model and all adapters of `spec`.

        Raises:
            InputError: one of them can't be loaded, or belongs to another base model.
        """
        target = next(iter(spec.adapters.values()), spec.base)
        if target is None:
            raise InputError("--adapter none: name the base model with --base")
        device = pick_device(spec.device)
        trained = read_trained(target, "--adapter")
        predictor = Predictor.load(
            target,
            base=spec.base if spec.adapters else None,
            backend=spec.backend,
            device=device,
            max_new_tokens=spec.max_new_tokens,
            option="--adapter",
        )
        # it scores with the adapter that it was made with, and requests name others
        decoding, predictor = predictor.engine, replace(predictor, engine=None)
        base = spec.base if spec.adapters else None
        backend = build_backend(trained, base=base, backend=spec.backend, device=device)
        engine = cls(predictor, backend, trained, spec, decoding)
        for name, folder in list(spec.adapters.items())[1:]:
            engine.load(name, folder)
        return engine

    @property
    def models(self) -> Mapping[str, ServedModel]:
        return {name: loaded.spoken.served for name, loaded in self._loaded.items()}

    @property
    def busy(self) -> bool:
        return bool(self._line or self._writing or self._late)

    def load(self, name: str, folder: str) -> ServedModel:
        if name in self._loaded:
            raise InputError(f"there is a model {name!r} already: unload it first, or give another name")
        trained = read_trained(folder, "--adapter")
        if trained.adapter is None:
            raise InputError(f"--adapter {folder}: it is a base model: give an adapter's folder")
        if not is_plain(adapter_config(trained.adapter)):
            self._finish()  # the decode engine can't go on beside it
        adapter = self._adapters.add(trained.adapter)
        model = self._adapters.model
        # the adapter may have wrapped layers that the decoder holds, as the head
        self._predictor = replace(self._predictor, model=model, decoder=self._backend.decoder(model))
        self._loaded[name] = self._entry(name, trained, adapter)
        self._loaded[BASE] = self._loaded.pop(BASE)  # the base model is listed last
        return self._loaded[name].spoken.served

    def unload(self, name: str) -> None:
        loaded = self._loaded.get(name)
        if loaded is None or name == BASE:
            raise InputError(unknown_model(name, self.models))
        if loaded.adapter == FIRST:
            raise InputError(f"{name} is the model that the service was started with: it stays loaded")
        self._finish(loaded.adapter)
        del self._loaded[name]
        self._adapters.remove(loaded.adapter)

    def self_test(self) -> dict[str, tuple[float, ...]]:
        found = {}
        for name, loaded in self._loaded.items():
            job = Job(f"self-test-{name}", name, SELF_TEST, write=False)
            with self._encoding:
                one = Waiting(job, loaded, loaded.spoken.encode(job))
            found[name] = self._score([one])[job.id].logprobs
        return found

    def work(self, inbox: Inbox, emit: Emit) -> None:
        late, self._late = self._late, []
        emit(late)
        while (taken := inbox.take_prepared()) is not None:
            job, prepared = taken
            if prepared is None:
                prepared = self.prepare(job)
            if isinstance(prepared, Waiting):
                self._line.add(prepared)
            elif isinstance(prepared, Failed):
                emit([prepared])
            else:
                emit([Failed(job.id, 404, unknown_model(job.model, self.models))])
        steps = min(self._gather_steps, len(self._writing) // 2)
        if not self._writing or self._line.due(steps, GATHERED_TOKENS):
            batch = self._line.batch(self._limit, lambda one: self._left(one, inbox, emit))
            if batch:
                self._try(batch, inbox, emit)
        if self._writing:
            emit(self._continue(inbox))

    def prepare(self, job: Job) -> Waiting | Failed | None:
        """The job with its question encoded, which takes as long as a token of all texts; None for no such model."""
        loaded = self._loaded.get(job.model)
        if loaded is None:
            return None
        try:
            with self._encoding:
                encoded = loaded.spoken.encode(job)
            self._predictor.check_examples([encoded])
        except InputError as error:
            return Failed(job.id, 400, str(error))
        except Exception as error:  # one odd question must not end the process that the others share
            return Failed(job.id, 500, f"the question can't be encoded ({type(error).__name__})")
        return Waiting(job, loaded, encoded)

    @property
    def _limit(self) -> Limit:
        if self._texts is not None and self._adapters.all_plain:
            return self._texts
        return PaddedLimit(self._spec.rows, self._spec.batch_tokens)

    def _left(self, one: Waiting, inbox: Inbox, emit: Emit) -> bool:
        """Whether a waiting job was cancelled, or its model unloaded, which is told."""
        if inbox.cancelled(one.job.id):
            inbox.forget(one.job.id)
            return True
        if self._loaded.get(one.job.model) is not one.loaded:
            emit([Failed(one.job.id, 404, unknown_model(one.job.model, self.models))])
            return True
        return False

    def _try(self, batch: Sequence[Waiting], inbox: Inbox, emit: Emit) -> None:
        """Answers a batch; one that is too large for the memory in halves."""
        try:
            self._answer(batch, inbox, emit)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                emit([Failed(batch[0].job.id, 503, _TOO_LONG)])
                return
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._try(half, inbox, emit)

    def _answer(self, batch: Sequence[Waiting], inbox: Inbox, emit: Emit) -> None:
        writing = [one for one in batch if one.job.write]
        continuous = self._texts is not None and self._adapters.all_plain
        scored = self._score(batch, begin=True)
        if continuous:
            self._writing |= {one.row: (one, scored[one.job.id]) for one in writing}
        events: list[Event] = []
        for one in batch:
            answer = one.loaded.spoken.answer(one.job, *scored[one.job.id])
            made = Scores if one.job.write else Done
            if one.job.stream or not one.job.write:
                events.append(made(one.job.id, answer, len(one.encoded.prompt)))
        emit(events)
        if not continuous:
            for group in self._groups(writing):
                self._write(group, scored, inbox, emit)

    def _score(self, batch: Sequence[Waiting], *, begin: bool = False) -> dict[str, LabelScores]:
        """Job's id → the scores of its labels; with `begin` the decode engine begins the texts too."""
        if self._texts is not None and self._adapters.all_plain:
            rows = {number: one.row for number, one in enumerate(batch) if begin and one.job.write}
            with self._autocast():
                scored = self._texts.score(
                    [one.encoded for one in batch], [one.loaded.adapter for one in batch], rows
                )
            return {
                one.job.id: LabelScores(each.label_logprobs, tuple(map(len, one.encoded.labels)))
                for one, each in zip(batch, scored, strict=True)
            }
        found: dict[str, LabelScores] = {}
        for loaded in {id(one.loaded): one.loaded for one in batch}.values():
            own = [one for one in batch if one.loaded is loaded]
            records = {one.job.id: record_of(one.job, loaded.spoken.served) for one in own}
            with self._autocast(), self._adapters.active(loaded.adapter):
                evaluated = self._predictor.evaluator.evaluate(
                    [one.encoded for one in own], records, write=False
                )
            for prediction in evaluated.predictions:
                found[prediction.id] = LabelScores(prediction.logprobs, tuple(prediction.lengths))
        return found

    def _groups(self, batch: Sequence[Waiting]) -> list[list[Waiting]]:
        """What is generated together: rows with the same end tokens, and of adapters that can be mixed."""
        groups: dict[object, list[Waiting]] = {}
        # a state along the row would run through padding: such models take prompts of one length
        padded = getattr(self._predictor.decoder, "state", None) is None
        for one in batch:
            loaded = one.loaded
            key = (
                loaded.ends,
                None if loaded.mixes else loaded.adapter,
                None if padded else len(one.encoded.prompt),
            )
            groups.setdefault(key, []).append(one)
        return list(groups.values())

    def _write(
        self, group: Sequence[Waiting], scored: Mapping[str, LabelScores], inbox: Inbox, emit: Emit
    ) -> None:
        """Generates the texts of one group, and answers each job as soon as its text ends."""
        rows = [one.row for one in group]
        by_row = {one.row: one for one in group}

        def changed(news: Sequence[Row]) -> None:
            found = [self._event(by_row[row], scored[by_row[row].job.id], row, inbox) for row in news]
            emit([event for event in found if event is not None])

        predictor = self._predictor
        names = {one.loaded.adapter for one in group}
        active = self._adapters.active(names.pop()) if len(names) == 1 else nullcontext()
        with self._autocast(), active, self._backend.generating(predictor.model):
            decode(
                predictor.model,
                rows,
                tokenizer=predictor.tokenizer,
                end_token_ids=group[0].loaded.ends,
                device=predictor.device,
                changed=changed,
                cancelled=lambda row: inbox.cancelled(by_row[row].job.id),
                image_inputs=getattr(predictor.decoder, "image_inputs", None),
            )

    def _continue(self, inbox: Inbox) -> list[Event]:
        """One step of the decode engine; what is new of its texts."""
        assert self._texts is not None
        for row, (one, _) in list(self._writing.items()):
            if inbox.cancelled(one.job.id):
                inbox.forget(one.job.id)
                self._texts.cancel(row)
                del self._writing[row]
        events: list[Event] = []
        with self._autocast():
            news = self._texts.step()
        for row in news:
            one, scores = self._writing.pop(row) if row.ended else self._writing[row]
            if row.ended and row.top_logprobs is not None and not self._scored_text(row):
                events.append(Failed(one.job.id, 503, _TOO_LONG))
                continue
            event = self._event(one, scores, row, inbox)
            if event is not None:
                events.append(event)
        return events

    def _scored_text(self, row: Row) -> bool:
        """Scores a finished text's tokens; False where the memory is too small, also without the others' cache."""
        assert self._texts is not None
        with self._autocast(), self._adapters.active(row.adapter):
            for free in (lambda: None, self._texts.restart):
                free()
                with suppress(torch.OutOfMemoryError):
                    row.score(self._predictor.decoder, self._predictor.tokenizer, self._predictor.device)
                    return True
        return False

    def _finish(self, adapter: str | None = None) -> None:
        """Finishes the texts of one adapter, or all, outside of `work`, which reports them at its next call."""
        while any(adapter in (None, row.adapter) for row in self._writing):
            self._late += self._continue(Inbox())

    def _event(self, one: Waiting, scores: LabelScores, row: Row, inbox: Inbox) -> Event | None:
        """What is told of a row: its text so far, its end, or nothing where it was cancelled."""
        job = one.job
        if row.finish == "cancelled":
            inbox.forget(job.id)
            return None
        if row.finish == NO_MEMORY:
            return Failed(job.id, 503, _TOO_LONG)
        if not row.ended:
            return Delta(job.id, row.text)
        answer = one.loaded.spoken.answer(job, *scores, row.text)
        count, prompt_tokens = len(row.token_ids), len(one.encoded.prompt)
        return Done(job.id, answer, prompt_tokens, count, row.finish or "stop", tuple(row.logprobs))

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        predictor = self._predictor
        if predictor.autocast is None:
            return nullcontext()
        return torch.autocast(predictor.device.type, predictor.autocast)

    def _entry(self, name: str, trained: Trained, adapter: str) -> Loaded:
        prompt = lookup(trained.prompt)
        # a calibration belongs to the model that it was fitted on, a scope to the one that was trained
        bare = name == BASE and bool(self._spec.adapters)
        calibration = None if bare else trained.calibration
        served = served_model(
            name,
            str(self._backend.base),
            trained.labels,
            calibration,
            wants_context=trained.with_contexts,
            remarks=self._backend.remarks() if bare else remarks_of(trained, self._backend),
            reads_images=self._predictor.images is not None,
        )
        predictor = self._predictor
        spoken = Spoken(
            served,
            prompt,
            self._encoder,
            trained.max_prompt_tokens,
            calibration,
            self._spec.note,
            predictor.images,
            None if bare else trained.scope,
        )
        mixes = self._adapters.mixes(adapter)
        return Loaded(spoken, adapter, tuple(end_token_ids(prompt, predictor.tokenizer)), mixes)
