"""The audit log: who asked which model, when, and what was decided, in a line of JSON each. It holds no text."""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from medqlora.errors import InputError
from medqlora.utils.console import say
from medqlora.utils.files import now
from medqlora.utils.types import Json


class AuditLog:
    """Appends lines to a file that its owner alone can read.

    The salt of the prompts' hashes is drawn at each start and written nowhere: equal hashes tell repeated questions of
    one start, and no hash can be tried against a list of likely questions.

    Args:
        path: the file; None keeps no log.
        failed: called for each line that can't be written.
    """

    def __init__(self, path: str | None, failed: Callable[[], None] = lambda: None) -> None:
        """Raises InputError for a file that can't be written."""
        self._salt = secrets.token_bytes(32)
        self._failed = failed
        self._said = False
        self._file: int | None = None
        #: whether the file ends within a line, of which there was no more room
        self._cut = False
        if path is None:
            return
        try:
            file = Path(path).expanduser()
            self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._cut = _ends_within_a_line(file)
        except OSError as error:
            raise InputError(
                f"--audit {path}: can't be written ({error.strerror}): give another file"
            ) from error

    def prompt_hash(self, texts: Sequence[str]) -> str:
        """The salted hash of a question with its contexts and options."""
        message = json.dumps(list(texts)).encode()
        return hmac.new(self._salt, message, hashlib.sha256).hexdigest()[:32]

    def write(self, line: dict[str, Json]) -> None:
        """Appends a line; where the disk is full the request goes on, and the loss is counted and told once."""
        if self._file is None:
            return
        data = (json.dumps({"time": now(), **line}, allow_nan=False) + "\n").encode()
        if self._cut:
            data = b"\n" + data
        try:
            while data:
                data = data[os.write(self._file, data) :]
                self._cut = bool(data)
        except OSError as error:
            self._failed()
            if not self._said:
                self._said = True
                self._tell(
                    f"Warning: the audit log can't be written ({error.strerror or error}); answers go on without it"
                )

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads the output any more
            say(line)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _ends_within_a_line(path: Path) -> bool:
    """Of a regular file that can be read."""
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read() != b"\n"
    return False
