"""Text files that are replaced as a whole."""

import contextlib
import os
from datetime import datetime, timezone
from pathlib import Path


def now() -> str:
    """The time as text, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_text(path: Path, text: str) -> None:
    """Writes aside, flushes, then renames: a reader sees the old file or the new one, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # on a full disk it would be in the way of what comes
            aside.unlink()
        raise
