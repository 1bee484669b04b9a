"""Options of Lightning's Trainer that a run of ours settles, or can't be without."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from medqlora.errors import InputError
from medqlora.runs import new_run_folder
from medqlora.training.event_files import EventFiles
from medqlora.training.stage_start import OWN_FOLDER

_NEEDED = {
    "logger": "a run's folder is where its logger writes",
    "enable_checkpointing": "what a fit leaves is a checkpoint's adapter",
}
#: option → the least that Lightning can count with; it would find out after the model is loaded, or say otherwise
_LEAST = {
    "max_epochs": -1,
    "max_steps": -1,
    "num_nodes": 1,
    "log_every_n_steps": 1,
    "check_val_every_n_epoch": 1,
}


def settle_trainer(options: Any) -> None:
    """Refuses what a run can't do without; a bar that is switched off is one that never refreshes.

    Args:
        options: a verb's, parsed and not yet instantiated; changed in place.

    Raises:
        InputError: names the option and the reason.
    """
    trainer = options["trainer"]
    if trainer["barebones"]:
        raise InputError("--trainer.barebones true: it leaves out what a run is for: leave it out")
    for name, why in _NEEDED.items():
        if trainer[name] is False and not trainer["fast_dev_run"]:
            raise InputError(f"--trainer.{name} false: {why}: leave it out")
    for name, least in _LEAST.items():
        if trainer[name] is not None and trainer[name] < least:
            raise InputError(f"--trainer.{name} {trainer[name]}: it has to be at least {least}")
    if trainer["val_check_interval"] == 0:
        raise InputError(
            "--trainer.val_check_interval 0: it has to be above 0, or left out for once an epoch"
        )
    if trainer["enable_progress_bar"] is False:
        options["progress"]["refresh_rate"], trainer["enable_progress_bar"] = 0, None


def run_loggers(given: Any, root: Path, resumed: Path | None) -> list[Logger] | Logger | bool:
    """The loggers, of which the first one's folder is the run's.

    Args:
        given: `trainer.logger`.
        root: what runs' `lightning_logs` lies in.
        resumed: the folder of the run that goes on; None for a new one.
    """
    if given is False:
        return False
    others: list[Logger] = []
    if given not in (None, True):
        others = list(given) if isinstance(given, (list, tuple)) else [given]
    if others and isinstance(others[0], OWN_FOLDER):
        return others
    if resumed is None:
        return [EventFiles(root, name="lightning_logs"), *others]
    return [EventFiles(resumed.parent.parent, name=resumed.parent.name, version=resumed.name), *others]


def make_folder(logger: Any) -> Path | None:
    """Makes a new run's folder before any work; a logger's own number is a guess until it writes.

    Returns:
        The folder; None where the logger has a name for it already, or is no TensorBoard's.

    Raises:
        InputError: it can't be made.
    """
    if not isinstance(logger, TensorBoardLogger) or getattr(logger, "_version", None) is not None:
        return None
    root = Path(logger.root_dir)
    ours = isinstance(logger, EventFiles)
    try:
        if not ours:  # Lightning makes it whole; under our own root a name is mistyped rather than new
            root.parent.mkdir(parents=True, exist_ok=True)
        folder = new_run_folder(root)
    except OSError as error:
        option = "default_root_dir" if ours else "logger.save_dir"
        raise InputError(
            f"--trainer.{option} {logger.save_dir}: no run's folder can be made there ({error.strerror}): make it and "
            "let it be written in, or name another"
        ) from error
    logger._version = folder.name
    return folder
