"""What stands in a file, as it stands in a message: one line, printable, and short."""

from collections.abc import Iterable

from medqlora.utils.terminal import printable


def shown(value: object) -> str:
    """A value for a message, cut where it is long; what is not printable is escaped."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} nested too deep"
    return text if len(text) <= 60 else f"{text[:57]}..."


def plain(name: str) -> str:
    """A name out of a file, for a message: as it is where it is short and printable, else as `shown`."""
    return name if name.isprintable() and len(name) <= 60 else shown(name)


def listed(names: Iterable[str]) -> str:
    """Names out of a file for a message, the first of them where there are many."""
    every = list(names)
    return ", ".join([plain(name) for name in every[:20]] + ["…"] * (len(every) > 20)) or "none"


def reason(error: BaseException) -> str:
    """A library's own words for what is wrong: their first line, cut where it is long."""
    lines = str(error).splitlines() or [""]
    text = printable(lines[0])
    return (text if len(text) <= 200 else f"{text[:199]}…") or type(error).__name__
