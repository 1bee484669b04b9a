"""The weights that `validate`, `test` and `predict` evaluate, and the record of their training."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from torch import nn

from medqlora.artifacts import checkpoint as checkpoints
from medqlora.artifacts.checkpoint import CheckpointRecord
from medqlora.artifacts.checkpoint_files import read_checkpoint
from medqlora.artifacts.run_folder import ADAPTER_CONFIG, RunFolder
from medqlora.config.lora import LoRAOptions
from medqlora.data.test_sets import recorded_counts
from medqlora.errors import InputError
from medqlora.evaluation import TrainingTrace, overlap
from medqlora.inference import Calibration
from medqlora.inference.training_scope import TrainingScope
from medqlora.models.adapters import (
    RECORD_FILE,
    TEST_QUESTIONS,
    base_remark,
    check_adapter_base,
    find_adapter,
    read_adapter,
    read_merged,
    trainable_state,
)
from medqlora.models.backend import Backend
from medqlora.records import YES_NO_MAYBE, Record
from medqlora.utils.console import say
from medqlora.utils.digests import file_digest

#: in an adapter folder: ids and hashed word runs of the training set, to find test questions in it
TRACE_FILE = "training_trace.npz"
_IN_MEMORY = "in memory"


@dataclass(frozen=True)
class Learned:
    """The data that a fit in this process trained and validated on.

    Attributes:
        train: the training records.
        dev_ids: ids of the validation records.
        digest: of the training examples, as in a checkpoint's definition.
        test_questions: benchmark → the number of its test questions among them, by set.
        invented: name of the data set, where it is invented.
    """

    train: Sequence[Record]
    dev_ids: frozenset[str]
    digest: str
    test_questions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    invented: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The decisions that were learned for questions without options."""
        return labels_without_options(self.train)


def labels_without_options(records: Sequence[Record]) -> tuple[str, ...]:
    """The labels of the first record that has labels and no options of its own; () without one."""
    return next((record.labels for record in records if record.labels and not record.options), ())


class MergedAdapter(NamedTuple):
    """What a merged model's record says of its adapter.

    Attributes:
        adapter_sha256: digest of the adapter's weights; None where it is not recorded.
        quantized: how the merged weights were quantized: nf4, int8; None for not at all.
    """

    adapter_sha256: str | None
    quantized: str | None

    @property
    def bits(self) -> int:
        """Bits of a weight, which decide the tolerance."""
        return {"nf4": 4, "int8": 8}.get(str(self.quantized), 16)


@dataclass(frozen=True)
class EvaluatedWeights:
    """The weights that are evaluated.

    Attributes:
        kind: where they come from; "base" is the base model without an adapter.
        name: for reports: an adapter's folder, a checkpoint's file, "in memory", or "none" for the base model.
        folder: the folder with their record: the adapter's, or that of a base model with an adapter merged into it.
        file: the file that holds them; None for the base model and for weights in memory.
        learned: of weights that were trained in this process.
        saved: of a checkpoint, the record beside its weights.
        current: of weights in memory, the calibration of their own validation, as JSON.
    """

    kind: Literal["base", "adapter", "checkpoint", "memory"]
    name: str
    folder: Path | None = None
    file: Path | None = None
    learned: Learned | None = None
    saved: CheckpointRecord | None = None
    current: Mapping[str, object] | None = None

    @cached_property
    def record(self) -> Mapping[str, object]:
        """The record in the folder; empty without one.

        Raises:
            InputError: the record is damaged.
        """
        if self.kind == "base":
            return {} if self.folder is None else read_merged(str(self.folder))
        if self.folder is None or not (self.folder / ADAPTER_CONFIG).is_file():
            return {}
        return read_adapter(str(self.folder))

    @property
    def train_ids(self) -> frozenset[str]:
        """Ids of the training records, as far as they are known."""
        if self.learned is not None:
            return frozenset(record.id for record in self.learned.train)
        return frozenset(self._texts("train_ids") or ())

    @property
    def dev_ids(self) -> frozenset[str] | None:
        """Ids of the validation records; None where they are not known."""
        if self.learned is not None:
            return self.learned.dev_ids
        ids = self._texts("dev_ids")
        return None if ids is None else frozenset(ids)

    @property
    def labels(self) -> tuple[str, ...]:
        """The decisions that were learned for questions without options."""
        if self.learned is not None:
            return self.learned.labels
        labels = self._texts("labels")
        return YES_NO_MAYBE if labels is None else labels

    def _texts(self, key: str) -> tuple[str, ...] | None:
        value = self.record.get(key)
        return tuple(map(str, value)) if isinstance(value, (list, tuple)) else None

    @property
    def calibration(self) -> Calibration | None:
        """The calibration from the validation of these weights.

        Raises:
            InputError: the record is damaged.
        """
        value: object
        if self.saved is not None:  # of this checkpoint, which may be of another step than the adapter
            value, where = self.saved.get("validation", {}).get("calibration"), str(self.file)
        elif self.learned is not None:
            value, where = self.current or None, self.name
        else:
            value, where = self.record.get("calibration"), f"{self.folder}/{RECORD_FILE}"
        return None if value is None else Calibration.from_json(value, where)

    @cached_property
    def scope(self) -> TrainingScope:
        """What they were trained on, to notice questions outside of it.

        Raises:
            InputError: the file with it is damaged.
        """
        if self.learned is not None:
            return TrainingScope.of(self.learned.train, self.learned.invented)
        return TrainingScope() if self.folder is None else TrainingScope.load(self.folder, self.record)

    @property
    def test_questions(self) -> Mapping[str, Mapping[str, int]]:
        """Benchmark → the number of its test questions in training and validation, from the record."""
        if self.learned is not None:
            return self.learned.test_questions
        return recorded_counts(self.record.get(TEST_QUESTIONS))

    @property
    def merged(self) -> "MergedAdapter":
        """The adapter that was merged into a base model; of other weights nothing is known."""
        found = self.record.get("merged") if self.kind == "base" else None
        values = found if isinstance(found, Mapping) else {}
        digest, quantized = values.get("adapter_sha256"), values.get("quantized")
        return MergedAdapter(
            digest if isinstance(digest, str) else None, quantized if isinstance(quantized, str) else None
        )

    def trace(self) -> TrainingTrace | None:
        """The training set in a form to compare test questions with; None where it is not known.

        Raises:
            InputError: the file with it is damaged.
        """
        if self.learned is not None:
            return TrainingTrace.of(self.learned.train)
        if self.folder is None or not (self.folder / TRACE_FILE).is_file():
            return None
        return TrainingTrace.load(self.folder / TRACE_FILE)

    def trained_on(self, records: Sequence[Record]) -> frozenset[str]:
        """Ids of the records that they were trained on: by id, or by text under another id.

        Texts are compared as `test` compares them (`evaluation.overlap`), where the training trace is known.

        Raises:
            InputError: the record or the trace is damaged.
        """
        trace, known = self.trace(), self.train_ids
        again = () if trace is None else overlap(trace, records).contaminated
        return frozenset(record.id for record in records if record.id in known).union(again)

    def sha256(self, model: nn.Module | None) -> str:
        """The digest of the weights in hexadecimal, "none" for the base model.

        Args:
            model: the model with the weights; needed for weights in memory alone.

        Raises:
            ValueError: the weights are in memory, and no model is given.
        """
        if self.file is not None:
            return file_digest(self.file)["sha256"]
        if self.kind == "base":
            return "none"
        if model is None:
            raise ValueError("the weights are in memory: a model is needed")
        digest = hashlib.sha256()
        for name, value in sorted(trainable_state(model).items()):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class WeightsInMemory:
    """What is known of a loaded model's weights.

    Attributes:
        evaluated: the weights that the last evaluation was of; None after a fit.
        calibration: of their own validation, as JSON; None without one.
    """

    evaluated: EvaluatedWeights | None = None
    calibration: Mapping[str, object] | None = None


