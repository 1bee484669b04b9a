"""The memory of this process, and what returns to the system."""

import platform

import pytest
from fuzzing import nightly

from medqlora.utils.host_memory import resident_bytes, return_freed_memory


@nightly  # the other tests of a busy process move its resident memory too
def test_freed_blocks_return_to_the_system_though_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    if not return_freed_memory():
        pytest.skip(f"{platform.libc_ver()[0] or 'this system'} has no mallopt: only glibc has")
    size = 600 * 1024
    before = resident_bytes()
    blocks = [bytearray(b"x" * size) for _ in range(200)]
    assert resident_bytes() - before > 190 * size
    del blocks[::2]
    assert resident_bytes() - before < 120 * size


def test_a_threshold_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")
    assert not return_freed_memory()
