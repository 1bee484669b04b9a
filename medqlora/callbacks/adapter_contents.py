"""From a checkpoint, the run's options and its data to the contents of the adapter folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from typing import NamedTuple, SupportsFloat

from lightning.pytorch import Trainer

from medqlora.artifacts.adapter_folder import AdapterContents
from medqlora.artifacts.adapter_record import AdapterRecord, TrainingFigures
from medqlora.artifacts.checkpoint_files import ExportRecord, SavedCheckpoint
from medqlora.artifacts.evaluated_weights import base_test_questions, labels_without_options
from medqlora.data.test_sets import added, summary
from medqlora.datamodule import PubMedQADataModule
from medqlora.module import QLoRAModule
from medqlora.records import Record
from medqlora.utils.files import now
from medqlora.utils.run_length import total_steps
from medqlora.utils.versions import versions


class ChosenBy(NamedTuple):
    """The score that chose a checkpoint, and its value; None without validation."""

    score: str | None = None
    value: float | None = None

    @classmethod
    def of_checkpoint(cls, saved: SavedCheckpoint) -> "ChosenBy":
        """As AdapterCheckpoint saved it in the checkpoint."""
        state = next(iter(saver_states(saved).values()), {})
        score, value = state.get("monitor"), state.get("best_model_score")
        return cls(
            None if score is None else str(score), float(value) if isinstance(value, SupportsFloat) else None
        )


def saver_states(saved: SavedCheckpoint) -> dict[str, dict[str, object]]:
    """The states of AdapterCheckpoint among those of the checkpoint's callbacks, by Lightning's key."""
    states = saved.get("callbacks") or {}
    return {key: state for key, state in states.items() if "AdapterCheckpoint" in key}


def export_record(module: QLoRAModule) -> ExportRecord:
    """The part of a checkpoint from which an adapter folder is written without the base model."""
    config = module.model.peft_config["default"].to_dict()
    plain = {str(key): _plain(value) for key, value in config.items()}
    return {"peft_config": plain, "parameters": list(module.parameter_counts)}


def adapter_contents(
    trainer: Trainer,
    module: QLoRAModule,
    data: PubMedQADataModule,
    saved: SavedCheckpoint,
    chosen_by: ChosenBy,
) -> AdapterContents:
    """Collects the contents of an adapter folder.

    Args:
        trainer: with the run's options; it need not run.
        module: its options and what it learned; the model is read where the checkpoint is older than
            `export_record`.
        data: read.
        saved: the checkpoint with the weights.
        chosen_by: the score that chose it.
    """
    backend = module.backend
    tokenizer = backend.tokenizer()
    export = saved.get("export") or export_record(module)
    validation = saved["medqlora"].get("validation", {})
    train = module.learned.train if module.learned is not None else _records(data, "train")
    dev = _records(data, "dev")
    trainable, total = export["parameters"]
    record: AdapterRecord = {
        "base": backend.base,
        "base_identity": backend.identity(),
        "backend": type(backend).__name__,
        "backend_options": backend.options(),
        "lora": asdict(module.lora),
        "prompt": data.prompt.describe(tokenizer) if data.prompt is not None else {},
        "data": {
            "name": data.source.name,
            "hub": data.source.hub,
            **data.source.fingerprint(),
            "train_questions": len(train),
            "with_contexts": any(record.contexts for record in train),
            "max_prompt_tokens": data.max_prompt_tokens,
            "validation_sample": data.samples["dev"]._asdict() if "dev" in data.samples else None,
            **({} if data.retrieval is None else {"retrieval": asdict(data.retrieval_options)}),
            **({"topics": list(topics)} if (topics := data.options.selected_topics) else {}),
        },
        "train_ids": [record.id for record in train],
        "dev_ids": [record.id for record in dev],
        "test_questions": _test_questions(module, data, train, dev),
        "labels": list(labels_without_options(_records(data, "train"))),
        "training": _training(trainer, module, data, saved["global_step"]),
        "scores": validation.get("scores", {}),
        "calibration": validation.get("calibration"),
        "chosen_by": chosen_by._asdict(),
        "parameters": {"trainable": trainable, "total": total},
        "versions": versions(),
        "created": now(),
    }
    weights = {name.removeprefix("model."): value for name, value in saved["state_dict"].items()}
    invented = data.source.name if data.source.invented else None
    return AdapterContents(weights, export["peft_config"], tokenizer, train, record, invented)


def _records(data: PubMedQADataModule, split: str) -> list[Record]:
    examples = data.train if split == "train" else data.dev
    return [data.records[example.id] for example in examples]


def _test_questions(
    module: QLoRAModule, data: PubMedQADataModule, train: Sequence[Record], dev: Sequence[Record]
) -> Mapping[str, Mapping[str, int]]:
    """Benchmarks' test questions among the records; only an option lets them be trained on."""
    if module.learned is not None:
        return module.learned.test_questions
    own = summary(train, dev) if data.allow_test_questions else {}
    return added(base_test_questions(module.backend.base), own)


def _training(trainer: Trainer, module: QLoRAModule, data: PubMedQADataModule, step: int) -> TrainingFigures:
    return {
        "step": step,
        "of_steps": total_steps(trainer, data.epoch_steps),
        "epochs": trainer.max_epochs,
        "batch_size": data.batch_size,
        "learning_rate": module.learning_rate,
        "optimizer": module.optimizer if isinstance(module.optimizer, str) else "class_path",
        "precision": str(trainer.precision),
        "seed": data.seed,
    }


def _plain(value: object) -> object:
    """PEFT's configuration without sets and enumerations, which a checkpoint without pickle can't hold."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value.value) if isinstance(value, Enum) else value
