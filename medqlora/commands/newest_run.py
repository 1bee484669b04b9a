"""The run that `export`, `merge` and `test --gguf` take where none is named: the one that finished last."""

import argparse
from pathlib import Path

from medqlora.artifacts.run_folder import LOGS, RunFolder
from medqlora.artifacts.runs import newest_adapter, newest_fit
from medqlora.errors import InputError


def add_logs(parser: argparse.ArgumentParser) -> None:
    """Adds --logs."""
    parser.add_argument(
        "--logs",
        metavar="DIR",
        default=LOGS,
        help="folder of the runs, of which the newest finished one is taken (default: %(default)s)",
    )


def adapter_or_newest(given: str | None, logs: str) -> str:
    """`--adapter`, or the adapter of the run that finished last.

    Raises:
        InputError: no run has finished.
    """
    if given is not None:
        return given
    newest = newest_adapter(Path(logs).expanduser())
    if newest is None:
        raise InputError(
            f"--adapter: {logs} holds no finished run: train one with `medqlora fit`, or name an adapter's folder"
        )
    return str(newest)


def run_or_newest(given: Path | None, logs: str) -> RunFolder:
    """The run of the folder `given`; without one the fit that finished last, or else that began last.

    Raises:
        InputError: there is none.
    """
    if given is not None:
        return RunFolder(given)
    newest = newest_fit(Path(logs).expanduser())
    if newest is None:
        raise InputError(
            f"--ckpt_path: {logs} holds no run: train one with `medqlora fit`, or name a .ckpt of a run's checkpoints/ "
            "folder"
        )
    return newest
