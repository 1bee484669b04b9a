"""The weights that `validate`, `test` and `predict` evaluate, and the record that their training left."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from medqlora.artifacts import checkpoint as checkpoints
from medqlora.artifacts.checkpoint_files import read_checkpoint
from medqlora.artifacts.validated import validated
from medqlora.data.test_sets import recorded_counts
from medqlora.errors import InputError
from medqlora.evaluation import TrainingTrace
from medqlora.inference import Calibration
from medqlora.models.adapters import (
    RECORD_FILE,
    TEST_QUESTIONS,
    base_remark,
    check_adapter_base,
    find_adapter,
    read_adapter,
    trainable_state,
)
from medqlora.records import YES_NO_MAYBE, Record
from medqlora.utils.console import say

#: ids and hashed runs of words of the training set, so that a test can tell what it has seen
TRACE_FILE = "training_trace.npz"


_IN_MEMORY = "in memory"


@dataclass(frozen=True)
class Learned:
    """What a fit in this process trained and validated on.

    Attributes:
        train: the training records.
        dev_ids: ids of the validation records.
        digest: of the training examples, as a checkpoint's definition has it.
        test_questions: benchmark → how many of its test questions were trained and validated on.
    """

    train: Sequence[Record]
    dev_ids: frozenset[str]
    digest: str
    test_questions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluatedWeights:
    """Which weights are evaluated.

    Attributes:
        name: as reports name them: an adapter's folder, a checkpoint's file, "in memory", or "none" for the bare
            base.
        folder: the adapter folder with their record; None without one.
        file: the file that holds them; None for the bare base and for weights in memory.
        learned: of weights that were trained in this process.
        saved: of a checkpoint, what it says beside its weights.
        current: of weights in memory, the calibration of their own validation, as JSON.
    """

    name: str
    folder: Path | None = None
    file: Path | None = None
    learned: Learned | None = None
    saved: Mapping[str, Any] | None = None
    current: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """What the adapter's folder says of it; empty without one.

        Raises:
            InputError: the record is damaged.
        """
        if self.folder is None or not (self.folder / "adapter_config.json").is_file():
            return {}
        return read_adapter(str(self.folder))

    @property
    def train_ids(self) -> frozenset[str]:
        """Ids of the training records, as far as they are known."""
        if self.learned is not None:
            return frozenset(one.id for one in self.learned.train)
        return frozenset(self.record.get("train_ids", ()))

    @property
    def dev_ids(self) -> frozenset[str] | None:
        """Ids of the validation records; None where they aren't known."""
        if self.learned is not None:
            return self.learned.dev_ids
        found = self.record.get("dev_ids")
        return None if found is None else frozenset(found)

    @property
    def labels(self) -> tuple[str, ...]:
        """The decisions that were learned for questions without options."""
        if self.learned is not None:
            return next((one.labels for one in self.learned.train if one.labels and not one.options), ())
        return tuple(self.record.get("labels", YES_NO_MAYBE))

    @property
    def calibration(self) -> Calibration | None:
        """What these weights were found to be worth at their own validation.

        Raises:
            InputError: the record is damaged.
        """
        if self.saved is not None:  # of this checkpoint, which may be of another step than the adapter
            found, where = self.saved.get("validation", {}).get("calibration"), str(self.file)
        elif self.learned is not None:
            found, where = self.current or None, self.name
        else:
            found, where = self.record.get("calibration"), f"{self.folder}/{RECORD_FILE}"
        return None if found is None else Calibration.from_json(found, where)

    @property
    def test_questions(self) -> Mapping[str, Mapping[str, int]]:
        """Benchmark → how many of its test questions were trained and validated on, as the record says."""
        if self.learned is not None:
            return self.learned.test_questions
        return recorded_counts(self.record.get(TEST_QUESTIONS))

    def trace(self) -> TrainingTrace | None:
        """What they were trained on, to be compared with test questions; None where that isn't known.

        Raises:
            InputError: the file with it is damaged.
        """
        if self.learned is not None:
            return TrainingTrace.of(self.learned.train)
        if self.folder is None or not (self.folder / TRACE_FILE).is_file():
            return None
        return TrainingTrace.load(self.folder / TRACE_FILE)

    def sha256(self, model: Any) -> str:
        """The digest of the weights, "none" for the bare base.

        Args:
            model: what holds weights in memory; None before it is loaded.
        """
        if self.file is not None:
            return hashlib.sha256(self.file.read_bytes()).hexdigest()
        if self.learned is None:
            return "none"
        digest = hashlib.sha256()
        for name, value in sorted(trainable_state(model).items()):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()


def evaluated_weights(module: Any, ckpt_path: str | None) -> EvaluatedWeights:
    """The weights that an evaluation with `module` is of.

    A checkpoint comes first, then what the model in memory was loaded or trained with, then `module.adapter`.

    Args:
        module: the QLoRAModule; told of a checkpoint that it has to load.
        ckpt_path: the checkpoint that the Trainer restores; None without one.

    Raises:
        InputError: nothing says which weights, or an adapter is of another base, or a file is damaged.
    """
    if ckpt_path is not None:
        module.checkpoint = ckpt_path
        return _of_checkpoint(module, Path(ckpt_path))
    loaded: EvaluatedWeights | None = module.evaluated
    if module.model is not None and loaded is not None and loaded.name != _IN_MEMORY:
        return loaded
    if module.model is not None and module.learned is not None:
        predictions = module.validated[1]
        current = validated(predictions, {}, module.target_risk)["calibration"] if predictions else None
        return EvaluatedWeights(_IN_MEMORY, learned=module.learned, current=current or {})
    if module.checkpoint is not None:
        return _of_checkpoint(module, Path(module.checkpoint))
    if module.adapter is None:
        raise InputError(
            "--model.adapter: nothing says which weights to evaluate: pass an adapter's folder, 'none' for the bare "
            "base, a checkpoint as ckpt_path, or fit first"
        )
    if module.adapter == "none":
        return EvaluatedWeights("none")
    module.adapter, remark = find_adapter(module.adapter)
    check_adapter_base(module.adapter, module.backend.base, module.backend.identity())
    for line in filter(None, (remark, base_remark(module.adapter, module.backend.base))):
        say(line)
    module.backend.check_adapter(module.adapter)
    folder = Path(module.adapter).expanduser()
    return EvaluatedWeights(module.adapter, folder=folder, file=folder / "adapter_model.safetensors")


def _of_checkpoint(module: Any, path: Path) -> EvaluatedWeights:
    """Of a checkpoint's file; what it was trained on lies with the adapter that its run exported."""
    saved = read_checkpoint(path)
    checkpoints.check(saved, module.backend, module.lora)
    folder = path.parent.parent / "adapter" if path.parent.name == "checkpoints" else None
    part = saved[checkpoints.KEY]
    learned: Learned | None = module.learned
    if learned is not None and part.get("definition", {}).get(checkpoints.TRAINED_ON) != learned.digest:
        learned = None
    return EvaluatedWeights(str(path), folder=folder, file=path, learned=learned, saved=part)
