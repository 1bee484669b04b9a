"""Commands in processes of their own, forked from a process that has imported torch and Lightning already.

A cold `python -m medqlora fit` spends about ten CPU seconds on imports. A test that needs a real process (to kill, to
signal, to run beside another) needs a process, not the imports.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["medqlora.commands.lightning_cli", "medqlora.commands.verbs", "warm_process"]
)


class WarmCommand:
    """A running `medqlora` command; the methods are those of `subprocess.Popen`.

    Args:
        words: the command and its options.
        cwd: its working directory.
        log: file that its output is appended to, errors included.
        env: environment; None for this process's. Numbers of threads are those of the first command of the session.
        errors: file for standard error, where that is to be apart.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        errors: Path | None = None,
    ) -> None:
        values = {**os.environ, "OMP_NUM_THREADS": "1"} if env is None else dict(env)
        self._process = _CONTEXT.Process(
            target=_run, args=(list(words), str(cwd), str(log), str(errors or log), values)
        )
        self._process.start()
        self.args = ["medqlora", *words]
        self.log = log

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


def start_server() -> None:
    """Starts the process that others are forked from, where it does not run yet."""
    process = _CONTEXT.Process(target=int)
    process.start()
    process.join()


def _run(words: list[str], cwd: str, log: str, errors: str, environment: dict[str, str]) -> NoReturn:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for descriptor, path in ((1, log), (2, errors)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["medqlora", *words]
    from medqlora.cli import main

    code = main(words)
    sys.stdout.flush()
    sys.exit(code)
