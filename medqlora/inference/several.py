"""Predictions of several adapters on one loaded base model.

The fused engine runs each question with the adapter that its request names. Where it doesn't run the model or one of
the adapters, PEFT switches them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from medqlora.config.model import Decoding, EvaluationOptions
from medqlora.errors import InputError
from medqlora.inference.decoding import DecodeEngine
from medqlora.inference.decoding.choice import engine_by_name
from medqlora.inference.evaluator import Watch
from medqlora.inference.loading import Trained, build_backend, pick_device, read_trained
from medqlora.inference.predictor import Predictor
from medqlora.models.adapters.several import FIRST, NO_ADAPTER, Adapters
from medqlora.models.backend import Backend
from medqlora.records import Encoded, Prediction, Record


@dataclass(frozen=True)
class PassLimits:
    """What goes through the fused engine at once.

    Attributes:
        micro_batch_tokens: tokens; None for the limit of a prompt.
        rows, memory: as of `Predictor`.
    """

    micro_batch_tokens: int | None = None
    rows: int | None = 16
    memory: int | None = None


class SeveralAdapters:
    """Several adapters on one base model.

    Args:
        predictor: of the first adapter; its engine from `engine_by_name`.
        backend: that loaded the base model.
        first: the record of the first adapter.
        limits: of the fused engine's passes.

    Attributes:
        predictor: the first adapter's, by the model's own forward; `asked` gives those to ask.
        backend: as given.
        trained: adapter folder → the record of its training.
    """

    def __init__(
        self, predictor: Predictor, backend: Backend, first: Trained, limits: PassLimits = PassLimits()
    ) -> None:
        folder = str(first.adapter)
        self._engine = predictor.engine
        self._limits = limits
        self.predictor = replace(predictor, engine=None)
        self.backend = backend
        self.trained: dict[str, Trained] = {folder: first}
        self._adapters = Adapters(predictor.model, backend)
        self._names = {folder: FIRST}

    @classmethod
    def load(
        cls,
        folders: Sequence[str],
        *,
        base: str | None = None,
        device: str = "auto",
        generate: bool = False,
        max_new_tokens: int = 96,
        option: str = "--model.adapter",
        decoding: Decoding = "auto",
        limits: PassLimits = PassLimits(),
    ) -> "SeveralAdapters":
        """Loads the base model of the first adapter, and all adapters on it.

        Args:
            folders: adapter folders, at least one.
            base: the base model's name or folder, where it differs from the first adapter's record.
            device: as in `Predictor.load`.
            generate, max_new_tokens: whether texts are generated, and their limit.
            option: what named the adapters, for messages.
            decoding: "transformers" scores by the model's own forward too.
            limits: of the fused engine's passes.

        Raises:
            InputError: one can't be loaded, or belongs to another base model.
        """
        target = pick_device(device)
        first = read_trained(folders[0], option)
        if first.adapter is None:
            raise InputError(f"{option} {folders[0]}: it is a base model: give an adapter's folder")
        predictor = Predictor.load(
            folders[0],
            base=base,
            device=target,
            generate=generate,
            max_new_tokens=max_new_tokens,
            option=option,
            make_engine=partial(engine_by_name, decoding=decoding),
        )
        backend = build_backend(first, base=base, backend=None, device=target)
        several = cls(predictor, backend, first, limits)
        for folder in folders[1:]:
            several.add(folder, option)
        return several

    def add(self, folder: str, option: str = "--model.adapter") -> None:
        """Loads a further adapter; one that is loaded already is left.

        Raises:
            InputError: it can't be loaded, or belongs to another base model.
        """
        trained = read_trained(folder, option)
        if trained.adapter is None:
            raise InputError(f"{option} {folder}: it is a base model: give an adapter's folder")
        if trained.adapter in self._names:
            return
        name = self._adapters.add(trained.adapter)
        model = self._adapters.model
        # the adapter may have wrapped layers that the decoder holds, as the head
        self.predictor = replace(self.predictor, model=model, decoder=self.backend.decoder(model))
        self._names[trained.adapter] = name
        self.trained[trained.adapter] = trained

    @property
    def engine(self) -> DecodeEngine | None:
        """The fused engine, where it runs the model and all adapters; once it doesn't, its memory is free."""
        if not self._adapters.all_plain:
            self._engine = None
        return self._engine

    @contextmanager
    def asked(self, folder: str | None, name: str | None = None) -> Iterator[Predictor]:
        """A predictor that asks as an adapter's record says: prompt, limits, labels, calibration.

        PEFT has the adapter switched on meanwhile, for what the engine doesn't run.

        Args:
            folder: a loaded adapter's; None for the base model, asked as the first adapter is.
            name: PEFT's name of another adapter of the model, which answers in its place.
        """
        own = NO_ADAPTER if folder is None else self._names[folder]
        with self._adapters.active(name or own):
            yield self._of(folder, name or (None if folder is None else own))

    def _of(self, folder: str | None, adapter: str | None) -> Predictor:
        """`asked`, without switching."""
        from medqlora.data import lookup

        predictor = self.predictor
        if self.engine is not None:
            limits = self._limits
            predictor = replace(
                predictor,
                engine=self.engine,
                adapter=adapter,
                micro_batch_tokens=limits.micro_batch_tokens,
                rows=limits.rows,
                memory=limits.memory,
            )
        if folder is None:
            return replace(predictor, calibration=None)
        trained = self.trained[folder]
        prompt = lookup(trained.prompt, rationale_first=True)
        return replace(
            predictor,
            prompt=prompt,
            options=self._options(rationale_first=bool(prompt.lead)),
            max_prompt_tokens=trained.max_prompt_tokens,
            labels=trained.labels,
            calibration=trained.calibration,
            scope=trained.scope,
            wants_context=trained.with_contexts,
        )

    def _options(self, *, rationale_first: bool) -> EvaluationOptions:
        """Those of `predictor`; a decision after a rationale can't be scored before the rationale is generated."""
        options = self.predictor.options
        return replace(options, generate=True) if rationale_first else options

    def names(self, folders: Sequence[str]) -> list[str]:
        """PEFT's names of loaded adapters."""
        return [self._names[folder] for folder in folders]

    def predict(
        self,
        folder: str | None,
        records: Sequence[Record],
        examples: Mapping[str, Encoded] | None = None,
        watch: Watch = lambda count: None,
    ) -> list[Prediction]:
        """The predictions of one adapter, in the order of `records`; see `Predictor.predict`.

        Args:
            folder: a loaded adapter's; None for the base model.
            records: the questions.
            examples: id → the encoded question; without them, questions are encoded as the adapter's record says.
            watch: as in `Predictor.predict`.
        """
        with self.asked(folder) as predictor:
            if examples is not None and any(examples[record.id].lead for record in records):
                predictor = replace(predictor, options=self._options(rationale_first=True))
            return predictor.predict(records, examples, watch)


def mean_log_probabilities(members: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    """An ensemble's predictions: each label's log-probability averaged over the members.

    The mean of log-probabilities is the geometric mean of the probabilities (a product of experts, Hinton 2002,
    https://doi.org/10.1162/089976602760128018), normalized over the labels by `Prediction.probabilities`.

    Args:
        members: the predictions of each member, of the same questions in the same order.

    Raises:
        ValueError: there is no member, or the questions or labels differ.
    """
    if not members:
        raise ValueError("an ensemble needs a member")
    averaged = []
    for of_question in zip(*members, strict=True):
        first = of_question[0]
        if any((one.id, one.labels) != (first.id, first.labels) or not one.logprobs for one in of_question):
            raise ValueError(f"{first.id}: the members have other questions or labels, or none were scored")
        means = tuple(
            # exact, so the order of the members does not matter
            math.fsum(values) / len(values)
            for values in zip(*(one.logprobs for one in of_question), strict=True)
        )
        averaged.append(replace(first, logprobs=means, text=None, parsed=None))
    return averaged
