"""Errors of other processes: the timeout of a message, and one line instead of the network's error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from medqlora.errors import InputError

#: timeout of a message, in seconds: an evaluation may keep one process busy for longer than the others
_PATIENCE_S = 30 * 60
_WEEK_S = 7 * 24 * 60 * 60
#: gloo's words for a process that does not answer
_SILENT = ("timed out", "timeout")
#: gloo's and NCCL's words for a process that has ended; torch 2.13 raises gloo's as plain RuntimeErrors
_GONE = ("connection reset", "connection closed", "connection refused", "broken pipe", "ncclremoteerror")


class LostProcessError(RuntimeError):
    """Another process has ended or does not answer."""


def patience() -> timedelta:
    """The timeout of messages between processes: half an hour, or `MEDQLORA_PATIENCE_S` seconds.

    Raises:
        InputError: the variable is not a number of seconds from 1 to a week.
    """
    seconds = os.environ.get("MEDQLORA_PATIENCE_S", str(_PATIENCE_S))
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) < 10 and 1 <= int(seconds) <= _WEEK_S):
        raise InputError(
            f"MEDQLORA_PATIENCE_S={seconds}: it is the whole seconds, 1 to {_WEEK_S}, that a process waits for the "
            f"others: correct it, or leave it unset for {_PATIENCE_S}"
        )
    return timedelta(seconds=int(seconds))


@contextmanager
def together() -> Iterator[None]:
    """Surrounds a message between processes; replaces the network's errors.

    Raises:
        LostProcessError: another process has ended, or has not answered within `patience`.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if any(words in text for words in _SILENT):
            raise LostProcessError(
                f"another process has not answered for {patience().total_seconds():.0f} s (MEDQLORA_PATIENCE_S): it "
                "hangs, or computes for longer than that"
            ) from error
        store = isinstance(error, torch.distributed.DistNetworkError | torch.distributed.DistStoreError)
        if store or any(words in text for words in _GONE):
            raise LostProcessError("another process has ended, killed or with an error of its own") from error
        raise
