"""The checkpoint that a verb begins with: the one that is named, or the newest that an unfinished run left."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from medqlora.artifacts import checkpoint
from medqlora.artifacts.checkpoint_files import newest_whole, read_checkpoint, step_of
from medqlora.artifacts.runs import fits, is_alive, read_run
from medqlora.config.check import check_checkpoint
from medqlora.errors import InputError
from medqlora.models.backend import Backend
from medqlora.utils.console import say
from medqlora.utils.slurm import slurm_job

#: tells the other processes of this machine which checkpoint the first one goes on with
_RESUMED = "MEDQLORA_RESUMED"


class GivenCheckpoint:
    """What `--ckpt_path` names.

    Args:
        given: a .ckpt file; None where the option is left out.

    Raises:
        InputError: there is no such file.
    """

    def __init__(self, given: Path | None) -> None:
        if given is not None:
            check_checkpoint(given)
        self.path = given

    @property
    def run(self) -> Path | None:
        """The folder of the run that wrote it; None where it lies elsewhere."""
        if self.path is None or self.path.parent.name != "checkpoints":
            return None
        return self.path.parent.parent

    @cached_property
    def saved(self) -> dict[str, Any] | None:
        """What the checkpoint says of itself, without its weights; None where none is given.

        Raises:
            InputError: the file is damaged, or no checkpoint.
        """
        if self.path is None:
            return None
        whole = read_checkpoint(self.path)
        kept = {key: value for key, value in whole.items() if key in ("global_step", "curve", checkpoint.KEY)}
        # of the callbacks' states only what chose the best
        savers = [
            state for key, state in (whole.get("callbacks") or {}).items() if "AdapterCheckpoint" in key
        ]
        return kept | {"monitor": savers[0].get("monitor") if savers else None}


def check_free(run: Path) -> None:
    """Whether a run can go on in its folder.

    Raises:
        InputError: another process goes on with it at this moment, each would take the other's files away; or the
            folder can't be written.
    """
    record = read_run(run)
    if record is not None and is_alive(record) and record.get("pid") != os.getpid():
        raise InputError(
            f"--ckpt_path: {run} is still running, as process {record['pid']}: wait for it, or end it first"
        )
    for path in (run, run / "checkpoints", run / "config.yaml", *run.glob("events.out.tfevents.*")):
        if path.exists() and not os.access(path, os.W_OK):
            raise InputError(
                f"--ckpt_path: {path} can't be written, and a run goes on in its own folder: let it be written, or "
                "copy the folder and name the copy's checkpoint"
            )


def choose_checkpoint(given: str | None, logs: Path, backend: Backend) -> str | None:
    """The file that a fit goes on with, for "last" the newest whole one of the newest unfinished run.

    Without the option a job that SLURM has requeued goes on with its own run; else it tells of an unfinished run,
    and how to go on with that.

    Args:
        given: `--ckpt_path`.
        logs: where the runs are.
        backend: the base; other bases' runs don't count.

    Raises:
        InputError: "last", and there is no unfinished run on this base, or it left no whole checkpoint.
    """
    if given == "last":
        if _RESUMED in os.environ and "LOCAL_RANK" in os.environ:
            return os.environ[_RESUMED]  # the first process has begun it
        return _last(logs, backend)
    if given is None and logs.is_dir():
        if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
            own = _of_this_job(logs, backend)
            if own is not None:
                return own
        _tell_of_unfinished(logs, backend)
    return given


def _last(logs: Path, backend: Backend) -> str:
    if not logs.is_dir():
        raise InputError(f"--ckpt_path last: there are no runs in {logs}: leave the option out")
    found = fits(logs, backend.identity())
    unfinished = next((folder for folder, record in found if record.get("state") != "finished"), None)
    if unfinished is None:
        raise InputError(
            f"--ckpt_path last: {logs} holds no unfinished fit on the base '{backend.base}': leave "
            "the option out, or name a checkpoint"
        )
    whole = newest_whole(unfinished / "checkpoints")
    if whole is None:
        raise InputError(
            f"--ckpt_path last: {unfinished}, the newest unfinished run, left no whole checkpoint: leave the "
            "option out, or name the checkpoint of another run"
        )
    say(f"Going on with {whole}, of step {step_of(whole)}")
    os.environ[_RESUMED] = str(whole)
    return str(whole)


def _of_this_job(logs: Path, backend: Backend) -> str | None:
    """The newest whole checkpoint of the fit that this SLURM job began before it was requeued."""
    for folder, record in fits(logs, backend.identity()):
        if record.get("slurm_job") == slurm_job() and record.get("state") != "finished":
            whole = newest_whole(folder / "checkpoints")
            if whole is not None:
                say(f"SLURM has started this job again: going on with {whole}, of step {step_of(whole)}")
                return str(whole)
    return None


def _tell_of_unfinished(logs: Path, backend: Backend) -> None:
    newest = next(iter(fits(logs, backend.identity())), None)
    if newest is None or newest[1].get("state") == "finished":
        return
    whole = newest_whole(newest[0] / "checkpoints")
    if whole is not None:
        say(
            f"Note: {newest[0]} was not finished (step {step_of(whole)}); this is a new run. To go on with "
            "that one, add --ckpt_path last"
        )
