"""Lightning's verbs (fit, validate, test, predict) on our module and data, through LightningCLI."""

import contextlib
import logging
import os
import shutil
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from medqlora.answering import Calibration
from medqlora.callbacks import (
    AdapterCheckpoint,
    Answers,
    EvaluationReport,
    GPUMemory,
    RunRecorder,
    Signals,
    StepProgress,
    Throughput,
)
from medqlora.commands.config_files import check_classes
from medqlora.console import say
from medqlora.data.bad_records import FILE_NAME, write_bad_records
from medqlora.datamodule import PubMedQADataModule
from medqlora.errors import InputError
from medqlora.models.adapters import RECORD_FILE, check_adapter_base, read_adapter
from medqlora.module import QLoRAModule
from medqlora.records import YES_NO_MAYBE
from medqlora.runs import fits, new_run_folder, newest_adapter
from medqlora.training import checkpoint, curve
from medqlora.training.checkpoint_files import CheckpointFiles, newest_whole, read_checkpoint, step_of
from medqlora.training.option_checks import check_shared, check_strategy
from medqlora.training.processes import OneBase, OneMessage

#: tells the other processes of this machine which checkpoint the first one goes on with
_RESUMED = "MEDQLORA_RESUMED"
#: what each verb needs of the data
_STAGES = {"fit": ("train", "dev"), "validate": ("dev",), "test": ("dev", "test"), "predict": ("test",)}

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
                    for verb in _STAGES
                },
            },
            auto_configure_optimizers=False,
            args=args,
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
        saver = self.trainer.checkpoint_callback
        return saver.adapter_folder if isinstance(saver, AdapterCheckpoint) else None

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

    def before_instantiate_classes(self) -> None:
        check_classes(self.config[self.subcommand].as_dict(), {"model.optimizer": Optimizer})
        self.config[self.subcommand]["weights_only"] = True  # a checkpoint is data: no pickled code is run

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Gives the run its folder: a new one, or with `fit --ckpt_path` the one that the checkpoint is of."""
        options = self._get(self.config_init, "trainer", default={})
        root = Path(options.get("default_root_dir") or ".")
        self._resolve_last(root / "lightning_logs")
        if options.get("logger") in (None, True):
            run = self._run_of_checkpoint() if self.verb == "fit" else None
            if run is None:
                kwargs["logger"] = TensorBoardLogger(root, name="lightning_logs")
            else:
                kwargs["logger"] = TensorBoardLogger(
                    run.parent.parent, name=run.parent.name, version=run.name
                )
        kwargs["plugins"] = [*_as_list(options.get("plugins")), CheckpointFiles()]
        check_strategy(options.get("strategy"))
        one_base = options.get("strategy") == "fsdp"
        try:
            # Lightning's own fsdp is for GPUs alone, and not for a 4-bit base
            trainer = super().instantiate_trainer(**kwargs, **({"strategy": "auto"} if one_base else {}))
            if type(trainer.strategy) is DDPStrategy:  # what Lightning takes for several devices
                strategy = OneBase() if one_base else OneMessage()
                trainer = super().instantiate_trainer(**kwargs, strategy=strategy)
            elif one_base and trainer.world_size == 1:
                say("Note: --trainer.strategy fsdp: there is one device, and nothing to share out")
        except (MisconfigurationException, ValueError) as error:
            accelerator, devices = options.get("accelerator"), options.get("devices")
            raise InputError(
                f"--trainer.accelerator {accelerator}, --trainer.devices {devices}: not on this machine "
                f"({' '.join(str(error).split())}): use --trainer.accelerator auto, or cpu"
            ) from error
        half = str(options.get("precision")) in ("16", "16-mixed")
        if half and trainer.precision != "16-mixed":  # without CUDA Lightning takes bf16-mixed instead
            raise InputError("--trainer.precision 16-mixed needs a CUDA GPU: use 32 or bf16-mixed on a CPU")
        return trainer

    def _resolve_last(self, logs: Path) -> None:
        """Puts a file in the place of `fit --ckpt_path last`; without the option, tells of a run to go on with.

        Raises:
            InputError: there is no unfinished run on this base, or it left no whole checkpoint.
        """
        given = self._get(self.config_init, "ckpt_path")
        if self.verb == "fit" and given == "last" and _RESUMED in os.environ and "LOCAL_RANK" in os.environ:
            self.config_init[self.subcommand]["ckpt_path"] = os.environ[
                _RESUMED
            ]  # the first process has begun it
            return
        if self.verb != "fit" or given not in (None, "last") or not logs.is_dir():
            if self.verb == "fit" and given == "last":
                raise InputError(f"--ckpt_path last: there are no runs in {logs}: leave the option out")
            return
        found = fits(logs, self.model.backend.identity())
        if given is None:
            newest = next(iter(found), None)
            if newest is not None and newest[1].get("state") != "finished":
                whole = newest_whole(newest[0] / "checkpoints")
                if whole is not None:
                    say(
                        f"Note: {newest[0]} was not finished (step {step_of(whole)}); this is a new run. To go on with "
                        "that one, add --ckpt_path last"
                    )
            return
        unfinished = next((folder for folder, record in found if record.get("state") != "finished"), None)
        if unfinished is None:
            raise InputError(
                f"--ckpt_path last: {logs} holds no unfinished fit on the base '{self.model.backend.base}': leave "
                "the option out, or name a checkpoint"
            )
        whole = newest_whole(unfinished / "checkpoints")
        if whole is None:
            raise InputError(
                f"--ckpt_path last: {unfinished}, the newest unfinished run, left no whole checkpoint: leave the "
                "option out, or name the checkpoint of another run"
            )
        say(f"Going on with {whole}, of step {step_of(whole)}")
        self.config_init[self.subcommand]["ckpt_path"] = os.environ[_RESUMED] = str(whole)

    def _checkpoint(self) -> Path | None:
        given = self._get(self.config_init, "ckpt_path")
        if given is None:
            return None
        path = Path(given).expanduser()
        if not path.is_file():
            raise InputError(
                f"--ckpt_path: there is no file '{given}': give a .ckpt of a run's checkpoints/ folder"
            )
        return path

    def _run_of_checkpoint(self) -> Path | None:
        path = self._checkpoint()
        if path is None or path.parent.name != "checkpoints":
            return None
        return path.parent.parent

    @cached_property
    def _saved(self) -> dict[str, Any] | None:
        """What the checkpoint says of itself, without its weights; None where none is given."""
        path = self._checkpoint()
        if path is None:
            return None
        whole = read_checkpoint(path)
        return {key: value for key, value in whole.items() if key in ("global_step", "curve", checkpoint.KEY)}

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
        self._make_folder()
        self.model.trainer = self.trainer
        self.datamodule.trainer = self.trainer
        self.datamodule.check()
        if isinstance(self.trainer.strategy, OneBase):
            config = self.model.backend.config() if self.verb == "fit" else None
            check_shared(self.model, self.datamodule, config)
        self.model.check()
        if self._saved is not None:
            anyway = self.verb == "fit" and bool(self._get(self.config_init, "resume_anyway"))
            checkpoint.check(self._saved, self.model.backend, self.model.lora, anyway=anyway)
        if self.verb == "predict" and self.trainer.world_size > 1:
            raise InputError("--trainer.devices: `predict` writes one file, in order: use 1")
        if self.verb != "fit":
            self._choose_adapter()
        tokenizer = self.model.backend.tokenizer()
        if self.verb == "test":
            self._read_test(tokenizer)
        elif self.verb == "predict":
            self._read_questions(tokenizer)
        else:
            self.datamodule.read(tokenizer, _STAGES[self.verb], report=say)
        skipped = self.datamodule.source.skipped
        if skipped and self.trainer.global_rank == 0:
            write_bad_records(Path(str(self.trainer.log_dir)) / FILE_NAME, skipped)
        if self.verb == "fit":
            self._resume()
            # first, so that the record stands when another callback fails
            self.trainer.callbacks.insert(0, RunRecorder())  # type: ignore[attr-defined]
            self.trainer.callbacks.append(Signals())  # type: ignore[attr-defined]

    def _make_folder(self) -> None:
        """Makes a new run's folder before any work; a logger's own number is a guess until it writes.

        Raises:
            InputError: it can't be made.
        """
        logger: Any = self.trainer.logger
        if not isinstance(logger, TensorBoardLogger) or getattr(logger, "_version", None) is not None:
            return  # the user's own logger, none, or the folder of the run that is resumed
        if self.trainer.global_rank != 0:
            return  # the first process makes it, and tells its name
        self._new_folder = _made(Path(logger.save_dir))
        logger._version = self._new_folder.name

    def _resume(self) -> None:
        """Compares the run with the checkpoint's, and takes from the curve what came after that."""
        if self._saved is None:
            return
        now = checkpoint.definition(self.model, self.datamodule, str(self.trainer.precision))
        anyway = bool(self._get(self.config_init, "resume_anyway"))
        different = checkpoint.check_definition(self._saved[checkpoint.KEY], now, anyway=anyway)
        if different:
            say(f"Going on with other values: {'; '.join(different)}")
        run = self._run_of_checkpoint()
        if run is not None and "curve" in self._saved and self.trainer.global_rank == 0:
            curve.cut(run, self._saved["curve"])

    def _read_test(self, tokenizer: Any) -> None:
        record = self._adapter_record()
        held_out = record.get("dev_ids")
        self.datamodule.read(
            tokenizer,
            _STAGES["test"],
            report=say,
            trained=frozenset(record.get("train_ids", ())),
            held_out=None if held_out is None else frozenset(held_out),
        )
        if not self.datamodule.dev:
            say("No question was held out from this adapter's training: its confidence is not calibrated")
        self.datamodule.read_benchmarks(report=say)
        self.report.calibration = self._calibration()
        self.report.check_prior(self.datamodule.sets)
        self.report.check_overlap(self._adapter_place(), self.datamodule.sets)

    def _read_questions(self, tokenizer: Any) -> None:
        record = self._adapter_record()
        if self.datamodule.questions is None:
            self.datamodule.read(tokenizer, _STAGES["predict"], report=say)
        else:
            self.datamodule.read_questions(tokenizer, record.get("labels", YES_NO_MAYBE), report=say)
        answers = next(one for one in self.trainer.callbacks if isinstance(one, Answers))  # type: ignore[attr-defined]
        answers.begin(self.trainer, self.model, self.datamodule, self._adapter_place(), self._calibration())

    def _adapter_place(self) -> str | None:
        """The folder that says what the weights under test were trained on; None for the bare base."""
        run = self._run_of_checkpoint()  # what a checkpoint saw lies with the adapter that its run exported
        if run is not None:
            return str(run / "adapter")
        return None if self.model.adapter in (None, "none") else self.model.adapter

    def _calibration(self) -> Calibration | None:
        """What the weights under test were found to be worth at their own validation.

        Raises:
            InputError: the record is damaged.
        """
        if self._saved is not None:  # of a checkpoint, which may be of another step than the adapter
            found = self._saved[checkpoint.KEY].get("validation", {}).get("calibration")
            where = str(self._checkpoint())
        else:
            found, where = self._adapter_record().get("calibration"), f"{self._adapter_place()}/{RECORD_FILE}"
        return None if found is None else Calibration.from_json(found, where)

    def _adapter_record(self) -> dict[str, Any]:
        place = self._adapter_place()
        if place is None or not (Path(place) / "adapter_config.json").is_file():
            return {}
        return read_adapter(place)

    def _choose_adapter(self) -> None:
        """`--ckpt_path`, `--model.adapter`, or the newest finished run's on this base; says which."""
        backend, given = self.model.backend, self.model.adapter
        if self._get(self.config_init, "ckpt_path") is not None:
            if given is not None:
                raise InputError(f"--model.adapter {given} and --ckpt_path are both given: leave one out")
            self.model.checkpoint = str(self._checkpoint())
            say(f"Evaluating the checkpoint {self.model.checkpoint}")
        elif given == "none":
            say(f"Evaluating the bare base {backend.base}")
        elif given is not None:
            check_adapter_base(given, backend.base, backend.identity())
            say(f"Evaluating the adapter {given}")
        else:
            root = Path(str(self.trainer.log_dir)).parent
            found = newest_adapter(root, backend.identity())
            if found is None:
                raise InputError(
                    f"--model.adapter: {root} holds no finished run on the base '{backend.base}': train one with "
                    "`medqlora fit`, name an adapter's folder, or pass 'none' for the bare base"
                )
            self.model.adapter = str(found)
            say(f"Evaluating the newest finished run's adapter, {found}")
        if self.model.adapter not in (None, "none"):
            trained_with = read_adapter(self.model.adapter).get("prompt", {}).get("name")
            if trained_with not in (None, self.datamodule.prompt_name):
                say(
                    f"Note: trained with the prompt '{trained_with}', asked with '{self.datamodule.prompt_name}'"
                )

    def predict(self, **options: Any) -> None:
        """Called in place of the Trainer's: what is answered already needs no model."""
        if self.datamodule.test:
            self.trainer.predict(**options)

    # ---- after a verb ----------------------------------------------------------------------------

    def after_fit(self) -> None:
        saver = self.trainer.checkpoint_callback
        run = Path(str(self.trainer.log_dir))
        assert isinstance(saver, AdapterCheckpoint)
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

    def remove_empty_run(self) -> None:
        """Takes back the folder of a run that ended on wrong input before it did anything."""
        if self.trainer.global_rank != 0:
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


def _made(root: Path) -> Path:
    """The new run's folder; raises InputError where it can't be made."""
    try:
        return new_run_folder(root / "lightning_logs")
    except OSError as error:
        raise InputError(
            f"--trainer.default_root_dir {root}: no run's folder can be made there ({error.strerror}): make it "
            "and let it be written in, or name another"
        ) from error


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _quiet() -> None:
    """Hides what is said on every run and means nothing to its user."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
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
