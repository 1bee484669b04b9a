"""The moving line at the bottom of a terminal: what is printed meanwhile gets a line of its own."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

#: to the line's beginning, and nothing on it
_CLEAR = "\r\x1b[K"


class Screen:
    """One line on standard error that is drawn over and over; nothing is written where that is no terminal."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._shown: tuple[TextIO, str] | None = None
        self._hidden = 0
        #: whether another program part has the line; set by the command line, which knows the other libraries
        self.gives_way: Callable[[], bool] = lambda: False

    @property
    def is_terminal(self) -> bool:
        """Whether standard error is a terminal that can move its cursor."""
        stream = sys.stderr
        try:
            return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        except ValueError:  # a closed stream
            return False

    def show(self, text: str) -> None:
        """Draws `text` in place of the line before; control characters are the caller's to escape."""
        with self._lock:
            if not self.is_terminal or self._hidden:
                return
            if self.gives_way():
                self.clear()
                return
            self._write(sys.stderr, _CLEAR + _encodable(text[: self._width() - 1]))
            self._shown = (sys.stderr, text)

    def clear(self) -> None:
        """Removes the line."""
        with self._lock:
            if self._shown is not None:
                self._write(self._shown[0], _CLEAR)
                self._shown = None

    def keep(self, text: str) -> None:
        """Leaves `text` as a line of its own above the moving one."""
        with self.hidden():
            self._write(sys.stderr, _encodable(text) + "\n")

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """A block that prints: the line is removed before it, and drawn again by the next `show`."""
        with self._lock:
            self.clear()
            self._hidden += 1
            try:
                yield
            finally:
                self._hidden -= 1

    @staticmethod
    def _width() -> int:
        try:
            return os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal was closed: work goes on
            stream.write(text)
            stream.flush()


def _encodable(text: str) -> str:
    """The text in what the terminal can show: a bar of "#" where it has no block letters."""
    encoding = getattr(sys.stderr, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        plain = text.replace("━", "#").replace("─", "-")
        return plain.encode("ascii", "replace").decode("ascii")
    return text


#: of this process
SCREEN = Screen()
