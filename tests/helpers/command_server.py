"""`medqlora` on the PATH of a program under test: each call is a process forked from a warm one."""

import json
import os
import socket
import sys
import threading
from pathlib import Path

from warm_process import WarmCommand

#: asks the server, and prints and ends as the command did; without site-packages it starts at once
_SHIM = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    link.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    with link.makefile("r") as stream:
        code, text = json.loads(stream.readline())
sys.stdout.write(text)
sys.exit(code)
"""


class CommandServer:
    """A folder with a program `medqlora`, whose calls run in warm processes.

    Args:
        folder: of the program, the socket and the commands' output.

    Attributes:
        calls: (words, exit code, output) of each call, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.calls: list[tuple[list[str], int, str]] = []
        self._folder = folder
        address = str(folder / "s")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(address)
        self._socket.listen()
        program = folder / "medqlora"
        program.write_text(_SHIM.format(python=sys.executable, address=address))
        program.chmod(0o755)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def path(self) -> str:
        """PATH with the program first."""
        return f"{self._folder}{os.pathsep}{os.environ['PATH']}"

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            with link, link.makefile("r") as stream:
                words, folder, environment = json.loads(stream.readline())
                log = self._folder / f"call{len(self.calls)}.log"
                running = WarmCommand(words, cwd=Path(folder), log=log, env=environment)
                code = running.wait(300)
                text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
                self.calls.append((words, code, text))
                link.sendall(json.dumps([code, text]).encode() + b"\n")
