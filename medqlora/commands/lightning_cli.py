"""Lightning's verbs (fit, validate, test, predict) on our module and data, through LightningCLI."""

import contextlib
import logging
import shutil
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from medqlora.artifacts import checkpoint, curve
from medqlora.artifacts.checkpoint_files import CheckpointFiles, clear
from medqlora.callbacks import (
    AdapterCheckpoint,
    Answers,
    EvaluationReport,
    GPUMemory,
    RunRecorder,
    Signals,
    StepProgress,
    Throughput,
    saver_of,
)
from medqlora.callbacks.event_files import silence_writer_threads
from medqlora.commands.classes import check_classes
from medqlora.commands.given_checkpoint import GivenCheckpoint, check_free, choose_checkpoint
from medqlora.commands.optimizer_option import check_optimizer_option, take_names
from medqlora.commands.option_errors import not_made
from medqlora.commands.trainer_options import (
    check_callback_classes,
    environment_plugins,
    make_folder,
    run_loggers,
    settle_trainer,
    trainer_refusal,
)
from medqlora.commands.under_test import ChosenWeights
from medqlora.datamodule import PubMedQADataModule
from medqlora.distributed.processes import DDPStrategy4bit, ShardedBaseStrategy
from medqlora.errors import InputError
from medqlora.module import QLoRAModule
from medqlora.training.checks.options import check_strategy
from medqlora.training.stage_start import Stage
from medqlora.utils.console import say

_VERBS = ("fit", "validate", "test", "predict")

_TRAINER_DEFAULTS = {
    "num_sanity_val_steps": 0,  # the comparison of packed with single rows is a better one
    "enable_model_summary": False,  # it counts a 4-bit weight's bytes; `_start` prints the parameters
    "use_distributed_sampler": False,  # the loaders shard by themselves
    "inference_mode": False,  # its tensors would break the next backward
    "log_every_n_steps": 10,
}


