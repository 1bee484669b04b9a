"""The checkpoint that a verb begins with: the named one, or the newest of an unfinished run."""

import os
from functools import cached_property
from pathlib import Path

from medqlora.artifacts.checkpoint_files import (
    SavedCheckpoint,
    newest_whole,
    problem,
    read_checkpoint,
    step_of,
)
from medqlora.artifacts.run_folder import RunFolder
from medqlora.artifacts.runs import StoredRun, fits, is_alive
from medqlora.callbacks.adapter_contents import saver_states
from medqlora.config.ranges import EVALUATED, RESUMED, check_checkpoint
from medqlora.errors import InputError
from medqlora.models.backend import Backend
from medqlora.utils.cache import quoted_base
from medqlora.utils.console import say
from medqlora.utils.slurm import slurm_job

#: the variable that passes the first process's choice on to the other processes of this machine
_RESUMED = "MEDQLORA_RESUMED"


class GivenCheckpoint:
    """The checkpoint of `--ckpt_path`.

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
    def run(self) -> RunFolder | None:
        """The run that wrote it; None where the file lies elsewhere."""
        return None if self.path is None else RunFolder.of_checkpoint(self.path)

    @cached_property
    def saved(self) -> SavedCheckpoint | None:
        """The checkpoint without its weights and states, to save memory; None without the option.

        Raises:
            InputError: the file is damaged, or no checkpoint.
        """
        if self.path is None:
            return None
        whole = read_checkpoint(self.path)
        kept: SavedCheckpoint = {"callbacks": saver_states(whole)}
        for key in ("global_step", "curve", "medqlora"):
            if key in whole:
                kept[key] = whole[key]
        return kept


def check_free(run: RunFolder) -> None:
    """Checks that a run can go on in its folder.

    Raises:
        InputError: another process goes on with it now, and each would remove the other's files; or the folder can't
            be written.
    """
    record = run.read_record()
    if record is not None and is_alive(record) and record.get("pid") != os.getpid():
        raise InputError(
            f"--ckpt_path: {run.path} is still running, as process {record['pid']}: wait for it, or end it first"
        )
    for path in (run.path, run.checkpoints, run.config, *run.events()):
        if path.exists() and not os.access(path, os.W_OK):
            raise InputError(
                f"--ckpt_path: {path} can't be written, and a run goes on in its own folder: let it be written, or "
                "copy the folder and name the copy's checkpoint"
            )


def choose_checkpoint(given: str | None, logs: Path, backend: Backend) -> str | None:
    """The file that a fit resumes; None for a new run.

    "last" and "best" are the newest and the best checkpoint of the newest unfinished run; "auto" is "last", or a new
    run where none is unfinished. Without the option, a job that SLURM has requeued resumes its own run. Other fits
    report an unfinished run, and how to resume it.

    Args:
        given: `--ckpt_path`.
        logs: the log folder.
        backend: the base model; runs on another one don't count.

    Raises:
        InputError: "last" or "best", and there is no unfinished run on this base model, or it left no undamaged
            checkpoint.
    """
    if given in RESUMED:
        if _RESUMED in os.environ and "LOCAL_RANK" in os.environ:
            return os.environ[_RESUMED] or None  # the first process has begun it
        chosen = _unfinished(str(given), logs, backend)
        os.environ[_RESUMED] = chosen or ""
        return chosen
    if given is None and logs.is_dir():
        if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
            own = _of_this_job(logs, backend)
            if own is not None:
                return own
        _report_unfinished(logs, backend)
    return given


def evaluated_checkpoint(given: str | None, logs: Path, backend: Backend) -> str | None:
    """The file whose weights are evaluated: for "last" and "best" that of the newest run, finished or not.

    Raises:
        InputError: "last" or "best", and no run on this base model left such a checkpoint.
    """
    if given not in EVALUATED:
        return given
    for run in fits(logs, backend.identity()):
        if path := _checkpoint(str(given), run.folder):
            return str(path)
    raise InputError(
        f"--ckpt_path {given}: {logs} holds no run on {quoted_base(backend.base)} with a whole checkpoint: train one "
        "with `medqlora fit`, or name a .ckpt file"
    )


def best_checkpoint(run: RunFolder) -> Path | None:
    """The undamaged checkpoint of the best score in a run's folder; the newest without one, which is said."""
    newest = newest_whole(run.checkpoints)
    if newest is None:
        return None
    for state in saver_states(read_checkpoint(newest)).values():
        if not state.get("best_model_path"):
            continue  # no score chose one
        best = run.checkpoints / Path(str(state["best_model_path"])).name
        if (damage := problem(best)) is None:
            return best
        say(
            f"The best checkpoint, {best}, can't be taken ({damage}): the newest one, {newest.name}, stands in for it"
        )
    return newest


def _checkpoint(word: str, run: RunFolder) -> Path | None:
    """The file that "last", "auto" or "best" means in a run's folder; None where there is no undamaged one."""
    return best_checkpoint(run) if word == "best" else newest_whole(run.checkpoints)


def _unfinished(word: str, logs: Path, backend: Backend) -> str | None:
    """The checkpoint of the newest unfinished run; None for "auto" where a new run is to begin."""
    found = fits(logs, backend.identity()) if logs.is_dir() else []
    unfinished = [run for run in found if not run.finished]
    for run in unfinished[:1]:
        if path := _checkpoint(word, run.folder):
            say(f"Going on with {path}, of step {step_of(path)}")
            return str(path)
    if word == "auto":
        say(f"--ckpt_path auto: {logs} holds no unfinished run with a whole checkpoint: a new run begins")
        return None
    option = f"--ckpt_path {word}"
    if not logs.is_dir():
        raise InputError(f"{option}: there are no runs in {logs}: leave the option out")
    if not unfinished:
        raise InputError(
            f"{option}: {logs} holds no unfinished fit on {quoted_base(backend.base)}: leave the option out, or name a "
            "checkpoint"
        )
    raise InputError(
        f"{option}: {unfinished[0].folder.path}, the newest unfinished run, left no whole checkpoint: leave the "
        "option out, or name the checkpoint of another run"
    )


def _of_this_job(logs: Path, backend: Backend) -> str | None:
    """The newest undamaged checkpoint of the fit that this SLURM job began before it was requeued."""
    for run in fits(logs, backend.identity()):
        if run.record.get("slurm_job") == slurm_job() and not run.finished:
            path = newest_whole(run.folder.checkpoints)
            if path is not None:
                say(f"SLURM has started this job again: going on with {path}, of step {step_of(path)}")
                return str(path)
    return None


def _report_unfinished(logs: Path, backend: Backend) -> None:
    newest: StoredRun | None = next(iter(fits(logs, backend.identity())), None)
    if newest is None or newest.finished:
        return
    path = newest_whole(newest.folder.checkpoints)
    if path is not None:
        say(
            f"Note: {newest.folder.path} was not finished (step {step_of(path)}); this is a new run. To go on with "
            "that one, add --ckpt_path last"
        )
