"""Lightning's parser with this project's module, datamodule and callbacks."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from medqlora.artifacts.run_folder import LOGS
from medqlora.callbacks import (
    AdapterCheckpoint,
    Answers,
    AverageAdapters,
    EvaluationReport,
    GPUMemory,
    StepProgress,
    Throughput,
)
from medqlora.commands.classes import check_classes
from medqlora.commands.given_checkpoint import (
    GivenCheckpoint,
    choose_checkpoint,
    evaluated_checkpoint,
)
from medqlora.commands.optimizer_option import check_optimizer_option, check_scheduler_option, take_names
from medqlora.commands.option_errors import not_made
from medqlora.commands.quiet import hide_usual_messages
from medqlora.commands.trainer_options import check_callback_classes, make_trainer, settle_trainer
from medqlora.compat.lightning_cli import StagedCLI
from medqlora.config.trainer import DEFAULTS, check_seed
from medqlora.datamodule import PubMedQADataModule
from medqlora.module import QLoRAModule

if TYPE_CHECKING:
    from jsonargparse import Namespace

_CALLBACKS = {
    "checkpoint": AdapterCheckpoint,
    "average": AverageAdapters,
    "gpu_memory": GPUMemory,
    "throughput": Throughput,
    "progress": StepProgress,
    "report": EvaluationReport,
    "answers": Answers,
}


class MedQLoRACLI(StagedCLI):
    """Parses the words and builds module, datamodule and Trainer; no weight is loaded.

    Args:
        words: the verb and its options.
        settle: called with the verb's options, parsed and not yet instantiated; may change them.
        with_trainer: also build the Trainer.
        into: folder of a new run; None for the next `version_N` of the log folder.

    Raises:
        InputError: an option is wrong.
        ArgumentError: jsonargparse refuses one.
    """

    datamodule: PubMedQADataModule
    model: QLoRAModule
    trainer: Trainer

    def __init__(
        self,
        words: list[str],
        settle: "Callable[[Namespace], None] | None" = None,
        *,
        with_trainer: bool = True,
        into: Path | None = None,
    ) -> None:
        self._settle = settle
        self._into = into
        self._with_trainer = with_trainer
        self.asked = words[0]
        hide_usual_messages()
        # no abbreviations: `--trainer.max_epoch` is a mistake to be reported, not an option to be guessed
        parser = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            QLoRAModule,
            PubMedQADataModule,
            seed_everything_default=0,
            trainer_defaults=dict(DEFAULTS),
            save_config_kwargs={"overwrite": True},  # a resumed run goes on in its own folder
            parser_kwargs={
                "prog": "medqlora",
                **parser,
                self.asked: {"prog": f"medqlora {self.asked}", **parser},
            },
            auto_configure_optimizers=False,
            args=take_names(words),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name, kind in _CALLBACKS.items():
            parser.add_lightning_class_args(kind, name)
        parser.add_argument("--compare_base", type=bool, default=True, help="See `medqlora test --help`.")
        parser.link_arguments("compare_base", "model.compare_base")
        parser.add_argument("--resume_anyway", type=bool, default=False, help="See `medqlora fit --help`.")

    def before_seed(self) -> None:
        check_seed(self.config[self.config["subcommand"]]["seed_everything"])

    def before_instantiate_classes(self) -> None:
        options = self.config[self.verb]
        check_callback_classes(options["trainer"]["callbacks"])
        check_classes(options.as_dict(), {"model.optimizer": Optimizer, "model.lr_scheduler": LRScheduler})
        settle_trainer(options)
        check_optimizer_option(options["model"])
        check_scheduler_option(options["model"])
        options["weights_only"] = True  # a checkpoint is data: no pickled code is run
        if self._settle is not None:
            self._settle(options)

    def instantiate_classes(self) -> None:
        """Raises InputError for a class that can't be constructed, as one whose package is not installed."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise not_made(error, self.config[self.verb].as_dict()) or error from error

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
        """Gives the run its folder: a new one, or with `fit --ckpt_path` that of the checkpoint's run."""
        if not self._with_trainer:
            return cast(Trainer, None)
        options = self.config_init[self.verb]["trainer"]
        logs = Path(options.get("default_root_dir") or ".").expanduser() / LOGS
        given = self.value("ckpt_path")
        choose = choose_checkpoint if self.verb == "fit" else evaluated_checkpoint
        chosen = None if given is None else str(given)
        if given is not None or self._into is None:
            chosen = choose(chosen, logs, self.model.backend)
        self.config_init[self.verb]["ckpt_path"] = chosen
        if self.verb == "fit":  # where a fit began is no option of its run: `config.yaml` begins the run anew
            self.config["fit"]["ckpt_path"] = None
        resumed = self.given.run if self.verb == "fit" else None
        folder = self._into if resumed is None else resumed.path
        return make_trainer(super().instantiate_trainer, options, folder)

    @cached_property
    def given(self) -> GivenCheckpoint:
        """The checkpoint of `--ckpt_path`."""
        path = self.value("ckpt_path")
        return GivenCheckpoint(None if path is None else Path(str(path)).expanduser())
