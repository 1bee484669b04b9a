"""One run of a verb: built from its words, checked, executed, and taken back where it failed before its first step."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from jsonargparse import ArgumentError

from medqlora.artifacts import checkpoint, curve
from medqlora.artifacts.checkpoint_files import clear
from medqlora.artifacts.run_folder import RunFolder
from medqlora.callbacks import EvaluationReport, RunRecorder, Signals, saver_of
from medqlora.callbacks.adapter_contents import ChosenBy
from medqlora.commands.evaluated import choose_weights
from medqlora.commands.given_checkpoint import GivenCheckpoint, check_free
from medqlora.commands.lightning_cli import MedQLoRACLI
from medqlora.commands.next_steps import after_fit, best_line
from medqlora.commands.option_errors import one_line
from medqlora.commands.trainer_options import make_folder
from medqlora.compat.lightning import fast_dev_run
from medqlora.config.schema import options
from medqlora.errors import InputError
from medqlora.trainer.stage_start import Stage
from medqlora.utils.console import say
from medqlora.utils.progress import phase

if TYPE_CHECKING:
    from jsonargparse import Namespace


def build(words: list[str], *, with_trainer: bool = True) -> MedQLoRACLI:
    """Module, datamodule and Trainer of a verb; nothing is read or written.

    Args:
        words: the verb and its options.
        with_trainer: also build the Trainer.

    Raises:
        InputError: an option is wrong.
    """
    return Run(words).build(with_trainer=with_trainer)


class Run:
    """A verb from its words to its end.

    Args:
        words: the verb and its options.
        command: what the user typed, where it wasn't the verb.
        settle: called with the parsed options before anything is constructed; may change them.
        into: folder of a new run; None for the next `version_N` of the log folder.

    Attributes:
        cli: what was parsed and built; set by `build`, as `trainer`, `model` and `datamodule` are.
    """

    cli: MedQLoRACLI

    def __init__(
        self,
        words: list[str],
        command: str | None = None,
        settle: "Callable[[Namespace], None]" = lambda options: None,
        into: Path | None = None,
    ) -> None:
        self.words = words
        self._into = into
        self._settle = settle
        self.verb = words[0]
        self.command = command or self.verb
        #: folders that are made for the run, the run's own first
        self._made: list[Path] = []
        self._is_new = False

    # ---- building ------------------------------------------------------------------------------------

    def build(self, *, with_trainer: bool = True) -> MedQLoRACLI:
        """Parses the words and builds what they name.

        Raises:
            InputError: an option is wrong.
        """
        try:
            with phase("Building the run"):
                self.cli = MedQLoRACLI(self.words, self._settle, with_trainer=with_trainer, into=self._into)
        except ArgumentError as error:
            raise InputError(one_line(str(error), options(self.verb), self.words)) from error
        self.trainer, self.model, self.datamodule = self.cli.trainer, self.cli.model, self.cli.datamodule
        return self.cli

    @property
    def given(self) -> GivenCheckpoint:
        """The checkpoint of `--ckpt_path`."""
        return self.cli.given

    @property
    def adapter_folder(self) -> Path | None:
        """Where a finished fit left its best adapter."""
        return saver_of(self.trainer).adapter_folder

    @property
    def report(self) -> EvaluationReport:
        """The report of a finished test."""
        return next(one for one in self.cli.trainer.callbacks if isinstance(one, EvaluationReport))  # type: ignore[attr-defined]

    # ---- running -------------------------------------------------------------------------------------

    def execute(self) -> "Run":
        """Builds the run, starts it, runs the verb and says what it left.

        Raises:
            InputError: options, data or models are wrong; an empty run folder has been removed.
        """
        self.build()
        try:
            self.start()
            self.perform()
            self.finish()
        except InputError as error:
            self._end_in_time(error)
            self._remove_empty_run()
            raise
        except BaseException as error:
            self._end_in_time(error)
            self._remove_empty_folder()
            raise
        return self

    def start(self) -> None:
        """Prepares the run, compares a fit with its checkpoint, and attaches the callbacks of a fit.

        Raises:
            InputError: something is wrong.
        """
        self.prepare()
        if self.verb == "fit":
            self.resume()
        if self.verb in ("fit", "predict"):
            # first, so that the record stands when another callback fails
            self.trainer.callbacks.insert(0, RunRecorder())  # type: ignore[attr-defined]
        if self.verb == "fit":
            self.trainer.callbacks.append(Signals())  # type: ignore[attr-defined]

    def prepare(self) -> None:
        """Makes the run's folder, reads the data and checks everything up to the weights.

        Raises:
            InputError: something is wrong.
        """
        if self.trainer.global_rank == 0:  # the first process makes the run's folder, and tells its name
            root = Path(str(getattr(self.trainer.logger, "root_dir", "."))).absolute()
            missing = [path for path in (root, *root.parents) if not path.exists()]
            made = make_folder(self.trainer.logger)
            self._made = [] if made is None else [made, made.parent, *missing]
            folder = Path(str(getattr(self.trainer.logger, "log_dir", "")))
            # a logger of the user's own may name an existing folder: it is not the run's to remove
            self._is_new = made is not None or not folder.exists()
        self.model.trainer = self.trainer
        self.datamodule.trainer = self.trainer
        self.trainer.strategy.connect(self.model)  # as the Trainer does, so that it knows the module
        self.datamodule.before_reading = self._choose_weights
        self.datamodule.start(cast(Stage, self.verb))

    def perform(self) -> None:
        """Calls the Trainer's method."""
        if self.verb == "test":  # the report's table is printed, and not Lightning's too
            self.cli.run_verb(verbose=False)
        elif self.verb != "predict":
            self.cli.run_verb()
        elif (
            self.datamodule.test
        ):  # what is answered already needs no model; the answers go to a file, not to memory
            self.cli.run_verb(return_predictions=False)
        else:
            self._remove_empty_folder()

    def finish(self) -> None:
        """Says what a fit left, and what to type next."""
        if self.verb != "fit":
            return
        saver, log_dir = saver_of(self.trainer), self.trainer.log_dir
        say("")
        if fast_dev_run(self.trainer) or log_dir is None:
            say("The trial run (--trainer.fast_dev_run) came to its end; it leaves no files")
            return
        folder = Path(log_dir)
        if saver.best_model_score is not None:
            best = float(saver.best_model_score)
            part = f", {sample}" if (sample := self.datamodule.samples.get("dev")) else ""
            checkpoint = Path(saver.best_model_path).name
            say(best_line(f"{saver.monitor}{part}", best, self.model.majority, checkpoint))
        say(f"Run:     {folder}")
        if saver.adapter_folder is not None:
            say(f"Adapter: {saver.adapter_folder}")
        if self.command == "fit":
            data = self.datamodule
            tests = bool(data.held_out or data.benchmarks)
            for line in after_fit(RunFolder(folder), saver.adapter_folder, tests=tests):
                say(line)

    def newest_step(self) -> int | None:
        """The optimizer step of the newest checkpoint that this fit has written; None without one."""
        begun = hasattr(self, "trainer") and self.verb == "fit"
        return saver_of(self.trainer).newest_step if begun else None

    # ---- weights ---------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Compares the run with its checkpoint's, and cuts the curve back to the checkpoint.

        Raises:
            InputError: they differ in an option that defines the run, or its folder is in use.
        """
        saved, folder = self.given.saved, self.given.run
        first = self.trainer.global_rank == 0
        if saved is not None and folder is not None and first:
            check_free(folder)
            clear(folder.checkpoints)  # nothing may be left to be saved
        self.compare_with_checkpoint()
        if saved is not None and folder is not None and "curve" in saved and first:
            curve.cut(folder.path, saved["curve"])

    def compare_with_checkpoint(self) -> None:
        """Compares the run's definition with that of `--ckpt_path`; without the option there is nothing to compare.

        Raises:
            InputError: values differ, and --resume_anyway is not given.
        """
        saved = self.given.saved
        if saved is None:
            return
        now = self.model.definition(self.datamodule, str(self.trainer.precision))
        record, monitor = checkpoint.record_of(saved), ChosenBy.of_checkpoint(saved).score
        if monitor is not None and "definition" in record and self.datamodule.dev:
            # scores of different kinds can't be compared: the best so far would be forgotten
            now["--checkpoint.monitor"] = saver_of(self.trainer).monitor
            record = {**record, "definition": {**record["definition"], "--checkpoint.monitor": monitor}}
        if not self.datamodule.dev or (monitor or "").startswith(("val/loss", "val/likelihood")):
            now.pop(
                checkpoint.GENERATED_TOKENS, None
            )  # no score of a text decides which checkpoint is the best
        different = checkpoint.check_definition(record, now, anyway=self._resume_anyway)
        if different:
            say(f"Going on with other values: {'; '.join(different)}")

    @property
    def _resume_anyway(self) -> bool:
        return bool(self.cli.value("resume_anyway"))

    def _choose_weights(self) -> None:
        """Checks that a checkpoint is of this base and these adapters; without one evaluates the newest adapter."""
        if self.given.saved is not None:
            anyway = self.verb == "fit" and self._resume_anyway
            checkpoint.check(self.given.saved, self.model.backend, self.model.lora, anyway=anyway)
        if self.verb != "fit":
            data = self.datamodule
            source = data.source if self.verb != "predict" or data.questions is None else None
            logs = Path(str(self.trainer.log_dir)).parent
            choose_weights(self.model, data.prompt_name, self.given, logs, source)

    # ---- after a failure -------------------------------------------------------------------------------

    def _end_in_time(self, error: BaseException) -> None:
        """Ends this process soon, if it is one of several: its end may not wait for the others.

        Lightning destroys NCCL's group as the process ends, which waits until the others do too
        (https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api/comms.html#ncclcommdestroy); they may be waiting
        for this one.
        """
        if self.trainer.world_size > 1:
            from medqlora.distributed.processes import end_in_time

            code = 2 if isinstance(error, InputError) else getattr(error, "exit_code", 1)
            end_in_time(self.trainer.strategy, code)

    def _remove_empty_run(self) -> None:
        """Removes the folder of a run that ended on wrong input before its first step."""
        if self.trainer.global_rank != 0 or not self._is_new:
            return
        folder = RunFolder(Path(str(getattr(self.trainer.logger, "log_dir", ""))))
        begun = self.trainer.global_step > 0 or folder.checkpoints.exists()
        if folder.is_named_as_a_run and not begun:
            shutil.rmtree(folder.path, ignore_errors=True)
        self._remove_empty_folder()

    def _remove_empty_folder(self) -> None:
        """Removes the folder that was made for the run, where nothing was written into it."""
        for path in self._made:
            with contextlib.suppress(OSError):
                path.rmdir()
