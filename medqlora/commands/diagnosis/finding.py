"""A line of `medqlora doctor`'s report."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        group: versions, device, attention, bitsandbytes, folders, Hub, or fit.
        name: what was checked.
        state: "wrong" keeps a fit from starting, a "note" doesn't.
        found: the result.
        fix: what to do, for every "wrong".
    """

    group: str
    name: str
    state: Literal["ok", "note", "wrong"]
    found: str
    fix: str | None = None


def trouble(needed: bool) -> Literal["note", "wrong"]:
    """The state of something that does not work: "wrong" where a fit needs it."""
    return "wrong" if needed else "note"


def first_line(error: BaseException) -> str:
    """An error's type and the first line of its message."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
