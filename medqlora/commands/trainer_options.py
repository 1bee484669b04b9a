"""Options of Lightning's Trainer that a run of ours settles, or can't be without."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path

from jsonargparse import Namespace
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from medqlora.artifacts.run_folder import LOGS, RunFolder
from medqlora.callbacks.checkpoint_io import CheckpointFiles
from medqlora.callbacks.event_files import EventFiles
from medqlora.commands.classes import named_object
from medqlora.compat.lightning_callbacks import has_version, set_version
from medqlora.config.trainer import check_values
from medqlora.distributed.processes import DDPStrategy4bit, ShardedBaseStrategy
from medqlora.errors import InputError
from medqlora.trainer.checks import OWN_FOLDER, check_callback
from medqlora.training.checks.options import check_strategy
from medqlora.utils.console import say

#: what a Jupyter kernel sets for itself and for what it starts
_JUPYTER = ("JPY_PARENT_PID", "JPY_SESSION_NAME")


def settle_trainer(options: Namespace) -> None:
    """Refuses what a run can't do without; a bar that is switched off is one that never refreshes.

    Args:
        options: a verb's, parsed and not yet instantiated; changed in place.

    Raises:
        InputError: names the option and the reason.
    """
    trainer = options["trainer"]
    check_values(trainer)
    if trainer["enable_progress_bar"] is False:
        if bar := _own_bar(trainer["callbacks"]):
            raise InputError(
                f"--trainer.enable_progress_bar false: --trainer.callbacks has {bar}: leave one out"
            )
        options["progress"]["refresh_rate"], trainer["enable_progress_bar"] = 0, None


def _own_bar(callbacks: object) -> str | None:
    """The progress bar among the callbacks' classes, which replaces ours; None without one."""
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        named = named_object(callback["class_path"]) if isinstance(callback, Namespace) else None
        if isinstance(named, type) and issubclass(named, ProgressBar):
            return named.__name__
    return None


def check_callback_classes(callbacks: object) -> None:
    """Refuses callbacks by their class, before anything is said of their options; words for what YAML can't write.

    Args:
        callbacks: `trainer.callbacks`, parsed and not yet instantiated. Enumerations in it, which are defaults as
            that of `Timer(interval)`, become their values: the run's `config.yaml` could not be written.

    Raises:
        InputError: one of them is refused.
    """
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if not isinstance(callback, Namespace) or "class_path" not in callback:
            continue
        named = named_object(callback["class_path"])
        if not isinstance(named, type):
            continue
        check_callback(named)
        for key, value in list(callback.items()):
            if isinstance(value, Enum):
                callback[key] = value.value


def trainer_refusal(error: Exception, options: Mapping[str, object]) -> InputError:
    """What Lightning's Trainer says of an option of its own, with the option's name.

    Args:
        error: that its constructor raised.
        options: `trainer`'s.
    """
    said = " ".join(str(error).split())
    named = [
        name
        for name, value in options.items()
        if name not in ("accelerator", "devices") and value is not None and re.search(rf"\b{name}\b", said)
    ]
    # Lightning names a class or a package instead
    named += [
        name for word, name in (("Timer(", "max_time"), ("transformer_engine", "precision")) if word in said
    ]
    if named:
        return InputError(f"--trainer.{named[0]} {options[named[0]]}: {said}")
    return InputError(
        f"--trainer.accelerator {options.get('accelerator')}, --trainer.devices {options.get('devices')}: not on this "
        f"machine ({said}): use --trainer.accelerator auto, or cpu"
    )


