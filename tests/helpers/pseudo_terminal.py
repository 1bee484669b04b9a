"""What a command says on a terminal, and in which order."""

import fcntl
import os
import re
import select
import struct
import termios
import time
from collections.abc import Callable
from pathlib import Path

_CLEAR = "\r\x1b[K"


class PseudoTerminal:
    """A terminal of 120 columns; `name` is the file that a command's output goes to.

    Attributes:
        text: everything that was written so far.
    """

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.name = Path(os.ttyname(self._slave))
        self.text = ""

    @property
    def master(self) -> int:
        """The descriptor to read from."""
        return self._master

    @property
    def slave(self) -> int:
        """The descriptor for a process of one's own."""
        return self._slave

    def read_until(self, ended: Callable[[], bool], timeout_s: float = 240.0) -> str:
        """Reads while the command runs; the whole text."""
        limit = time.monotonic() + timeout_s
        raw = b""
        while time.monotonic() < limit:
            over = ended()
            while select.select([self._master], [], [], 0.05)[0]:
                raw += os.read(self._master, 65536)
                if over is False and ended():
                    break
            if over:
                break
        self.text += raw.decode(errors="replace").replace("\r\n", "\n")
        return self.text

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)

    @property
    def lines(self) -> list[str]:
        """What stays on the screen: a drawing of the moving line replaces the one before."""
        shown = [line.rpartition(_CLEAR)[2] for line in self.text.split("\n")]
        return shown if shown[-1] else shown[:-1]

    @property
    def drawings(self) -> list[str]:
        """Every drawing of the moving line, in order."""
        return [part for part in re.findall(r"\r\x1b\[K([^\r\n]*)", self.text) if part]
