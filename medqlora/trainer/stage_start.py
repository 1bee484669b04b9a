"""The start of each Trainer stage: checks the options, reads and checks the data, before a model is loaded.

The datamodule's `setup` calls it, so the command line and a user's own Trainer take the same path.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from lightning.pytorch import Trainer

from medqlora.artifacts import checkpoint as checkpoints
from medqlora.artifacts.checkpoint_files import read_checkpoint
from medqlora.artifacts.evaluated_weights import (
    EvaluatedWeights,
    Learned,
    WeightsInMemory,
    base_test_questions,
    evaluated_weights,
)
from medqlora.artifacts.run_folder import RunFolder
from medqlora.artifacts.validated import validated
from medqlora.compat.lightning import callbacks_of, checkpoint_to_restore, use_no_inference_mode
from medqlora.data.bad_records import write_bad_records
from medqlora.data.test_sets import OPTION, added, summary, told
from medqlora.distributed.processes import ShardedBaseStrategy
from medqlora.errors import InputError
from medqlora.evaluation.metrics.enough import limits
from medqlora.records import Record
from medqlora.trainer.checks import (
    OWN_FOLDER,
    check_monitors,
    check_predict_limit,
    check_train_limit,
    check_val_interval,
    settle_stages,
)
from medqlora.trainer.run_data import RunData
from medqlora.trainer.step_hooks import StepHooks
from medqlora.training.checks.examples import check_examples
from medqlora.training.checks.options import check_positions, check_shared, check_written, scores_of
from medqlora.training.tested_sets import ScoreOptions
from medqlora.utils.console import say
from medqlora.utils.progress import phase

Stage = Literal["fit", "validate", "test", "predict"]
#: sets of the source that each stage reads
_SPLITS: dict[Stage, tuple[str, ...]] = {
    "fit": ("train", "dev"),
    "validate": ("dev",),
    "test": ("dev", "test"),
    "predict": ("test",),
}


@runtime_checkable
class ChecksStart(Protocol):
    """A callback that checks something, or takes something from the data, before a model is loaded."""

    def check_start(self, trainer: Trainer, module: StepHooks, data: RunData, stage: Stage) -> None:
        """Called once a stage, after the data are read. Raises InputError."""


def start_stage(
    trainer: Trainer, module: StepHooks, data: RunData, stage: Stage, before_reading: Callable[[], None]
) -> None:
    """Checks the options, reads the sets of the stage into `data`, and checks them.

    Args:
        trainer: runs the stage.
        module: the QLoRAModule.
        data: the PubMedQADataModule.
        stage: Lightning's.
        before_reading: called between the checks of the options and reading.

    Raises:
        InputError: an option, a record or the choice of weights is wrong.
    """
    data.check()
    if isinstance(trainer.strategy, ShardedBaseStrategy):
        begins = stage == "fit" and module.checkpoint is None and checkpoint_to_restore() is None
        check_shared(module.backend, module.options, module.lora.init if begins else "default")
    module.check()
    _check_stage(trainer, module, stage)
    if data.options.rationale == "before" and not module.options.generate:
        raise InputError(
            "--model.generate false: with --data.rationale before a decision follows its generated rationale: leave it "
            "true, or use --data.rationale after"
        )
    use_no_inference_mode(trainer)
    module.test_options = ScoreOptions()
    before_reading()
    with phase("Reading the questions"):
        _read(module, data, stage)
    check_positions(module.backend, data)
    if stage == "fit":
        if data.training_stages:
            settle_stages(trainer, len(data.epoch_steps), validated=bool(data.dev))
        check_monitors(trainer, scores_of(data.dev, module.options.generate), (module, data))
        check_train_limit(trainer, data.steps_per_epoch)
        if data.dev:
            check_val_interval(trainer, data.steps_per_epoch)
    for callback in callbacks_of(trainer):
        if isinstance(callback, ChecksStart):
            callback.check_start(trainer, module, data, stage)
    if stage == "predict":
        check_predict_limit(trainer, len(data.evaluation_loader(data.test, in_order=True)))
    if stage == "fit":
        with phase("Checking the examples"):
            lines = check_examples(data, module.backend.tokenizer())
        for line in lines:
            say(line)
        _say_limits(data, module.options.target_risk)
    _list_bad_records(trainer, data)
    if stage == "fit":
        _start_fit(trainer, module, data)


def _check_stage(trainer: Trainer, module: StepHooks, stage: Stage) -> None:
    """Raises InputError for a module or Trainer that this stage can't use."""
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


