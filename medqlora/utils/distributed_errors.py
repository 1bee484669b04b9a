"""Another process that has ended, or doesn't answer: how long it is waited for, and what is said of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from medqlora.errors import InputError

#: how long a process waits for the others: an evaluation may keep one of them busy for longer than the rest
_PATIENCE_S = 30 * 60
_WEEK_S = 7 * 24 * 60 * 60
#: what gloo says of a process that is there and doesn't answer
_SILENT = ("timed out", "timeout")
#: what gloo and NCCL say of one that has gone; torch 2.13 raises gloo's as plain RuntimeErrors
_GONE = ("connection reset", "connection closed", "connection refused", "broken pipe", "ncclremoteerror")


class LostProcessError(RuntimeError):
    """Another process has ended, or doesn't answer: this one can't go on."""


def patience() -> timedelta:
    """How long a process waits for the others: half an hour, or `MEDQLORA_PATIENCE_S` seconds.

    Raises:
        InputError: the variable is no number of seconds between 1 and a week.
    """
    given = os.environ.get("MEDQLORA_PATIENCE_S", str(_PATIENCE_S))
    if not (given.isascii() and given.isdigit() and len(given) < 10 and 1 <= int(given) <= _WEEK_S):
        raise InputError(
            f"MEDQLORA_PATIENCE_S={given}: it is the whole seconds, 1 to {_WEEK_S}, that a process waits for the "
            f"others: correct it, or leave it unset for {_PATIENCE_S}"
        )
    return timedelta(seconds=int(given))


@contextmanager
def together() -> Iterator[None]:
    """Around a message between processes: says in a line what else would be a line of the network's.

    Raises:
        LostProcessError: another process has ended, or hasn't answered for `patience`.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if any(words in text for words in _SILENT):
            raise LostProcessError(
                f"another process has not answered for {patience().total_seconds():.0f} s (MEDQLORA_PATIENCE_S): it "
                "hangs, or computes for longer than that; a fit goes on with --ckpt_path last"
            ) from error
        store = isinstance(error, torch.distributed.DistNetworkError | torch.distributed.DistStoreError)
        if store or any(words in text for words in _GONE):
            raise LostProcessError(
                "another process has ended, killed or with an error of its own; a fit goes on with --ckpt_path last"
            ) from error
        raise
