"""What each stage of the Trainer begins with: options are checked, data read and checked, before a model is loaded.

The datamodule's `setup` calls it, so the command line and a user's own Trainer take the same path.
"""

from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from medqlora.artifacts import checkpoint as checkpoints
from medqlora.artifacts.checkpoint_files import read_checkpoint
from medqlora.artifacts.evaluated_weights import (
    EvaluatedWeights,
    Learned,
    WeightsInMemory,
    evaluated_weights,
)
from medqlora.artifacts.run_folder import RunFolder
from medqlora.artifacts.validated import validated
from medqlora.compat.lightning import checkpoint_to_restore
from medqlora.data.bad_records import write_bad_records
from medqlora.data.test_sets import OPTION, summary, told
from medqlora.distributed.processes import ShardedBaseStrategy
from medqlora.errors import InputError
from medqlora.training.checks.examples import check_examples
from medqlora.training.checks.options import check_positions, check_shared, check_written
from medqlora.training.checks.trainer import check_monitors, check_val_interval, use_no_inference_mode
from medqlora.training.tested_sets import ScoreOptions
from medqlora.utils.console import say

Stage = Literal["fit", "validate", "test", "predict"]
#: the loggers whose folder Lightning takes for the run's; of others it would be where they all write
OWN_FOLDER = (TensorBoardLogger, CSVLogger)
#: what each stage needs of the source
_SPLITS: dict[Stage, tuple[str, ...]] = {
    "fit": ("train", "dev"),
    "validate": ("dev",),
    "test": ("dev", "test"),
    "predict": ("test",),
}


@runtime_checkable
class ChecksStart(Protocol):
    """A callback that has something to check, or to take from the data, before a model is loaded."""

    def check_start(self, trainer: Trainer, module: Any, data: Any, stage: Stage) -> None:
        """Called once a stage, after the data are read. Raises InputError."""


def start_stage(trainer: Trainer, module: Any, data: Any, stage: Stage) -> None:
    """Checks the options, reads what the stage needs into `data`, and checks that.

    Args:
        trainer: that runs the stage.
        module: the QLoRAModule.
        data: the PubMedQADataModule.
        stage: Lightning's.

    Raises:
        InputError: an option, a record or the choice of weights is wrong.
    """
    data.check()
    if isinstance(trainer.strategy, ShardedBaseStrategy):
        check_shared(module, data, module.backend.config() if stage == "fit" else None)
    module.check()
    if stage == "fit" and module.adapter not in (None, "none"):
        raise InputError(
            f"--model.adapter {module.adapter}: `fit` trains new adapters and would not use its weights: leave it out; "
            "--ckpt_path CHECKPOINT goes on with a run"
        )
    if stage == "predict" and trainer.world_size > 1:
        raise InputError("--trainer.devices: `predict` writes one file, in order: use 1")
    if module.model is not None and module.shared is not None:
        raise InputError(
            "--trainer.strategy fsdp: the processes have given the base's layers back after the last stage: make a "
            "new QLoRAModule(adapter=…) from the exported adapter"
        )
    use_no_inference_mode(trainer)
    module.test_options = ScoreOptions()
    data.before_reading()
    _read(trainer, module, data, stage)
    check_positions(module.backend, data)
    if stage == "fit":
        check_monitors(trainer, module, data)
        if data.dev:
            check_val_interval(trainer, data.steps_per_epoch)
    for callback in cast(Any, trainer).callbacks:
        if isinstance(callback, ChecksStart):
            callback.check_start(trainer, module, data, stage)
    if stage == "fit":
        for line in check_examples(data, module.backend.tokenizer()):
            say(line)
    _list_bad_records(trainer, data)
    if stage == "fit":
        _start_fit(trainer, module, data)