def make_trainer(make: Callable[..., Trainer], options: Namespace, resumed: Path | None) -> Trainer:
    """Builds the Trainer of a run.

    Args:
        make: constructs it from the options, some of them changed.
        options: `trainer`'s, instantiated.
        resumed: the folder of the run that goes on; None for a new one.

    Raises:
        InputError: Lightning refuses an option, or it can't be used here.
    """
    plugins = _as_list(options.get("plugins"))
    # Lightning adds its own to the list that it is given: a second Trainer would have them twice
    callbacks = _as_list(options.get("callbacks"))
    bars = [type(one).__name__ for one in callbacks if isinstance(one, ProgressBar)]
    check_strategy(options.get("strategy"))
    if len(bars) > 1:
        raise InputError(f"--trainer.callbacks {', '.join(bars)}: a run has one progress bar: leave one out")
    root = Path(options.get("default_root_dir") or ".").expanduser()
    changes: dict[str, object] = {
        "logger": run_loggers(options.get("logger"), root, resumed),
        "plugins": [*plugins, *environment_plugins(plugins), CheckpointFiles()],
    }
    sharded = options.get("strategy") == "fsdp"
    if sharded:  # Lightning's own fsdp is for GPUs alone, and not for a 4-bit base
        changes["strategy"] = "auto"
    try:
        trainer = make(**changes, callbacks=list(callbacks))
        if type(trainer.strategy) is DDPStrategy:  # what Lightning takes for several devices
            changes["strategy"] = ShardedBaseStrategy() if sharded else DDPStrategy4bit()
            trainer = make(**changes, callbacks=list(callbacks))
        elif sharded and trainer.world_size == 1:
            say("Note: --trainer.strategy fsdp: there is one device, and nothing to share out")
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        raise trainer_refusal(error, options.as_dict()) from error
    half = str(options.get("precision")) in ("16", "16-mixed")
    if half and trainer.precision != "16-mixed":  # without CUDA Lightning takes bf16-mixed instead
        raise InputError("--trainer.precision 16-mixed needs a CUDA GPU: use 32 or bf16-mixed on a CPU")
    return trainer


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def run_loggers(
    given: bool | Logger | Sequence[Logger] | None, root: Path, resumed: Path | None
) -> list[Logger] | bool:
    """The loggers, of which the first one's folder is the run's.

    Args:
        given: `trainer.logger`.
        root: what runs' `lightning_logs` lies in.
        resumed: the folder of the run that goes on; None for a new one.
    """
    if given is False:
        return False
    others: list[Logger] = []
    if isinstance(given, Logger):
        others = [given]
    elif isinstance(given, Sequence):
        others = list(given)
    if others and isinstance(others[0], OWN_FOLDER):
        return others
    if resumed is None:
        return [EventFiles(root, name=LOGS), *others]
    return [EventFiles(resumed.parent.parent, name=resumed.parent.name, version=resumed.name), *others]


def make_folder(logger: Logger | None) -> Path | None:
    """Makes a new run's folder before any work; a logger's own number is a guess until it writes.

    Returns:
        The folder; None where the logger has a name for it already, or is no TensorBoard's.

    Raises:
        InputError: it can't be made.
    """
    if not isinstance(logger, TensorBoardLogger) or has_version(logger):
        return None
    root = Path(logger.root_dir)
    ours = isinstance(logger, EventFiles)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        folder = RunFolder.new(root).path
    except OSError as error:
        option = "default_root_dir" if ours else "logger.save_dir"
        raise InputError(
            f"--trainer.{option} {logger.save_dir}: no run's folder can be made there ({error.strerror}): make it and "
            "let it be written in, or name another"
        ) from error
    set_version(logger, folder.name)
    return folder


def environment_plugins(given: Sequence[object]) -> list[LightningEnvironment]:
    """Lightning's plain environment where SLURM has reserved several tasks, and `srun` has not started this process.

    From the allocation's variables Lightning takes one process for one of several, and waits for the others: in a
    notebook, in an interactive shell, and in a batch script that calls Python without `srun`.

    Args:
        given: the user's own plugins; an environment among them is left alone.
    """
    if any(isinstance(one, ClusterEnvironment) for one in given) or not slurm_without_srun(os.environ):
        return []
    say(
        f"SLURM has reserved {os.environ['SLURM_NTASKS']} tasks, and this process was not started by srun for them: it "
        "waits for no other"
    )
    return [LightningEnvironment()]


def slurm_without_srun(environment: Mapping[str, str]) -> bool:
    """Whether a process is in a SLURM allocation of several tasks, and is not one of as many processes.

    `srun` sets SLURM_STEP_NUM_TASKS for what it starts; a batch script has none, and the step of an interactive
    shell, or of a notebook, has 1. A Jupyter kernel is never one of several
    (https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES).
    """
    tasks = _number(environment.get("SLURM_NTASKS"))
    if tasks < 2 or "TORCHELASTIC_RUN_ID" in environment:
        return False
    if "SLURM_PROCID" not in environment or any(name in environment for name in _JUPYTER):
        return True
    if "SLURM_STEP_NUM_TASKS" in environment:
        return _number(environment["SLURM_STEP_NUM_TASKS"]) < tasks
    return "SLURM_STEP_ID" not in environment


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
