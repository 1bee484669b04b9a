"""The training of a cross-validation's folds: in this process, or each in a process of its own."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from medqlora.artifacts.fold_group import FoldGroup
from medqlora.errors import InputError
from medqlora.utils.console import say

#: seconds between looks at the processes
_LOOK_S = 0.1
#: the variable that passes the first process's checkpoint on to the other processes of a fold's run
_RESUMED = "MEDQLORA_FOLD_RESUMED"


def train_folds(
    group: FoldGroup, folds: Sequence[int], words: list[str], *, at_once: int, in_process: bool
) -> None:
    """Trains the folds that are not finished.

    Args:
        group: the folder.
        folds: in their order.
        words: the options of each run, without the fold.
        at_once: folds side by side.
        in_process: train one after another in this process.

    Raises:
        InputError, FitError, Interrupted: as `medqlora.commands.verbs.run`.
        RuntimeError: the process of a fold ended with an error.
    """
    named = _named_gpus()
    left = []
    for fold in folds:
        if group.is_finished(fold):
            say(f"Fold {fold}: trained already, in {group.run(fold).path}")
        else:
            left.append(fold)
    if in_process:
        for fold in left:
            say(f"\nFold {fold} ({folds.index(fold) + 1} of {len(folds)})")
            train_fold(group, fold, words)
    elif left:
        _in_processes(group, left, words, _gpus(at_once, words, named))


def train_fold(group: FoldGroup, fold: int, words: list[str]) -> None:
    """Trains one fold in its folder of the group, from its newest whole checkpoint where it has one.

    Raises:
        InputError, FitError, Interrupted: as `medqlora.commands.verbs.run`.
    """
    from medqlora.commands.verbs import execute, prepared

    run = group.run(fold)
    first = "LOCAL_RANK" not in os.environ
    if first:
        os.environ[_RESUMED] = _newest(group, fold)
    given = [f"--data.source.fold={fold}"]
    if os.environ.get(_RESUMED):
        given.append(f"--ckpt_path={os.environ[_RESUMED]}")
    begun = prepared(["fit", *words, *given], "fit --folds", into=run.path)
    execute(begun)
    if first and not group.is_finished(fold):
        raise RuntimeError(f"fold {fold} ended, and left no adapter in {run.adapter}")
    del begun
    gc.collect()  # trainer and module hold each other
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _newest(group: FoldGroup, fold: int) -> str:
    """The checkpoint that a fold goes on from; "" for one that begins, whose folder is then empty.

    Raises:
        InputError: another process trains it now.
    """
    from medqlora.artifacts.checkpoint_files import newest_whole, step_of
    from medqlora.commands.given_checkpoint import check_free

    run = group.run(fold)
    if not run.path.is_dir():
        return ""
    check_free(run)
    newest = newest_whole(run.checkpoints)
    if newest is None:  # it ended before its first checkpoint: nothing is lost
        shutil.rmtree(run.path)
        return ""
    say(f"Going on with {newest}, of step {step_of(newest)}")
    return str(newest)


class _Process(NamedTuple):
    """The process of a fold; `gpu` is None where it chooses itself."""

    fold: int
    gpu: str | None
    process: "subprocess.Popen[bytes]"


def _in_processes(
    group: FoldGroup, folds: Sequence[int], words: list[str], shared_out: Sequence[str | None]
) -> None:
    """Trains each fold in a process of its own, as many side by side as there are entries of `shared_out`: GPUs."""
    gpus, at_once = deque(shared_out), len(shared_out)
    waiting, running = deque(folds), list[_Process]()
    with ExitStack() as files:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    running.append(
                        _started(group, waiting.popleft(), words, gpus.popleft(), at_once > 1, files)
                    )
                ended = [one for one in running if one.process.poll() is not None]
                for one in ended:
                    running.remove(one)
                    gpus.append(one.gpu)
                    _check(group, one)
                if not ended:
                    time.sleep(_LOOK_S)
        finally:
            # each saves a checkpoint, and ends; Ctrl-C did not reach it, since a second signal would cut that short
            for one in running:
                one.process.send_signal(signal.SIGTERM)
            for one in running:
                one.process.wait()


def _started(
    group: FoldGroup, fold: int, words: list[str], gpu: str | None, logged: bool, files: ExitStack
) -> _Process:
    environment = {**os.environ, **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})}
    start = [sys.executable, "-m", "medqlora.commands.fold_worker", str(os.getpid())]
    command = [*start, str(group.path), str(fold), *words]
    where = "" if gpu is None else f" on GPU {gpu}"
    if not logged:
        say(f"\nFold {fold}{where}")
        return _Process(fold, gpu, subprocess.Popen(command, env=environment, start_new_session=True))
    output = files.enter_context(group.log(fold).open("ab"))
    process = subprocess.Popen(
        [*command, "--trainer.devices=1"],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    say(f"Fold {fold}: started{where}, process {process.pid}; it writes {group.log(fold)}")
    return _Process(fold, gpu, process)


def _check(group: FoldGroup, one: _Process) -> None:
    """Raises for a fold that ended with an error."""
    code, log = one.process.returncode, group.log(one.fold)
    if code == 0 and group.is_finished(one.fold):
        say(f"Fold {one.fold}: trained")
        return
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    last = lines[-1] if lines else f"its process ended with {code}"
    if code == 2:
        raise InputError(f"fold {one.fold}: {last.removeprefix('medqlora: error: ')}")
    raise RuntimeError(
        f"fold {one.fold}: {last}; the other folds keep their checkpoints (--ckpt_path last goes on)"
    )


def _named_gpus() -> list[str] | None:
    """The GPUs of CUDA_VISIBLE_DEVICES; None where it is not set.

    It may name a GPU several times: so many folds share it. CUDA finds no GPU in such a list, so this process, which
    scores the folds afterwards, has each name once from here on.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return None
    gpus = [name.strip() for name in named.split(",") if name.strip()]
    if len(once := dict.fromkeys(gpus)) < len(gpus):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(once)
    return gpus


def _gpus(at_once: int, words: list[str], named: list[str] | None) -> list[str | None]:
    """A GPU for each fold that runs side by side; None for each on a CPU, and where one fold has them all.

    Raises:
        InputError: there are fewer GPUs than folds side by side.
    """
    from medqlora.config.words import CommandLine

    if at_once == 1 or CommandLine.parse(words).value("trainer.accelerator") == "cpu":
        return [None] * at_once
    if named is None:
        import torch

        named = [str(number) for number in range(torch.cuda.device_count())]
    if len(named) < at_once:
        raise InputError(
            f"--folds_at_once {at_once}: there are {len(named)} GPUs here: use at most as many, or name a GPU several "
            "times in CUDA_VISIBLE_DEVICES, so that folds of a small base share it"
        )
    return [*named[:at_once]]


def worker(words: list[str]) -> int:
    """Trains one fold for another process; the return value is the exit code.

    Args:
        words: the group's folder, the fold, and the options of its run.
    """
    from medqlora.utils.interrupts import Interrupted, interrupting

    try:
        with interrupting():
            train_fold(FoldGroup(Path(words[0])), int(words[1]), words[2:])
    except InputError as error:
        print(f"medqlora: error: {error}", file=sys.stderr, flush=True)
        return 2
    except Interrupted as stop:
        print(f"medqlora: ended by {stop.signal.name}", file=sys.stderr, flush=True)
        return stop.exit_code
    except Exception as error:
        print(f"medqlora: failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