def _read(trainer: Trainer, module: Any, data: Any, stage: Stage) -> None:
    """Reads the splits of the stage, and for an evaluation finds out which weights it is of."""
    if stage == "fit":
        data.read(module.backend.tokenizer(), _SPLITS["fit"], report=say)
        return
    weights = _evaluated_weights(module)
    if weights.test_questions:
        say(
            f"WARNING: {told(weights.test_questions)} ({OPTION} true at its training): a score on that benchmark "
            "means nothing"
        )
    tokenizer = module.backend.tokenizer()
    if stage == "test":
        _read_test(module, data, tokenizer, weights)
    elif stage == "predict" and data.questions is not None:
        data.read_questions(tokenizer, weights.labels, report=say)
    else:
        data.read(tokenizer, _SPLITS[stage], report=say)
        if stage == "validate" and not data.dev:
            raise InputError(
                f"--data.source: {data.source.name} has no dev records to validate on: check its options"
            )


def _evaluated_weights(module: Any) -> EvaluatedWeights:
    """The weights of this evaluation; the module gets to know them."""
    restored, memory = checkpoint_to_restore(), None
    if module.model is not None:
        predictions = module.validated[1]
        current = validated(predictions, {}, module.target_risk) if predictions else {}
        memory = WeightsInMemory(module.evaluated, current.get("calibration"))
    weights = evaluated_weights(
        module.backend,
        module.lora,
        restored=restored,
        in_memory=memory,
        learned=module.learned,
        checkpoint=module.checkpoint,
        adapter=module.adapter,
    )
    module.evaluated = weights
    if restored is not None:
        module.checkpoint = restored
    if weights.kind == "adapter":
        module.adapter = weights.name
    return weights


def _read_test(module: Any, data: Any, tokenizer: Any, weights: EvaluatedWeights) -> None:
    data.read(tokenizer, _SPLITS["test"], report=say, trained=weights.train_ids, held_out=weights.dev_ids)
    if not data.dev:
        say("No question was held out from this adapter's training: its confidence is not calibrated")
    data.read_benchmarks(report=say)
    check_written(data.sets, module.generate)


def _start_fit(trainer: Trainer, module: Any, data: Any) -> None:
    """Checks that the module can be trained, and compares the run with the checkpoint that it goes on from."""
    if module.model is not None and not any(one.requires_grad for one in module.model.parameters()):
        raise InputError(
            "QLoRAModule: it holds weights that were loaded for an evaluation: make a new QLoRAModule to fit"
        )
    now = checkpoints.checkpoint_definition(
        base_identity=module.backend.identity(),
        source=data.source,
        data=data.options,
        step=module.options,
        optimizer=module.optimizer,
        lora=module.lora,
        digests=data.example_digests(),
        precision=str(trainer.precision),
    )
    resumed = checkpoint_to_restore()
    if resumed is not None:
        saved = read_checkpoint(Path(resumed))
        checkpoints.check(saved, module.backend, module.lora, anyway=True)
        different = checkpoints.check_definition(checkpoints.record_of(saved), now, anyway=True)
        if different:
            say(f"Going on with other values: {'; '.join(different)}")
    module.checkpoint = module.evaluated = None
    train, dev = ([data.records[one.id] for one in part] for part in (data.train, data.dev))
    before: Learned | None = module.learned if module.model is not None else None
    allowed = data.allow_test_questions
    if before is not None:  # the weights in memory are trained further: they have seen both sets
        again = {(one.id, one.question) for one in train}
        train += [one for one in before.train if (one.id, one.question) not in again]
        allowed = allowed or bool(before.test_questions)
    module.learned = Learned(
        train,
        frozenset(one.id for one in dev),
        data.example_digests().train,
        summary(train, dev) if allowed else {},
    )


def _list_bad_records(trainer: Trainer, data: Any) -> None:
    """Writes which records were left out into the run's folder, where the run has one of its own."""
    skipped = data.source.skipped
    run = trainer.log_dir  # asked by all processes: the first one tells
    if skipped and run is not None and isinstance(trainer.logger, OWN_FOLDER) and trainer.is_global_zero:
        folder = Path(run)
        folder.mkdir(parents=True, exist_ok=True)
        write_bad_records(RunFolder(folder).bad_records, skipped)
