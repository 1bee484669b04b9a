"""The Trainer of a run: checks Lightning's options, and adds this project's logger, strategy and checkpoint files."""

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

#: environment variables that a Jupyter kernel sets for itself and its child processes
_JUPYTER = ("JPY_PARENT_PID", "JPY_SESSION_NAME")


def settle_trainer(options: Namespace) -> None:
    """Checks the Trainer's options; `enable_progress_bar false` becomes `progress.refresh_rate 0`.

    Args:
        options: of a Trainer command, parsed and not yet instantiated; changed in place.

    Raises:
        InputError: a value is refused; names the option and the reason.
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
    """Refuses unsupported callback classes before their options are checked; replaces enumerations by their values.

    Args:
        callbacks: `trainer.callbacks`, parsed and not yet instantiated. Changed in place: YAML can't write an
            enumeration, such as the default of `Timer(interval)`, into the run's `config.yaml`.

    Raises:
        InputError: a callback is not supported.
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
    """An error of Lightning's Trainer as one line that names the option.

    Args:
        error: raised by the constructor.
        options: of `trainer`.
    """
    message = " ".join(str(error).split())
    named = [
        name
        for name, value in options.items()
        if name not in ("accelerator", "devices") and value is not None and re.search(rf"\b{name}\b", message)
    ]
    # Lightning names a class or a package instead
    named += [
        name
        for word, name in (("Timer(", "max_time"), ("transformer_engine", "precision"))
        if word in message
    ]
    if named:
        return InputError(f"--trainer.{named[0]} {options[named[0]]}: {message}")
    return InputError(
        f"--trainer.accelerator {options.get('accelerator')}, --trainer.devices {options.get('devices')}: not on this "
        f"machine ({message}): use --trainer.accelerator auto, or cpu"
    )


def make_trainer(make: Callable[..., Trainer], options: Namespace, resumed: Path | None) -> Trainer:
    """Builds the Trainer of a run.

    Args:
        make: constructs the Trainer from the options and the given changes.
        options: of `trainer`, instantiated.
        resumed: the folder of the run to resume; None for a new run.

    Raises:
        InputError: Lightning refuses an option, or this machine does not support it.
    """
    plugins = _as_list(options.get("plugins"))
    # Lightning appends to the list it receives; the second Trainer below needs an unchanged list
    callbacks = _as_list(options.get("callbacks"))
    bars = [type(callback).__name__ for callback in callbacks if isinstance(callback, ProgressBar)]
    check_strategy(options.get("strategy"))
    if len(bars) > 1:
        raise InputError(f"--trainer.callbacks {', '.join(bars)}: a run has one progress bar: leave one out")
    root = Path(options.get("default_root_dir") or ".").expanduser()
    changes: dict[str, object] = {
        "logger": run_loggers(options.get("logger"), root, resumed),
        "plugins": [*plugins, *environment_plugins(plugins), CheckpointFiles()],
    }
    sharded = options.get("strategy") == "fsdp"
    if sharded:  # Lightning's own fsdp strategy needs GPUs and can't shard a 4-bit base
        changes["strategy"] = "auto"
    try:
        trainer = make(**changes, callbacks=list(callbacks))
        if type(trainer.strategy) is DDPStrategy:  # Lightning's default for several devices
            changes["strategy"] = ShardedBaseStrategy() if sharded else DDPStrategy4bit()
            trainer = make(**changes, callbacks=list(callbacks))
        elif sharded and trainer.world_size == 1:
            say("Note: --trainer.strategy fsdp: there is one device, so nothing is sharded")
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
    """The loggers of a run; the first logger's folder is the run folder.

    Args:
        given: the value of `trainer.logger`.
        root: the parent folder of `lightning_logs`.
        resumed: the folder of the run to resume; None for a new run.
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
    """Creates the folder of a new run before any work; a logger reserves its number only at its first write.

    Returns:
        The folder; None if the logger already has a version, or is no TensorBoard logger.

    Raises:
        InputError: the folder can't be created.
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
            f"--trainer.{option} {logger.save_dir}: a run folder can't be created there ({error.strerror}): create it "
            "with write permission, or name another"
        ) from error
    set_version(logger, folder.name)
    return folder


def environment_plugins(given: Sequence[object]) -> list[LightningEnvironment]:
    """Lightning's plain environment for a process in a SLURM allocation of several tasks that `srun` did not start.

    Lightning reads the allocation's variables and waits for the other tasks. In a notebook, an interactive shell, or a
    batch script that calls Python without `srun`, they never start.

    Args:
        given: the user's plugins; a cluster environment among them is kept.
    """
    if any(isinstance(plugin, ClusterEnvironment) for plugin in given) or not slurm_without_srun(os.environ):
        return []
    say(
        f"SLURM has reserved {os.environ['SLURM_NTASKS']} tasks, but srun did not start this process: it runs alone"
    )
    return [LightningEnvironment()]


def slurm_without_srun(environment: Mapping[str, str]) -> bool:
    """Whether a process runs in a SLURM allocation of several tasks without being one of these tasks.

    `srun` sets SLURM_STEP_NUM_TASKS for the processes that it starts. A batch script has no such variable; the step of
    an interactive shell or a notebook has 1. A Jupyter kernel is never one of several tasks
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
