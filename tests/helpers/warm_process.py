"""Commands in processes of their own, forked from a process that has imported torch and Lightning already.

A cold `python -m medqlora fit` spends about ten CPU seconds on imports. A test that needs a real process (to kill, to
signal, to run beside another) needs a process, not the imports.
"""

import atexit
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

import pytest
from fuzzing import THOROUGH
from import_path import import_path

from medqlora.profiling import processes

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["warm_imports", "warm_process"])


def begin_server() -> None:
    """Begins the process that all others are forked from, if there is none yet.

    Python 3.11's server imports from PYTHONPATH alone, and says nothing of what it can't import.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", import_path())
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()


class WarmProcess:
    """A running process; the methods are those of `subprocess.Popen`.

    Args:
        args: the command that it stands for.
        target: what runs in it.
        given: arguments of `target`.
    """

    def __init__(self, args: Sequence[str], target: Callable[..., None], given: tuple[object, ...]) -> None:
        self.args = list(args)
        begin_server()
        self._process = _CONTEXT.Process(target=target, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmCommand(WarmProcess):
    """A running `medqlora` command.

    Args:
        words: the command and its options.
        cwd: its working directory.
        log: file that its output is appended to, errors included.
        env: environment; None for this process's. There is one thread, whatever it says.
        errors: file for standard error, where that is to be apart.
        processes: with more than one, Lightning's launcher begins the others, and these are forked too.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        errors: Path | None = None,
        processes: int = 1,
    ) -> None:
        values = {**os.environ, "OMP_NUM_THREADS": "1"} if env is None else dict(env)
        self.log = log
        self._ended, alive = _CONTEXT.Pipe(duplex=False)
        given = (list(words), str(cwd), str(log), str(errors or log), values, processes, alive)
        super().__init__(["medqlora", *words], _run, given)
        alive.close()

    def wait_for_all(self, timeout: float) -> str:
        """What it and all processes that it began have said, once the last of them has ended.

        Raises:
            subprocess.TimeoutExpired: one of them still runs.
        """
        if not self._ended.poll(timeout):  # readable at its end: nothing is sent
            raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(timeout)
        return self.log.read_text(encoding="utf-8", errors="replace")


class WarmWorker(WarmProcess):
    """`python -m medqlora.profiling.worker ...`, as `profiling.processes` begins it with `subprocess.Popen`."""

    def __init__(
        self, command: Sequence[str], *, stdout: IO[bytes], stderr: int, env: Mapping[str, str]
    ) -> None:
        assert list(command[:3]) == [sys.executable, "-m", "medqlora.profiling.worker"]
        assert stderr == subprocess.STDOUT
        super().__init__(command, _work, (list(command[3:]), stdout.name, dict(env)))


def warm_workers(patch: pytest.MonkeyPatch) -> None:
    """The processes of `bench`'s cases are forked from one that has imported torch; every night they begin cold."""
    if not THOROUGH:
        names = {name: getattr(subprocess, name) for name in ("STDOUT", "TimeoutExpired")}
        patch.setattr(processes, "subprocess", SimpleNamespace(Popen=WarmWorker, **names))


class WarmProgram(WarmProcess):
    """A running `python -c code arguments`.

    Args:
        code: the program.
        arguments: the rest of its `sys.argv`.
        log: file that its output is appended to, errors included.
        env: further variables of its environment.
    """

    def __init__(self, code: str, *arguments: object, log: Path, **env: str) -> None:
        words = ["-c", *map(str, arguments)]
        super().__init__(
            words, _execute, (code, words, str(log), {**os.environ, "OMP_NUM_THREADS": "1", **env})
        )
        self.log = log


class _Waiting:
    """A process that was forked before its command began, and waits for the environment that it is to run in.

    The methods are those of `subprocess.Popen` that Lightning's launcher and its observer use.
    """

    def __init__(self, words: list[str]) -> None:
        self.returncode: int | None = None
        read, self._write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._write)
            with os.fdopen(read) as stream:
                environment = stream.readline()
            if not environment:  # the command has ended without a second process
                os._exit(0)
            os.environ.clear()
            os.environ.update(json.loads(environment))
            _command(words)
        os.close(read)

    def go(self, environment: Mapping[str, str]) -> "_Waiting":
        with os.fdopen(self._write, "w") as stream:
            stream.write(json.dumps(dict(environment)) + "\n")
        return self

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (timeout or 600)
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("medqlora", timeout or 600)
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(
    words: list[str],
    cwd: str,
    log: str,
    errors: str,
    environment: dict[str, str],
    processes: int,
    alive: Any,
) -> NoReturn:
    os.chdir(cwd)
    _settle(log, errors, environment)
    others = [_Waiting(words) for _ in range(processes - 1)]
    if others:
        from lightning.pytorch.strategies.launchers import subprocess_script

        def begin(command: list[str], env: dict[str, str], cwd: str | None) -> _Waiting:
            assert command[-len(words) :] == words
            return others.pop(0).go(env)

        subprocess_script.subprocess = SimpleNamespace(Popen=begin)  # type: ignore[attr-defined]
    _command(words)


def _settle(log: str, errors: str, environment: dict[str, str]) -> None:
    assert "warm_imports" in sys.modules, "nothing was imported before the fork"
    os.environ.clear()
    os.environ.update(environment)
    for folder in reversed(environment.get("PYTHONPATH", "").split(os.pathsep)):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
    for descriptor, path in ((1, log), (2, errors)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _command(words: list[str]) -> NoReturn:
    """The command from its words to the process's end, as the interpreter would end it."""
    sys.argv = ["medqlora", *words]
    from medqlora.cli import main

    code = 1
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _execute(code: str, words: list[str], log: str, environment: dict[str, str]) -> None:
    _settle(log, log, environment)
    sys.argv = words
    exec(compile(code, log, "exec"), {"__name__": "__main__"})
    sys.stdout.flush()


def _work(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    _settle(log, log, environment)
    import torch.multiprocessing

    from medqlora.profiling import devices, worker

    def forked(target: Callable[..., None], given: tuple[object, ...], **options: Any) -> Any:
        return torch.multiprocessing.start_processes(target, given, start_method="fork", **options)

    devices.spawn = forked
    worker.main(*arguments)
