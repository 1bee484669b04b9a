"""Lightning's verbs (fit, validate, test, predict) on our module and data, through LightningCLI."""

import logging
import shutil
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from medqlora.answering import Calibration
from medqlora.callbacks import (
    AdapterCheckpoint,
    Answers,
    EvaluationReport,
    GPUMemory,
    RunRecorder,
    StepProgress,
    Throughput,
)
from medqlora.console import say
from medqlora.datamodule import PubMedQADataModule
from medqlora.errors import InputError
from medqlora.models.adapters import RECORD_FILE, check_adapter_base, read_adapter
from medqlora.module import QLoRAModule
from medqlora.records import YES_NO_MAYBE
from medqlora.runs import newest_adapter
from medqlora.training import checkpoint

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
        self.config[self.subcommand]["weights_only"] = True  # a checkpoint is data: no pickled code is run

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Gives the run its folder: a new one, or with `fit --ckpt_path` the one that the checkpoint is of."""
        options = self._get(self.config_init, "trainer", default={})
        if options.get("logger") in (None, True):
            resumed = self._run_of_checkpoint() if self.verb == "fit" else None
            root = Path(options.get("default_root_dir") or ".")
            if resumed is None:
                kwargs["logger"] = TensorBoardLogger(root, name="lightning_logs")
            else:
                # TensorBoard drops what the interrupted run logged after its checkpoint: no step twice
                kwargs["logger"] = TensorBoardLogger(
                    resumed.parent.parent,
                    name=resumed.parent.name,
                    version=resumed.name,
                    purge_step=(self._saved or {}).get("global_step"),
                )
        try:
            trainer = super().instantiate_trainer(**kwargs)
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
        try:
            whole = dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # a damaged file raises whatever it happens to look like
            raise InputError(
                f"--ckpt_path: '{path}' is not a whole checkpoint ({type(error).__name__}): give another one of "
                "its folder, or leave the option out"
            ) from error
        return {key: value for key, value in whole.items() if key in ("global_step", checkpoint.KEY)}

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
        self.model.trainer = self.trainer
        self.datamodule.trainer = self.trainer
        self.datamodule.check()
        self.model.check()
        if self._saved is not None:
            checkpoint.check(self._saved, self.model.backend, self.model.lora)
        if self.verb != "fit":
            self._choose_adapter()
        tokenizer = self.model.backend.tokenizer()
        if self.verb == "test":
            self._read_test(tokenizer)
        elif self.verb == "predict":
            self._read_questions(tokenizer)
        else:
            self.datamodule.read(tokenizer, _STAGES[self.verb], report=say)
        if self.verb == "fit":
            # first, so that the record stands when another callback fails
            self.trainer.callbacks.insert(0, RunRecorder())  # type: ignore[attr-defined]

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
        run = Path(str(self.trainer.log_dir or ""))
        if (
            self.trainer.global_step == 0
            and run.name.startswith("version_")
            and not (run / "checkpoints").exists()
        ):
            shutil.rmtree(run, ignore_errors=True)


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