def evaluated_weights(
    backend: Backend,
    lora: LoRAOptions,
    *,
    restored: str | None,
    checkpoint: str | None,
    adapter: str | None,
    learned: Learned | None,
    in_memory: WeightsInMemory | None,
) -> EvaluatedWeights:
    """The weights that an evaluation is of: the first of these that is there.

    Args:
        backend, lora: the run's own.
        restored: the checkpoint that the Trainer restores now.
        in_memory: the loaded model's weights; None before a model is loaded.
        learned: what a fit in this process trained on; None without one.
        checkpoint: the checkpoint that was named earlier.
        adapter: an adapter's folder or its name on the Hub; "none" for the base model.

    Raises:
        InputError: nothing says which weights, an adapter has another base model, or a file is damaged.
    """
    if restored is not None:
        return _of_checkpoint(Path(restored), backend, lora, learned)
    if in_memory is not None:
        if in_memory.evaluated is not None and in_memory.evaluated.kind != "memory":
            return in_memory.evaluated
        if learned is not None:
            return EvaluatedWeights(
                "memory", _IN_MEMORY, learned=learned, current=in_memory.calibration or {}
            )
    if checkpoint is not None:
        return _of_checkpoint(Path(checkpoint), backend, lora, learned)
    if adapter is None:
        raise InputError(
            "--model.adapter: nothing says which weights to evaluate: pass an adapter's folder, 'none' for the bare "
            "base, a checkpoint as ckpt_path, or fit first"
        )
    return _of_base(backend.base) if adapter == "none" else _of_adapter(adapter, backend)


def base_test_questions(base: str) -> Mapping[str, Mapping[str, int]]:
    """As `EvaluatedWeights.test_questions`, of the adapter that was merged into a base model; {} without one.

    Raises:
        InputError: the record is damaged.
    """
    return _of_base(base).test_questions


def _of_base(base: str) -> EvaluatedWeights:
    """A merged model was trained too: its record says on what."""
    folder = Path(base).expanduser() if read_merged(base) else None
    return EvaluatedWeights("base", "none", folder=folder)


def _of_checkpoint(
    path: Path, backend: Backend, lora: LoRAOptions, learned: Learned | None
) -> EvaluatedWeights:
    """The record of their training lies with the adapter that the checkpoint's run exported."""
    saved = read_checkpoint(path)
    checkpoints.check(saved, backend, lora)
    run, record = RunFolder.of_checkpoint(path), saved["medqlora"]
    if learned is not None and record.get("definition", {}).get(checkpoints.TRAINED_ON) != learned.digest:
        learned = None
    folder = None if run is None else run.adapter
    return EvaluatedWeights("checkpoint", str(path), folder=folder, file=path, learned=learned, saved=record)


def _of_adapter(adapter: str, backend: Backend) -> EvaluatedWeights:
    name, remark = find_adapter(adapter)
    check_adapter_base(name, backend.base, backend.identity())
    for line in filter(None, (remark, base_remark(name, backend.base))):
        say(line)
    backend.check_adapter(name)
    folder = Path(name).expanduser()
    return EvaluatedWeights("adapter", name, folder=folder, file=folder / "adapter_model.safetensors")


def trained_on(folder: str, records: Sequence[Record]) -> frozenset[str]:
    """As `EvaluatedWeights.trained_on`, of an adapter's folder.

    Raises:
        InputError: the adapter's record or its trace is damaged.
    """
    return EvaluatedWeights("adapter", folder, folder=Path(folder).expanduser()).trained_on(records)