class MedQLoRACLI(LightningCLI):
    """Checks all that can be wrong before the first weight is loaded, then hands over to the Trainer.

    Args:
        args: the verb and its options.
        command: what the user typed, for the run's record; "full" calls `fit` and `test`.
    """

    datamodule: PubMedQADataModule
    model: QLoRAModule
    trainer: Trainer

    def __init__(self, args: list[str], command: str | None = None) -> None:
        self.command = command or args[0]
        _quiet()
        super().__init__(
            QLoRAModule,
            PubMedQADataModule,
            seed_everything_default=0,
            trainer_defaults=_TRAINER_DEFAULTS,
            save_config_kwargs={"overwrite": True},  # a resumed run goes on in its own folder
            # no abbreviations: `--trainer.max_epoch` is a mistake to be told, not an option to be guessed
            parser_kwargs={
                "prog": "medqlora",
                "exit_on_error": False,
                "allow_abbrev": False,
                **{
                    verb: {"prog": f"medqlora {verb}", "exit_on_error": False, "allow_abbrev": False}
                    for verb in _VERBS
                },
            },
            auto_configure_optimizers=False,
            args=take_names(args),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(AdapterCheckpoint, "checkpoint")
        parser.add_lightning_class_args(GPUMemory, "gpu_memory")
        parser.add_lightning_class_args(Throughput, "throughput")
        parser.add_lightning_class_args(StepProgress, "progress")
        parser.add_lightning_class_args(EvaluationReport, "report")
        parser.add_lightning_class_args(Answers, "answers")
        parser.add_argument(
            "--compare_base", type=bool, default=True, help="`test` also asks the base without the adapter."
        )
        parser.link_arguments("compare_base", "model.compare_base")
        parser.add_argument(
            "--resume_anyway",
            type=bool,
            default=False,
            help="`fit --ckpt_path` goes on although options that define the run were changed.",
        )

    @property
    def adapter_folder(self) -> Path | None:
        """Where a finished fit left its best adapter."""
        return saver_of(self.trainer).adapter_folder

    @property
    def report(self) -> EvaluationReport:
        """The report of a finished test."""
        return next(one for one in self.trainer.callbacks if isinstance(one, EvaluationReport))  # type: ignore[attr-defined]

    def option_names(self, verb: str) -> list[str]:
        """Every option of `verb`, as "model.lora.r"."""
        actions = self._subcommand_parsers[verb]._actions
        return [option.lstrip("-") for action in actions for option in action.option_strings]

    @property
    def verb(self) -> str:
        return str(self.subcommand)

    def _parse_ckpt_path(self) -> None:
        """Lightning would read options from the checkpoint here, whole or not: `config.yaml` is the record."""

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if isinstance(seed, int) and not 0 <= seed < 2**32:  # what NumPy takes
            raise InputError(f"--seed_everything {seed}: it has to be from 0 to {2**32 - 1}")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        check_callback_classes(self.config[self.subcommand]["trainer"]["callbacks"])
        check_classes(self.config[self.subcommand].as_dict(), {"model.optimizer": Optimizer})
        settle_trainer(self.config[self.subcommand])
        check_optimizer_option(self.config[self.subcommand]["model"])
        self.config[self.subcommand]["weights_only"] = True  # a checkpoint is data: no pickled code is run

    def instantiate_classes(self) -> None:
        """Tells of a logger or callback that can't be made, as one whose package is not installed."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise not_made(error, self.config[self.subcommand].as_dict()) or error from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Gives the run its folder: a new one, or with `fit --ckpt_path` the one that the checkpoint is of."""
        options = self._get(self.config_init, "trainer", default={})
        root = Path(options.get("default_root_dir") or ".")
        if self.verb == "fit":
            given = self._get(self.config_init, "ckpt_path")
            self.config_init["fit"]["ckpt_path"] = choose_checkpoint(
                given, root / "lightning_logs", self.model.backend
            )
        run = self._given.run if self.verb == "fit" else None
        kwargs["logger"] = run_loggers(options.get("logger"), root, run)
        plugins = _as_list(options.get("plugins"))
        kwargs["plugins"] = [*plugins, *environment_plugins(plugins), CheckpointFiles()]
        check_strategy(options.get("strategy"))
        one_base = options.get("strategy") == "fsdp"
        # Lightning's own fsdp is for GPUs alone, and not for a 4-bit base
        strategy: dict[str, Any] = {"strategy": "auto"} if one_base else {}
        # Lightning adds its own to the list that it is given: a second Trainer would have them twice
        callbacks = _as_list(options.get("callbacks"))
        bar = next((type(one).__name__ for one in callbacks if isinstance(one, ProgressBar)), None)
        if bar is not None:
            raise InputError(
                f"--trainer.callbacks {bar}: a run has one progress bar: set ours with --progress"
            )
        try:
            trainer = super().instantiate_trainer(**kwargs, **strategy, callbacks=list(callbacks))
            if type(trainer.strategy) is DDPStrategy:  # what Lightning takes for several devices
                strategy = {"strategy": ShardedBaseStrategy() if one_base else DDPStrategy4bit()}
                trainer = super().instantiate_trainer(**kwargs, **strategy, callbacks=list(callbacks))
            elif one_base and trainer.world_size == 1:
                say("Note: --trainer.strategy fsdp: there is one device, and nothing to share out")
        except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
            raise trainer_refusal(error, options.as_dict()) from error
        half = str(options.get("precision")) in ("16", "16-mixed")
        if half and trainer.precision != "16-mixed":  # without CUDA Lightning takes bf16-mixed instead
            raise InputError("--trainer.precision 16-mixed needs a CUDA GPU: use 32 or bf16-mixed on a CPU")
        return trainer

    @cached_property
    def _given(self) -> GivenCheckpoint:
        path = self._get(self.config_init, "ckpt_path")
        return GivenCheckpoint(None if path is None else Path(path).expanduser())

    # ---- before a verb ---------------------------------------------------------------------------

    def before_fit(self) -> None:
        self._start()

    def before_validate(self) -> None:
        self._start()

    def before_test(self) -> None:
        self._start()

    def before_predict(self) -> None:
        self._start()

    def _start(self) -> None:
        if self.trainer.global_rank == 0:  # the first process makes the run's folder, and tells its name
            self._new_folder = make_folder(self.trainer.logger)
            folder = Path(str(getattr(self.trainer.logger, "log_dir", "")))
            # a logger of the user's own may name one that is there: it is not the run's to take back
            self._is_new = self._new_folder is not None or not folder.exists()
        self.model.trainer = self.trainer
        self.datamodule.trainer = self.trainer
        self.trainer.strategy.connect(self.model)  # as the Trainer does, so that it knows the module
        self.datamodule.before_reading = self._choose_weights
        self.datamodule.start(cast(Stage, self.verb))
        if self.verb == "fit":
            self._resume()
            # first, so that the record stands when another callback fails
            self.trainer.callbacks.insert(0, RunRecorder())  # type: ignore[attr-defined]
            self.trainer.callbacks.append(Signals())  # type: ignore[attr-defined]

    def _resume(self) -> None:
        """Compares the run with the checkpoint's, and takes from the curve what came after that."""
        saved, run = self._given.saved, self._given.run
        if saved is None:
            return
        if run is not None and self.trainer.global_rank == 0:
            check_free(run)
            clear(run / "checkpoints")  # nothing may be left to be saved
        now = checkpoint.definition(self.model, self.datamodule, str(self.trainer.precision))
        part = saved[checkpoint.KEY]
        if saved["monitor"] is not None and "definition" in part and self.datamodule.dev:
            # scores of different kinds can't be compared: the best so far would be forgotten
            now["--checkpoint.monitor"] = saver_of(self.trainer).monitor
            before = {**part["definition"], "--checkpoint.monitor": saved["monitor"]}
            part = {**part, "definition": before}
        anyway = bool(self._get(self.config_init, "resume_anyway"))
        different = checkpoint.check_definition(part, now, anyway=anyway)
        if different:
            say(f"Going on with other values: {'; '.join(different)}")
        if run is not None and "curve" in saved and self.trainer.global_rank == 0:
            curve.cut(run, saved["curve"])

    def _choose_weights(self) -> None:
        """A checkpoint has to be of this base and these adapters; without one the newest adapter is evaluated."""
        if self._given.saved is not None:
            anyway = self.verb == "fit" and bool(self._get(self.config_init, "resume_anyway"))
            checkpoint.check(self._given.saved, self.model.backend, self.model.lora, anyway=anyway)
        if self.verb != "fit":
            data = self.datamodule
            source = data.source if self.verb != "predict" or data.questions is None else None
            logs = Path(str(self.trainer.log_dir)).parent
            ChosenWeights(self.model, data.prompt_name, self._given, logs, source).choose()

    def test(self, **options: Any) -> None:
        """Called in place of the Trainer's: the report's table is printed, and not Lightning's too."""
        self.trainer.test(**{**options, "verbose": False})

    def predict(self, **options: Any) -> None:
        """Called in place of the Trainer's: what is answered already needs no model."""
        if self.datamodule.test:
            # the answers are in the file; all of them need not be in memory too
            self.trainer.predict(**{**options, "return_predictions": False})

    # ---- after a verb ----------------------------------------------------------------------------

    def after_fit(self) -> None:
        saver = saver_of(self.trainer)
        run = Path(str(self.trainer.log_dir))
        best = saver.best_model_score
        say("")
        if best is not None:
            say(f"Best {saver.monitor}: {float(best):.4f}  ({Path(saver.best_model_path).name})")
        say(f"Run:     {run}")
        if saver.adapter_folder is not None:
            say(f"Adapter: {saver.adapter_folder}")
        if self.command == "fit":
            configs = " ".join(f"--config {path}" for path in self._config_paths())
            say(f"Next:    medqlora test {configs}".rstrip())
            say(f"         tensorboard --logdir {run.parent}")

    def _config_paths(self) -> list[str]:
        paths = self._get(self.config, "config") or []
        return [str(path.relative) if hasattr(path, "relative") else str(path) for path in paths]

    def newest_step(self) -> int | None:
        """The optimizer step of the newest checkpoint that this fit has written; None without one."""
        begun = hasattr(self, "trainer") and self.verb == "fit"
        return saver_of(self.trainer).newest_step if begun else None

    def remove_empty_run(self) -> None:
        """Takes back the folder of a run that ended on wrong input before it did anything."""
        if self.trainer.global_rank != 0 or not getattr(self, "_is_new", False):
            return
        run = Path(str(getattr(self.trainer.logger, "log_dir", "")))
        if (
            self.trainer.global_step == 0
            and run.name.startswith("version_")
            and not (run / "checkpoints").exists()
        ):
            shutil.rmtree(run, ignore_errors=True)
        self.remove_empty_folder()

    def remove_empty_folder(self) -> None:
        """Takes back the folder that was made for the run, where nothing was written in it."""
        folder: Path | None = getattr(self, "_new_folder", None)
        if folder is not None:
            for path in (folder, folder.parent):
                with contextlib.suppress(OSError):
                    path.rmdir()


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _quiet() -> None:
    """Hides what is said on every run and means nothing to its user."""
    silence_writer_threads()
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
    ):
        logging.getLogger(name).addFilter(_has_news)
    for message in (
        ".*does not have many workers.*",
        ".*is smaller than the logging interval.*",
        ".*`self.log_dict.*",
        "LightningCLI's args parameter is intended.*",
        ".*could not find the monitored key.*",  # a run that ends before its first validation
        ".*across ranks is zero.*",  # a run without validation
        ".*is_gradient_checkpointing.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*AMP with fp16 is not supported on CPU.*",  # it is an error here
    ):
        warnings.filterwarnings("ignore", message=message)


_NO_NEWS = ("Seed set to", "GPU available", "TPU available", "`weights_only` was not set")


def _has_news(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return "💡" not in message and not message.startswith(_NO_NEWS)
