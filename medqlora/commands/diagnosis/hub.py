"""Whether the Hub answers, and how a trial does without it."""

import contextlib
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Literal

from medqlora.commands.diagnosis.finding import Finding, first_line

HUB_LIMIT_S = 3.0


def hub_off() -> str | None:
    """The environment variable that keeps huggingface_hub off the network, if one does."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return name
    return None


def hub(*, needed: bool, limit_s: float = HUB_LIMIT_S) -> Finding:
    """One HEAD request to the Hub, without a token, given up after `limit_s` seconds.

    Args:
        needed: whether a fit has to fetch something.
        limit_s: for everything, the name's look-up too, which urllib's own limit leaves out.
    """
    if (name := hub_off()) is not None:
        if needed:
            fix = f"unset {name}, or download the base elsewhere and pass the folder"
            return Finding("Hub", "Hub", "wrong", f"off by {name}, and the base is not in the cache", fix)
        return Finding("Hub", "Hub", "note", f"off by {name}")
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(_head(address, limit_s)), daemon=True)
    thread.start()
    thread.join(limit_s)
    trouble = answers[0] if answers else f"no answer in {limit_s:g} s"
    if trouble is None:
        return Finding("Hub", "Hub", "ok", f"{address} answers")
    fix = "check the connection and its proxy, or download the base elsewhere and pass the folder"
    state: Literal["note", "wrong"] = "wrong" if needed else "note"
    return Finding("Hub", "Hub", state, f"{address}: {trouble}", fix)


def _head(address: str, limit_s: float) -> str | None:
    """What keeps the address from being reached; None when it answers, whatever it says."""
    try:
        request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "medqlora"})
        with urllib.request.urlopen(request, timeout=limit_s):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code < 500 else f"it answers with {error.code}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return first_line(reason) if isinstance(reason, BaseException) else str(reason)


@contextlib.contextmanager
def without_hub(unreachable: bool) -> Iterator[None]:
    """While it is entered the Hub's files come from the cache alone: its client would try again for half a minute."""
    if not unreachable:
        yield
        return
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
