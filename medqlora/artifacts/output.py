"""The place that `--out` names: new or empty, and writable, before any work is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medqlora.errors import InputError
from medqlora.utils.cache import why_not_writable
from medqlora.utils.locks import hold


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """A block in which this process alone writes an output: two would remove each other's hidden folder.

    Raises:
        InputError: another process writes it.
    """
    try:
        release = hold(out)
    except BlockingIOError as error:
        raise InputError(
            f"--out {out}: another process is writing it: wait until it has ended, or name another"
        ) from error
    try:
        yield
    finally:
        release()


def check_output(out: Path, suffix: str | None = None) -> None:
    """Raises InputError for an output that exists, or that can't be made.

    Args:
        out: a folder, or a file that ends with `suffix`. A folder may exist if it is empty.
        suffix: of an output that is a file; None where it is always a folder.
    """
    is_file = suffix is not None and out.suffix == suffix
    if out.name in ("", ".."):
        raise InputError(f"--out {out}: an output needs a name of its own: name a new folder")
    if out.is_file():
        fix = "name a new one, or remove it" if suffix is not None else "name a folder"
        raise InputError(f"--out {out}: the file exists: {fix}")
    if is_file and out.is_dir():
        raise InputError(f"--out {out}: it is a folder: name a new file, or a folder without {suffix}")
    if out.is_symlink():
        raise InputError(f"--out {out}: it is a link: name a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: the folder is not empty: name a new one, or empty it")
    if why := why_not_writable(out.parent):
        raise InputError(f"--out {out}: nothing can be written there ({why}): name another place")