def _read(module: StepHooks, data: RunData, stage: Stage) -> None:
    """Reads the sets of the stage; for an evaluation also finds its weights."""
    tokenizer = module.backend.tokenizer
    data.images = module.backend.images()
    if stage == "fit":
        data.read(tokenizer(), _SPLITS["fit"], report=say)
        return
    weights = _evaluated_weights(module)
    if weights.test_questions:
        say(
            f"WARNING: {told(weights.test_questions)} ({OPTION} true at its training): a score on that benchmark "
            "means nothing"
        )
    if stage == "test":
        _read_test(module, data, weights)
    elif stage == "predict" and data.questions is not None:
        data.read_questions(tokenizer(), weights.labels, report=say)
    else:
        data.read(tokenizer(), _SPLITS[stage], report=say)
        if stage == "validate" and not data.dev:
            raise InputError(
                f"--data.source: {data.source.name} has no dev records to validate on: check its options"
            )


def _evaluated_weights(module: StepHooks) -> EvaluatedWeights:
    """The weights of this evaluation; the module gets to know them."""
    restored, memory = checkpoint_to_restore(), None
    if module.model is not None:
        predictions = module.validated[1]
        current = validated(predictions, {}, module.options.target_risk) if predictions else {}
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


def _read_test(module: StepHooks, data: RunData, weights: EvaluatedWeights) -> None:
    tokenizer = module.backend.tokenizer()
    data.read(tokenizer, _SPLITS["test"], report=say, trained=weights.trained_on, held_out=weights.dev_ids)
    if not data.dev:
        say("No question was held out from this adapter's training: its confidence is not calibrated")
    data.read_benchmarks(report=say)
    check_written(data.sets, module.options.generate)


def _start_fit(trainer: Trainer, module: StepHooks, data: RunData) -> None:
    """Checks that the module can be trained, and compares the run with the checkpoint that it resumes."""
    if module.model is not None and not any(weight.requires_grad for weight in module.model.parameters()):
        raise InputError(
            "QLoRAModule: it holds weights that were loaded for an evaluation: make a new QLoRAModule to fit"
        )
    definition = module.definition(data, str(trainer.precision))
    resumed = checkpoint_to_restore()
    if resumed is not None:
        saved = read_checkpoint(Path(resumed))
        checkpoints.check(saved, module.backend, module.lora, anyway=True)
        different = checkpoints.check_definition(checkpoints.record_of(saved), definition, anyway=True)
        if different:
            say(f"Going on with other values: {'; '.join(different)}")
    module.checkpoint = module.evaluated = None
    # weights in memory that are trained further have seen the sets of both fits
    before = module.learned if module.model is not None else None
    module.learned = _learned(data, before, data.example_digests().train, module.backend.base)


def _say_limits(data: RunData, target_risk: float) -> None:
    """Says at once what the validation questions are too few for."""
    answers = [data.records[example.id].answer for example in data.dev if example.labels]
    line = limits(len(answers), len(set(answers)), target_risk) if answers else None
    if line is not None:
        say(f"Note: {line}")


def _learned(data: RunData, before: Learned | None, digest: str, base: str) -> Learned:
    """The record of what the fit trains on, and what the fit `before`, or one merged into `base`, has trained on."""
    train: list[Record] = [data.records[example.id] for example in data.train]
    dev = [data.records[example.id] for example in data.dev]
    allowed = data.allow_test_questions
    if before is not None:
        again = {(record.id, record.question) for record in train}
        train += [record for record in before.train if (record.id, record.question) not in again]
        allowed = allowed or bool(before.test_questions)
    counts = added(base_test_questions(base), summary(train, dev) if allowed else {})
    invented = data.source.name if data.source.invented else None
    return Learned(train, frozenset(record.id for record in dev), digest, counts, invented)


def _list_bad_records(trainer: Trainer, data: RunData) -> None:
    """Writes the skipped records into the run's folder, where the run has one of its own."""
    skipped = data.source.skipped
    folder = trainer.log_dir  # a collective call: all processes read it
    if skipped and folder is not None and isinstance(trainer.logger, OWN_FOLDER) and trainer.is_global_zero:
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_bad_records(RunFolder(Path(folder)).bad_records, skipped)
