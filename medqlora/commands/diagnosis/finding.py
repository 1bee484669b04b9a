"""One line of what `medqlora doctor` found."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        group: versions, device, attention, bitsandbytes, folders, Hub, or fit.
        name: what was looked at.
        state: "wrong" keeps a fit from starting, a "note" doesn't.
        found: what it is.
        fix: what to do, for every "wrong".
    """

    group: str
    name: str
    state: Literal["ok", "note", "wrong"]
    found: str
    fix: str | None = None


def first_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
