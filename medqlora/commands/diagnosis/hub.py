"""Whether the Hub answers, and a trial without it."""

import contextlib
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

from medqlora.commands.diagnosis.finding import Finding, first_line, trouble

HUB_LIMIT_S = 3.0


def hub_off() -> str | None:
    """The environment variable that keeps huggingface_hub off the network; None where none is set."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return name
    return None


def hub(*, needed: bool, limit_s: float = HUB_LIMIT_S) -> Finding:
    """One HEAD request to the Hub, without a token, given up after `limit_s` seconds.

    Args:
        needed: whether a fit has to download something.
        limit_s: in seconds, for the request and the name's look-up, which urllib's own limit leaves out.
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
    why = answers[0] if answers else f"no answer in {limit_s:g} s"
    if why is None:
        return Finding("Hub", "Hub", "ok", f"{address} answers")
    fix = "check the connection and its proxy, or download the base elsewhere and pass the folder"
    return Finding("Hub", "Hub", trouble(needed), f"{address}: {why}", fix)


def _head(address: str, limit_s: float) -> str | None:
    """Why the address can't be reached; None where it answers, whatever the answer."""
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
    """A block in which the Hub's files come from the cache alone: its client would retry for half a minute."""
    if not unreachable:
        yield
        return
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
