"""Values of a file in a message: one line, printable, and short."""

from collections.abc import Iterable

from medqlora.errors import InputError
from medqlora.utils.terminal import printable


def shown(value: object) -> str:
    """A value for a message, shortened; unprintable characters are escaped."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} nested too deep"
    return text if len(text) <= 60 else f"{text[:57]}..."


def plain(name: str) -> str:
    """A name from a file, for a message: unchanged where it is short and printable, else as `shown`."""
    return name if name.isprintable() and len(name) <= 60 else shown(name)


def listed(names: Iterable[str]) -> str:
    """Names from a file, for a message: the first 20, with commas."""
    every = list(names)
    return ", ".join([plain(name) for name in every[:20]] + ["…"] * (len(every) > 20)) or "none"


def reason(error: BaseException) -> str:
    """The first line of a library's error, shortened."""
    lines = str(error).splitlines() or [""]
    text = printable(lines[0])
    return (text if len(text) <= 200 else f"{text[:199]}…") or type(error).__name__


def no_records(source: str, stage: str) -> InputError:
    """The error of a source without the set that a command needs.

    Args:
        source: its name.
        stage: the set: "train" or "test".
    """
    return InputError(
        f"--data.source: {source} has no {stage} records: check its options (with a file of yours: "
        f"--data.source.{stage} FILE)"
    )
