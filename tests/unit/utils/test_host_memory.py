"""The memory of this process, and what returns to the system."""

import os
import subprocess
import sys

import pytest

from medqlora.utils.host_memory import return_freed_memory

#: in a process of its own: it changes the allocator for good, and other tests move the memory of theirs
_PROGRAM = """
from medqlora.utils.host_memory import resident_bytes, return_freed_memory

if not return_freed_memory():
    raise SystemExit("no mallopt")
size = 600 * 1024
before = resident_bytes()
blocks = [bytearray(b"x" * size) for _ in range(200)]
assert resident_bytes() - before > 190 * size
del blocks[::2]
assert resident_bytes() - before < 120 * size
"""


def test_freed_blocks_return_to_the_system_though_others_stay() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_MMAP_THRESHOLD_"}
    command = [sys.executable, "-c", _PROGRAM]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    if "no mallopt" in ended.stderr:
        pytest.skip("this system has no mallopt: only glibc has")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_threshold_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")
    assert not return_freed_memory()
