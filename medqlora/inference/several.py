"""Predictions of several adapters on one loaded base model: adapters are switched, the base is not loaded again."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from medqlora.config.model import EvaluationOptions
from medqlora.errors import InputError
from medqlora.inference.loading import Trained, build_backend, pick_device, read_trained
from medqlora.inference.predictor import Predictor
from medqlora.models.adapters.several import FIRST, NO_ADAPTER, Adapters
from medqlora.models.backend import Backend
from medqlora.records import Encoded, Prediction, Record


class SeveralAdapters:
    """Several adapters on one base model.

    Attributes:
        predictor: of the first adapter; its prompt and limits are those of `predict` without examples.
        backend: that loaded the base model.
        trained: adapter folder → the record of its training.
    """

    def __init__(self, predictor: Predictor, backend: Backend, first: Trained) -> None:
        folder = str(first.adapter)
        # the fused engine scores with the adapter that it was made with
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
    ) -> "SeveralAdapters":
        """Loads the base model of the first adapter, and all adapters on it.

        Args:
            folders: adapter folders, at least one.
            base: the base model's name or folder, where it differs from the first adapter's record.
            device: as in `Predictor.load`.
            generate, max_new_tokens: whether texts are generated, and their limit.
            option: what named the adapters, for messages.

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
        )
        several = cls(predictor, build_backend(first, base=base, backend=None, device=target), first)
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
        self.predictor.model = self._adapters.model
        self._names[trained.adapter] = name
        self.trained[trained.adapter] = trained

    def of(self, folder: str | None) -> Predictor:
        """A predictor that answers as this adapter's record says: prompt, limits, labels, calibration.

        It answers with the adapter that is switched on; see `active`.

        Args:
            folder: a loaded adapter's; None for the base model, asked as the first adapter is.
        """
        from medqlora.data import lookup

        if folder is None:
            return replace(self.predictor, calibration=None)
        trained = self.trained[folder]
        prompt = lookup(trained.prompt, rationale_first=True)
        return replace(
            self.predictor,
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

    def active(self, folder: str | None) -> AbstractContextManager[None]:
        """A block in which the adapter is switched on; None switches all off."""
        return self._adapters.active(NO_ADAPTER if folder is None else self._names[folder])

    def names(self, folders: Sequence[str]) -> list[str]:
        """PEFT's names of loaded adapters."""
        return [self._names[folder] for folder in folders]

    def switched(self, name: str) -> AbstractContextManager[None]:
        """As `active`, by PEFT's name of an adapter that the model has."""
        return self._adapters.active(name)

    def predict(
        self, folder: str | None, records: Sequence[Record], examples: Mapping[str, Encoded] | None = None
    ) -> list[Prediction]:
        """The predictions of one adapter, in the order of `records`; see `Predictor.predict`.

        Args:
            folder: a loaded adapter's; None for the base model.
            records: the questions.
            examples: id → the encoded question; without them, questions are encoded as the adapter's record says.
        """
        predictor = self.of(folder)
        if examples is not None and any(examples[record.id].lead for record in records):
            predictor = replace(predictor, options=self._options(rationale_first=True))
        with self.active(folder):
            return predictor.predict(records, examples)


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
