"""The host memory of this process."""

import ctypes
import os
import sys

import psutil

_GIB = 2**30
#: options of glibc's mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: bytes from which a block is returned to the system as soon as it is freed
_RETURNED = 256 * 1024


def return_freed_memory() -> bool:
    """From now on, blocks of 256 KiB or more return to the system when they are freed; only glibc can.

    glibc's own threshold grows to 32 MiB, and before version 2.38 its aligned blocks, which torch asks for, are often
    not used again: training steps then hold 2 to 5 times the memory of their tensors, and more with each step. The
    price is the system's time for fresh pages, a fifth of a step of a small model.

    Returns:
        False where the library has no such option, or `MALLOC_MMAP_THRESHOLD_` is set and stays in force.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    set_both = mallopt(_M_MMAP_THRESHOLD, _RETURNED) and mallopt(_M_TRIM_THRESHOLD, 4 * _RETURNED)
    return bool(set_both)


def resident_bytes() -> int:
    """The resident memory now."""
    return int(psutil.Process().memory_info().rss)


def resident_gib() -> float:
    """The resident memory now."""
    return resident_bytes() / _GIB


def peak_gib() -> float:
    """The highest resident memory so far. The kernel updates it now and then: it can lag behind `resident_gib`."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / _GIB
    import resource  # not on Windows

    # in KiB on Linux and in bytes on macOS: getrusage(2)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB
